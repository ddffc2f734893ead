"""Small inline SVG charts for the page; colours come from the page's CSS classes.

Interval charts and bars, and the axes that all charts share.

Guarantee: every text is escaped, every number shown is one that was given, and a chart is drawn in a
360-wide box so that its text stays readable on a phone.
Elsewhere: the scatter chart (scatter).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

WIDTH = 360
LEFT = 92  # room for row labels


class Row(NamedTuple):
    """A labelled point with its interval; `strong` marks the one that counts."""

    label: str
    value: float
    low: float
    high: float
    text: str
    strong: bool = False


def intervals(
    rows: Sequence[Row], *, title: str, form: Callable[[float], str], reference: float | None = None
) -> str:
    """Points with whiskers on one axis, a row each; `reference` draws a vertical line."""
    values = [v for r in rows for v in (r.value, r.low, r.high)] + ([] if reference is None else [reference])
    low, high = padded(min(values), max(values))
    height = 34 * len(rows) + 26
    right = WIDTH - 12

    def x(value: float) -> float:
        return round(LEFT + (value - low) / (high - low) * (right - LEFT), 1)

    parts = []
    for value in ticks(low, high, 4):
        parts.append(f'<line class="grid" x1="{x(value)}" y1="4" x2="{x(value)}" y2="{height - 20}"/>')
        edge = x(value) > right - 14  # a long number would leave the box
        parts.append(tick(WIDTH if edge else x(value), height - 6, form(value), "end" if edge else "middle"))
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
    return svg(title, height, parts)


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
    return svg(title, 30 * len(rows) + 2, parts)


def tick(x: float, y: float, text: str, anchor: str = "middle") -> str:
    """Text of an axis."""
    return f'<text class="tick" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def svg(title: str, height: float, parts: Sequence[str]) -> str:
    """The picture with its title, for readers and screen readers."""
    body = "".join(parts)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(title, quote=True)}">'
        f"<title>{escape(title)}</title>{body}</svg>"
    )


def padded(low: float, high: float) -> tuple[float, float]:
    """A range with some room on either side."""
    room = (high - low) * 0.12 or abs(high) * 0.05 or 1.0
    return low - room, high + room


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """Round values inside the range."""
    step = 10 ** math.floor(math.log10((high - low) / wanted))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= wanted)
    first = math.ceil(low / step)
    return [round(i * step, 12) for i in range(first, math.floor(high / step) + 1)]
