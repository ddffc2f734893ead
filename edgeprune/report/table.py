"""The compact table at the end of a run, as plain text for a terminal, a log or a pipe."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from edgeprune.report import words


def render_table(report: Mapping[str, Any], *, width: int = 100) -> str:
    """One line a quantity: dense, shipped, change; then what was kept and what to know.

    Args:
        report: the content of report.json, valid by `validate_report`.
        width: columns of the terminal; longer notes are wrapped.
    """
    rows = [("", "dense", "shipped", "")]
    accuracy, latency = report["accuracy"], report["latency"]
    if accuracy is None:
        rows.append(("accuracy", "–", "–", "not measured: no data was given"))
    else:
        dense, shipped = (words.measure_value(accuracy, accuracy[k]["value"]) for k in ("dense", "shipped"))
        rows.append((words.measure_label(accuracy), dense, shipped, words.loss(accuracy)))
    for part in (accuracy or {}).get("parts", [])[1:] or ():
        rows.append((part["measure"], *_part(part)))
    for metric in report["metrics"]:
        rows.append((metric["name"], f"{metric['dense']:.4g}", f"{metric['shipped']:.4g}", ""))
    rows.append(_pair("MACs", report["macs"], words.short_count, "fewer"))
    rows.append(_pair("parameters", report["params"], words.short_count, "fewer"))
    rows.append(_pair("file", report["file_bytes"], words.size, "smaller"))
    verdict = words.speed(latency)
    if latency is not None and latency["basis"] == "measured":
        times = [words.milliseconds(latency[f"{k}_p50_ms"]) for k in ("dense", "shipped")]
        rows.append(("latency p50", times[0], times[1], verdict.text))
    else:
        rows.append(("latency", "–", "–", verdict.text))
    estimate = report.get("estimate")
    if estimate is not None:
        rows.append((f"for {report['target']['name']}", *words.estimate(estimate)))
    lines = _aligned(rows)
    if accuracy is not None and len(words.steps(accuracy)) > 2:
        path = " → ".join(
            f"{name} {words.measure_value(accuracy, step['value'])}" for name, step in words.steps(accuracy)
        )
        lines += ["", *_wrap(path, width)]
    if accuracy is not None and words.origin(accuracy):
        lines += _wrap(words.origin(accuracy), width)
    lines += ["", *_wrap(_parity(report["parity"]), width)]
    if latency is not None:
        lines += _wrap(_where(latency), width)
    if report.get("timing"):
        lines += _wrap(report["timing"]["text"], width)
    lines += _wrap(_widths(report), width)
    for entry in report.get("inputs", []):
        lines += _wrap(words.kept_inputs_line(entry), width)
    warnings = report.get("warnings", [])
    for text in warnings:
        lines += _wrap(f"warning: {text}", width)
    for note in report.get("notes", []):
        if note not in warnings:
            lines += _wrap(f"note: {note}", width)
    return "\n".join(lines)


def _part(part: Mapping[str, Any]) -> tuple[str, str, str]:
    """A further output that is judged: dense, shipped, loss."""
    shown = {"unit": part["unit"]}
    dense, shipped = (words.measure_value(shown, part[k]) for k in ("dense", "shipped"))
    as_step = {k: {"value": part[k]} for k in ("dense", "shipped")}
    return dense, shipped, words.loss({**shown, **as_step, "drop": part["drop"]})


def _pair(name: str, pair: Mapping[str, Any], form: Any, word: str) -> tuple[str, str, str, str]:
    dense, shipped = pair["dense"], pair["shipped"]
    return name, form(dense), form(shipped), words.fewer(dense, shipped, word)


def _parity(parity: Mapping[str, Any]) -> str:
    reference = parity.get("reference", "PyTorch")
    text = f"parity: ONNX differs from {reference} by at most {parity['max_abs']:.2g}"
    if parity["top1_agreement"] is not None:
        text += f", top-1 agreement {words.share(parity['top1_agreement'])}"
    return text


def _where(latency: Mapping[str, Any]) -> str:
    verb = "measured on" if latency["basis"] == "measured" else f"{latency['basis']} for"
    text = f"latency: {verb} {latency['where']}{'' if latency.get('on_target', True) else ', not the target'}"
    settings = words.settings(latency)
    return f"{text}, {settings}" if settings else text


def _widths(report: Mapping[str, Any]) -> str:
    layers = report["layers"]
    before, after = sum(x["before"] for x in layers), sum(x["after"] for x in layers)
    smaller = sum(x["after"] < x["before"] for x in layers)
    text = f"widths: {smaller} of {len(layers)} layers narrower, {before} → {after} channels"
    pinned = sum(p["channels"] for p in report["pinned"])
    return f"{text}; {pinned} pinned" if pinned else text


def _aligned(rows: list[tuple[str, str, str, str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return [
        f"{a.ljust(widths[0])}  {b.rjust(widths[1])}  {c.rjust(widths[2])}  {d}".rstrip()
        for a, b, c, d in rows
    ]


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 40), subsequent_indent="  ", break_long_words=False)
