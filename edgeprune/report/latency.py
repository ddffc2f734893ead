"""What the page says of latency: the tiles on top, the section, predicted against measured.

Guarantee: a time names the machine that it was taken on wherever that is not the target; an estimate
carries its unit and stands in a tile of its own.
Elsewhere: what may be called faster (words), the front (choices).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from edgeprune.report import charts, words
from edgeprune.report.markup import capital, table


def tiles(report: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Title, headline, detail and kind: the latency, and beside it the estimate for an untimed target."""
    latency, verdict = report["latency"], words.speed(report["latency"])
    detail = verdict.detail
    if latency is not None and latency["basis"] == "measured":
        dense, shipped = (words.milliseconds(latency[f"{k}_p50_ms"]) for k in ("dense", "shipped"))
        detail += f" · p50 {dense} → {shipped}"
    yield "Latency", verdict.headline, detail, verdict.kind.replace(" ", "-")
    if report.get("estimate"):
        dense, shipped, what = words.estimate(report["estimate"])
        yield f"Estimate for {_target(report)}", f"{dense} → {shipped}", what, "estimate"


def body(report: Mapping[str, Any]) -> str:
    """The section: the verdict, the two files, which timings were made, predicted against measured."""
    return _measured(report) + _estimate(report) + _timing(report) + _planned(report)


def _measured(report: Mapping[str, Any]) -> str:
    latency = report["latency"]
    if latency is None:
        return "<p>Latency was not measured.</p>"
    verdict = words.speed(latency)
    ratio = charts.Row(
        "shipped/dense",
        latency["ratio"],
        latency["ratio_low"],
        latency["ratio_high"],
        f"{latency['ratio']:.3f}",
        True,
    )
    chart = charts.intervals([ratio], title="Ratio to dense", form=lambda v: f"{v:g}", reference=1.0)
    place = ", ".join(part for part in (latency["where"], words.settings(latency)) if part)
    if latency["basis"] == "measured":
        rows = [
            (k, latency[f"{k}_p50_ms"], words.milliseconds(latency[f"{k}_p50_ms"]), k == "shipped")
            for k in ("dense", "shipped")
        ]
        chart = charts.bars(rows, title="Median latency") + chart
        where = f"Measured on {place}"
        where += "." if latency.get("on_target", True) else f", not on {_target(report)}."
    else:
        kind = "emulated" if latency["basis"] == "emulated" else "an estimate"
        where = f"This is {kind} for {place}, no measurement of time."
    text = f"<strong>{escape(capital(verdict.text))}.</strong> {escape(where)}"
    return f"{chart}<p>{text} The dashed line is the dense model.</p>"


def _estimate(report: Mapping[str, Any]) -> str:
    estimate = report.get("estimate")
    if not estimate:
        return ""
    dense, shipped, what = words.estimate(estimate)
    text = f"For {_target(report)}: {dense} dense, {shipped} shipped, in {what}."
    text += f" Source: {estimate['source']}."
    return f"<p>{escape(text)}</p>"


def _timing(report: Mapping[str, Any]) -> str:
    timing = report.get("timing")
    return f"<p>{escape(capital(timing['text']))}.</p>" if timing else ""


def _planned(report: Mapping[str, Any]) -> str:
    """Predicted against measured, where anything was predicted."""
    planned = report.get("planned")
    if not planned:
        return ""
    here = report["timing"]["on_target"]
    unit = "" if here or not report["estimate"] else f" by {report['estimate']['unit']}"
    goals = any(p["asked"] is not None for p in planned)
    rows = []
    for p in planned:
        row = [p["name"], f"{p['predicted']:.3f}", f"{p['measured']:.3f}"]
        if goals:
            row.insert(1, "–" if p["asked"] is None else f"{p['asked']:.3f}")
        if here:
            row.append(f"{100 * (p['predicted'] / p['measured'] - 1):+.1f}%".replace("-", "−"))
        rows.append(row)
    where = "" if here else f" on {report['timing']['final']}"
    head = [
        "file",
        *(["asked"] if goals else []),
        f"predicted{unit}",
        f"measured{where}",
        *(["off by"] if here else []),
    ]
    note = "shares of the dense network's time"
    if not here:
        note += "; the prediction is for the target, the measurement is not"
    caption = f"Predicted and measured, {len(rows)} files"
    return f"{table(caption, head, rows, short=True)}<p class=small>{escape(capital(note))}.</p>"


def _target(report: Mapping[str, Any]) -> str:
    return str(report["target"].get("title") or report["target"]["name"])
