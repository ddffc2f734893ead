"""The front: what each file loses against what it costs, and every file with how it was recovered.

Guarantee: a mark's shape and filling follow from the file's recovery and precision, never from its place in
a list; the dense network stands in the chart at no loss, and the loss that was allowed is a line.
Elsewhere: the drawing (scatter), times of the shipped file (latency).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeprune.report import words
from edgeprune.report.markup import table
from edgeprune.report.scatter import Mark, scatter_chart

BEATEN = (
    "Fine-tuned files and those refitted in closed form are not compared with each other: “beaten” means that"
    " another file of the same recovery is at least as fast and loses no more."
)


def front_section(report: Mapping[str, Any]) -> str:
    """The section; empty where nothing but the shipped file was written."""
    front = report["front"]
    if len(front) < 2:
        return ""
    away = "" if (report["latency"] or {}).get("on_target", True) else f" on {report['latency']['where']}"
    rows = [
        (
            f"{p['name']} (shipped)" if p["chosen"] and p["name"] != "shipped" else p["name"],
            p.get("recovery", "–"),
            _loss(report, p),
            words.short_count(p["macs"]),
            "–" if p.get("latency_ms") is None else words.milliseconds(p["latency_ms"]),
            ", ".join(w for w, so in (("8 bits", p.get("int8")), ("beaten", p.get("dominated"))) if so)
            or "–",
        )
        for p in front
    ]
    head = ("file", "recovery", "loss on validation", "MACs", f"p50{away}", "remarks")
    listed = table(f"All {len(front)} files of the front", head, rows, short=True)
    return f"{_chart(report, away)}{listed}<p class=small>{BEATEN}</p>"


def _chart(report: Mapping[str, Any], away: str) -> str:
    accuracy, front = report["accuracy"], report["front"]
    shown = [p for p in front if p.get("drop")]
    if accuracy is None or not shown:
        return ""
    unit = words.loss_unit(accuracy)
    timed = all(p.get("latency_ms") is not None and p.get("ratio") for p in shown)
    cost = "latency_ms" if timed else "macs"
    dense = shown[0]["latency_ms"] / shown[0]["ratio"] if timed else report["macs"]["dense"]
    points = [
        Mark(
            p[cost], -p["drop"]["value"], "shipped" if p["chosen"] else p["name"], _series(p),
            shape="square" if p.get("int8") else "circle", hollow=p.get("recovery") != "fine-tuned",
            strong=p["chosen"], named=p["chosen"],
        )
        for p in shown
    ]  # fmt: skip
    points.append(Mark(dense, 0.0, "dense", "dense network", shape="diamond", named=True, joined=False))
    allowed = allowed_loss(report)
    return scatter_chart(
        points,
        title=f"Loss against {'latency' if timed else 'MACs'} of every file, and of the dense network",
        x_form=words.milliseconds if timed else words.short_count,
        y_form=lambda v: f"{v:+g}".replace("-", "−") if v else "0",
        x_title=f"latency p50{away}" if timed else "MACs",
        y_title=f"change on validation, {unit}: higher is better",
        limit=None if allowed is None else (-allowed, f"allowed loss {allowed:g}"),
    )


def allowed_loss(report: Mapping[str, Any]) -> float | None:
    """--max-drop of the run; None where none was asked."""
    value = report["budget"].get("max_drop")
    return float(value) if isinstance(value, int | float) else None


def _loss(report: Mapping[str, Any], point: Mapping[str, Any]) -> str:
    if not point.get("drop"):
        return "–"
    unit = "" if report["accuracy"] is None else f" {words.loss_unit(report['accuracy'])}"
    return f"{point['drop']['value']:.2f}{unit}".replace("-", "−")


def _series(point: Mapping[str, Any]) -> str:
    """Files of one recovery and one precision."""
    parts = (point.get("recovery", ""), "8 bits" if point.get("int8") else "")
    return ", ".join(part for part in parts if part)
