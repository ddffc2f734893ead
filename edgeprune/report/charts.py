"""Small inline SVG charts for the page; colours come from the page's CSS classes.

Guarantee: every text is escaped, every number shown is one that was given, and a chart is drawn in a
360-wide box so that its text stays readable on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

WIDTH = 360
LEFT = 92  # room for row labels
MARKS = 4  # a series beyond them shares the mark of an earlier one


class Row(NamedTuple):
    """A labelled point with its interval; `strong` marks the one that counts."""

    label: str
    value: float
    low: float
    high: float
    text: str
    strong: bool = False


class Mark(NamedTuple):
    """A point of a scatter chart; those of one `series` have one mark and are joined."""

    x: float
    y: float
    label: str
    strong: bool
    series: str = ""


def intervals(
    rows: Sequence[Row], *, title: str, form: Callable[[float], str], reference: float | None = None
) -> str:
    """Points with whiskers on one axis, a row each; `reference` draws a vertical line."""
    values = [v for r in rows for v in (r.value, r.low, r.high)] + ([] if reference is None else [reference])
    low, high = _padded(min(values), max(values))
    height = 34 * len(rows) + 26
    right = WIDTH - 12

    def x(value: float) -> float:
        return round(LEFT + (value - low) / (high - low) * (right - LEFT), 1)

    parts = []
    for tick in _ticks(low, high, 4):
        parts.append(f'<line class="grid" x1="{x(tick)}" y1="4" x2="{x(tick)}" y2="{height - 20}"/>')
        parts.append(_tick(x(tick), height - 6, form(tick)))
    if reference is not None:
        parts.append(f'<line class="ref" x1="{x(reference)}" y1="0" x2="{x(reference)}" y2="{height - 20}"/>')
    for i, row in enumerate(rows):
        y = 34 * i + 22
        strong = " strong" if row.strong else ""
        middle = min(max(x(row.value), LEFT + 34), right - 34)  # the label stays inside the box
        parts.append(f'<text class="label" x="0" y="{y + 4}">{escape(row.label)}</text>')
        parts.append(
            f'<line class="whisker{strong}" x1="{x(row.low)}" y1="{y}" x2="{x(row.high)}" y2="{y}"/>'
        )
        parts.append(f'<circle class="dot{strong}" cx="{x(row.value)}" cy="{y}" r="4.5"/>')
        parts.append(
            f'<text class="value" x="{middle}" y="{y - 9}" text-anchor="middle">{escape(row.text)}</text>'
        )
    return _svg(title, height, parts)


def bars(rows: Sequence[tuple[str, float, str, bool]], *, title: str) -> str:
    """Horizontal bars from zero: (label, value, text, strong)."""
    top = max((value for _, value, _, _ in rows), default=0.0) or 1.0
    room = WIDTH - LEFT - 70
    parts = []
    for i, (label, value, text, strong) in enumerate(rows):
        y, length = 30 * i + 4, max(1.0, value / top * room)
        parts.append(f'<text class="label" x="0" y="{y + 15}">{escape(label)}</text>')
        kind = "bar strong" if strong else "bar"
        parts.append(f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{length:.1f}" height="20" rx="3"/>')
        parts.append(f'<text class="value" x="{LEFT + length + 6:.1f}" y="{y + 15}">{escape(text)}</text>')
    return _svg(title, 30 * len(rows) + 2, parts)


def scatter_chart(
    points: Sequence[Mark],
    *,
    title: str,
    x_form: Callable[[float], str],
    y_form: Callable[[float], str],
    x_title: str,
    y_title: str,
    y_most: float = math.inf,
) -> str:
    """Points in a plane, a mark and a line per series in the order of x; the strong one is named.

    Args:
        y_most: the largest value there can be; the axis shows none beyond it.
    """
    ordered = sorted(points)
    x_low, x_high = _padded(min(p.x for p in points), max(p.x for p in points))
    y_low, y_high = _padded(min(p.y for p in points), max(p.y for p in points))
    left, right, top, bottom = 48, WIDTH - 10, 22, 190

    def at(p: Mark) -> tuple[float, float]:
        return (
            round(left + (p.x - x_low) / (x_high - x_low) * (right - left), 1),
            round(bottom - (p.y - y_low) / (y_high - y_low) * (bottom - top), 1),
        )

    parts = [_tick(0, 11, y_title, "start")]
    for tick in _ticks(y_low, y_high, 4):
        if tick > y_most:
            continue
        y = at(Mark(x_low, tick, "", False))[1]
        parts.append(f'<line class="grid" x1="{left}" y1="{y}" x2="{right}" y2="{y}"/>')
        parts.append(_tick(left - 5, y + 4, y_form(tick), "end"))
    for tick in _ticks(x_low, x_high, 3):
        x = at(Mark(tick, y_low, "", False))[0]
        parts.append(_tick(x, bottom + 15, x_form(tick)))
    parts.append(_tick(right, bottom + 31, x_title, "end"))
    names = list(dict.fromkeys(p.series for p in ordered))
    for name in names:
        way = " ".join(f"{x},{y}" for x, y in (at(p) for p in ordered if p.series == name))
        parts.append(f'<polyline class="path" points="{way}"/>')
    for p in ordered:
        parts.append(_mark(*at(p), names.index(p.series) % MARKS, strong=p.strong, label=p.label))
        if p.strong:
            x, y = at(p)
            # Below the point: the front rises towards cost, so that corner is free.
            anchor = "end" if x > WIDTH * 0.7 else "start"
            where = f'x="{x}" y="{y + 18}" text-anchor="{anchor}"'
            parts.append(f'<text class="value" {where}>{escape(p.label)}</text>')
    height = bottom + 36
    for i, name in enumerate(names if len(names) > 1 else ()):
        parts.append(_mark(left + 4, height + 6, i % MARKS, strong=False, label=name))
        parts.append(_tick(left + 14, height + 10, name, "start"))
        height += 16
    return _svg(title, height, parts)


def _mark(x: float, y: float, kind: int, *, strong: bool, label: str) -> str:
    """A dot, a ring, a square or a hollow square."""
    size, name = (6.0 if strong else 4.0), f"<title>{escape(label)}</title>"
    style = f"{'hollow' if kind % 2 else 'dot'}{' strong' if strong else ''}"
    if kind < 2:
        return f'<circle class="{style}" cx="{x}" cy="{y}" r="{size:g}">{name}</circle>'
    corner = f'x="{x - size:.1f}" y="{y - size:.1f}" width="{2 * size:g}" height="{2 * size:g}"'
    return f'<rect class="{style}" {corner}>{name}</rect>'


def _tick(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text class="tick" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    body = "".join(parts)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(title, quote=True)}">'
        f"<title>{escape(title)}</title>{body}</svg>"
    )


def _padded(low: float, high: float) -> tuple[float, float]:
    room = (high - low) * 0.12 or abs(high) * 0.05 or 1.0
    return low - room, high + room


def _ticks(low: float, high: float, wanted: int) -> list[float]:
    """Round values inside the range."""
    step = 10 ** math.floor(math.log10((high - low) / wanted))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= wanted)
    first = math.ceil(low / step)
    return [round(i * step, 12) for i in range(first, math.floor(high / step) + 1)]
