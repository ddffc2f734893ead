"""The check that a report.json has the form of `records.report.Report`.

An interval is {value, low, high, level}. Keys that the record does not have are allowed and ignored. Reports
of earlier schema numbers are refused: run the command again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeprune.errors import RunError
from edgeprune.records.report import REPORT_SCHEMA, Accuracy, LatencyRow, Report
from edgeprune.records.schema import read_as

SCHEMA = REPORT_SCHEMA
TIP = "run the command again with --force"


def validate_report(report: Mapping[str, Any]) -> Report:
    """Check the content of report.json, and give it as a record.

    Raises:
        RunError: the first field that does not fit: its path, what was found and what was expected.
    """
    if isinstance(report, Mapping) and report.get("schema") != SCHEMA:
        raise _wrong("schema", repr(report.get("schema")), f"one of {SCHEMA}")
    record = read_as(Report, report, "report.json", tip=TIP)
    if record.accuracy is not None:
        _check_accuracy(record.accuracy)
    if record.latency is not None:
        _check_latency(record.latency)
        if record.latency.basis != "measured":
            _refuse_milliseconds(record)
    return record


def _check_accuracy(accuracy: Accuracy) -> None:
    steps = ("dense", "pruned", "compensated", "shipped")
    for name in (*steps, "drop"):
        interval = getattr(accuracy, name)
        if interval is None:
            continue
        where = f"accuracy.{name}"
        if name != "drop" and accuracy.unit == "points" and not 0 <= interval.value <= 1:
            raise _wrong(f"{where}.value", interval.value, "a number from 0 to 1")
        if not interval.low <= interval.value <= interval.high:
            actual = f"{interval.value} outside {interval.low}..{interval.high}"
            raise _wrong(where, actual, "low ≤ value ≤ high")


def _check_latency(latency: LatencyRow) -> None:
    if not latency.ratio_low <= latency.ratio <= latency.ratio_high:
        actual = f"{latency.ratio} outside {latency.ratio_low}..{latency.ratio_high}"
        raise _wrong("latency.ratio", actual, "ratio_low ≤ ratio ≤ ratio_high")
    if latency.basis == "measured":
        for key in ("dense_p50_ms", "shipped_p50_ms"):
            if getattr(latency, key) is None:
                raise _wrong(f"latency.{key}", None, "a finite number")


def _refuse_milliseconds(record: Report) -> None:
    """An estimate or an emulated target may hold ratios, but no milliseconds."""
    latency = record.latency
    held = [k for k in ("dense_p50_ms", "shipped_p50_ms") if getattr(latency, k) is not None]
    held += [f"front[{i}].latency_ms" for i, row in enumerate(record.front) if row.latency_ms is not None]
    if held and latency is not None:
        raise _wrong("latency", ", ".join(held), f"no milliseconds where the basis is {latency.basis!r}")


def _wrong(where: str, actual: Any, expected: str) -> RunError:
    return RunError(f"report.json: {where}: found {str(actual)[:80]}; expected {expected}", tip=TIP)
