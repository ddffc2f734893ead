"""The form of report.json, and the check that a report has it.

    schema      2
    created     ISO 8601 time
    model       {name, path?, sha256?}
    target      {name, title?}
    seed        whole number
    versions    {package: version}
    machine     {processor, cores, ...}
    criterion   {name, settings: {...}}
    budget      {option: value}, as the user gave it
    accuracy    {measured_as, samples?, dense, pruned, compensated, shipped, drop?} or null without data
                steps are intervals of shares in 0..1 (compensated may be null); drop is the paired
                interval of dense − shipped in points
    macs, params, file_bytes    {dense, shipped}
    parity      {reference?, max_abs, top1_agreement, atol?, samples?}
    latency     {basis, where, on_target, threads?, batch?, dense_p50_ms, shipped_p50_ms, ratio, ratio_low,
                ratio_high} or null; ratio is shipped / dense; basis is measured, estimate or emulated, and
                only a measured one may hold milliseconds; on_target: whether `where` is the target
    estimate    {unit, source, dense, shipped} of a target that was not timed, or null; unit: what it is
    timing      {planning: [text], final, on_target, text}: what was timed while planning, where the final
                files were (null: nowhere), and the sentence that says so
    planned     [{name, asked, predicted, measured}], shares of the dense time; asked is null in the front
    layers      [{name, kind?, before, after, note?}], widths
    inputs?     [{input, shape, of, count, kept}], which features of an input the file still reads
    pinned      [{name, channels, reason}]
    stages      [{name, seconds, peak_mb}]
    metrics     [{name, dense, shipped}], further ones the user asked for
    front       [{name, accuracy?, macs, recovery, predicted?, latency_ms?, ratio?, chosen}]; recovery is
                fine-tuned, closed form or none; predicted and ratio are shares of the dense time
    files?      [{name, bytes, sha256?}]
    notes?      [text], what a reader should know

An interval is {value, low, high, level}. Other keys are allowed and ignored. Schema 1, of finished run
folders from before, had no estimate, timing, planned, on_target and recovery; the renderers do without.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from edgeprune.errors import RunError

SCHEMA = 2
BASES = ("measured", "estimate", "emulated")
RECOVERIES = ("fine-tuned", "closed form", "none")
Check = Callable[[Any, str], None]


def validate_report(report: Mapping[str, Any]) -> None:
    """Check the content of report.json.

    Raises:
        RunError: the first field that does not fit: its path, what was found and what was expected.
    """
    _REPORT(report, "")
    latency = report["latency"]
    if latency is not None and latency["basis"] != "measured":
        held = [k for k in ("dense_p50_ms", "shipped_p50_ms") if latency.get(k) is not None]
        held += [
            f"front[{i}].latency_ms" for i, p in enumerate(report["front"]) if p.get("latency_ms") is not None
        ]
        if held:
            raise _wrong(
                "latency", ", ".join(held), f"no milliseconds where the basis is {latency['basis']!r}"
            )


def _wrong(where: str, found: Any, expected: str) -> RunError:
    return RunError(
        f"report.json: {where or 'the whole'}: found {str(found)[:80]}; expected {expected}",
        tip="run the command again with --force",
    )


def _number(low: float = -math.inf, high: float = math.inf) -> Check:
    def check(value: Any, where: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise _wrong(where, repr(value), "a finite number")
        if not low <= value <= high:
            raise _wrong(where, value, f"a number from {low:g} to {high:g}")

    return check


def _whole(low: int) -> Check:
    def check(value: Any, where: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise _wrong(where, repr(value), f"a whole number of at least {low}")

    return check


def _text(value: Any, where: str) -> None:
    if not isinstance(value, str):
        raise _wrong(where, repr(value), "text")


def _flag(value: Any, where: str) -> None:
    if not isinstance(value, bool):
        raise _wrong(where, repr(value), "true or false")


def _anything(value: Any, where: str) -> None:
    del value, where


def _one_of(*allowed: Any) -> Check:
    def check(value: Any, where: str) -> None:
        if isinstance(value, bool) or value not in allowed:
            raise _wrong(where, repr(value), f"one of {', '.join(map(str, allowed))}")

    return check


def _nullable(inner: Check) -> Check:
    def check(value: Any, where: str) -> None:
        if value is not None:
            inner(value, where)

    return check


def _list(inner: Check) -> Check:
    def check(value: Any, where: str) -> None:
        if not isinstance(value, list):
            raise _wrong(where, type(value).__name__, "a list")
        for i, item in enumerate(value):
            inner(item, f"{where}[{i}]")

    return check


def _map(inner: Check) -> Check:
    def check(value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise _wrong(where, type(value).__name__, "an object")
        for key, item in value.items():
            inner(item, f"{where}.{key}")

    return check


def _record(**fields: Check) -> Check:
    """An object; a field whose name ends in `_` is optional."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise _wrong(where, type(value).__name__, "an object")
        for name, inner in fields.items():
            key, optional = name.rstrip("_"), name.endswith("_")
            path = f"{where}.{key}" if where else key
            if key in value:
                inner(value[key], path)
            elif not optional:
                raise _wrong(path, "nothing", "this field")

    return check


def _interval(low: float = -math.inf, high: float = math.inf) -> Check:
    shape = _record(value=_number(low, high), low=_number(), high=_number(), level_=_number(0, 1))

    def check(value: Any, where: str) -> None:
        shape(value, where)
        if not value["low"] <= value["value"] <= value["high"]:
            raise _wrong(
                where, f"{value['value']} outside {value['low']}..{value['high']}", "low ≤ value ≤ high"
            )

    return check


def _latency(value: Any, where: str) -> None:
    _record(
        basis=_one_of(*BASES),
        where=_text,
        on_target=_flag,
        threads_=_nullable(_whole(1)),
        batch_=_nullable(_whole(1)),
        dense_p50_ms=_nullable(_number(0)),
        shipped_p50_ms=_nullable(_number(0)),
        ratio=_number(1e-9),
        ratio_low=_number(1e-9),
        ratio_high=_number(1e-9),
    )(value, where)
    if not value["ratio_low"] <= value["ratio"] <= value["ratio_high"]:
        found = f"{value['ratio']} outside {value['ratio_low']}..{value['ratio_high']}"
        raise _wrong(f"{where}.ratio", found, "ratio_low ≤ ratio ≤ ratio_high")
    if value["basis"] == "measured":
        for key in ("dense_p50_ms", "shipped_p50_ms"):
            _number(0)(value[key], f"{where}.{key}")


_SHARE = _interval(0, 1)
_PAIR = _record(dense=_whole(0), shipped=_whole(0))
_REPORT = _record(
    schema=_one_of(SCHEMA),
    created=_text,
    model=_record(name=_text, path_=_text, sha256_=_text),
    target=_record(name=_text, title_=_text),
    seed=_whole(0),
    versions=_map(_text),
    machine=_map(_anything),
    criterion=_record(name=_text, settings=_map(_anything)),
    budget=_map(_anything),
    accuracy=_nullable(
        _record(
            measured_as=_text,  # accuracy, agreement (no labels), or the name of a metric
            samples_=_whole(1),
            dense=_SHARE,
            pruned=_SHARE,
            compensated=_nullable(_SHARE),
            shipped=_SHARE,
            drop_=_nullable(_interval()),
        )
    ),
    macs=_PAIR,
    params=_PAIR,
    file_bytes=_PAIR,
    parity=_record(
        reference_=_text,
        max_abs=_number(0),
        top1_agreement=_nullable(_number(0, 1)),
        atol_=_nullable(_number(0)),
        samples_=_whole(1),
    ),
    latency=_nullable(_latency),
    estimate=_nullable(_record(unit=_text, source=_text, dense=_number(0), shipped=_number(0))),
    timing=_record(planning=_list(_text), final=_nullable(_text), on_target=_flag, text=_text),
    planned=_list(
        _record(name=_text, asked=_nullable(_number(0)), predicted=_number(0), measured=_number(0))
    ),
    layers=_list(_record(name=_text, kind_=_text, before=_whole(1), after=_whole(0), note_=_nullable(_text))),
    inputs_=_list(
        _record(input=_text, shape=_list(_whole(1)), of=_text, count=_whole(1), kept=_list(_whole(0)))
    ),
    pinned=_list(_record(name=_text, channels=_whole(0), reason=_text)),
    stages=_list(_record(name=_text, seconds=_number(0), peak_mb=_nullable(_number(0)))),
    metrics=_list(_record(name=_text, dense=_number(), shipped=_number())),
    front=_list(
        _record(
            name=_text,
            accuracy_=_nullable(_number(0, 1)),
            macs=_whole(0),
            recovery=_one_of(*RECOVERIES),
            predicted_=_nullable(_number(0)),
            latency_ms_=_nullable(_number(0)),
            ratio_=_nullable(_number(0)),
            chosen=_flag,
        )
    ),
    files_=_list(_record(name=_text, bytes=_whole(0), sha256_=_text)),
    notes_=_list(_text),
)
