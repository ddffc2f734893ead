"""A scatter chart with series, a limit line and labels that cover no mark, as inline SVG.

Guarantee: each series has the shape and filling that its points carry, and the legend repeats them, so the
two cannot differ; a label is put where it covers no mark and no other label, and inside the box.
Elsewhere: interval and bar charts, axes (charts).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from html import escape
from typing import Literal, NamedTuple, TypeAlias

from edgeprune.report.charts import WIDTH, padded, svg, tick, ticks

Shape: TypeAlias = Literal["circle", "square", "diamond"]
LEFT, RIGHT, TOP, BOTTOM = 48, WIDTH - 10, 22, 210
CHARACTER, LINE = 6.2, 13.0  # of a label, at 11 px: generous, since fonts differ
SIZES = {True: 6.0, False: 4.5}


class Mark(NamedTuple):
    """A point; those of one `series` are joined if `joined`. named: its label is written beside it."""

    x: float
    y: float
    label: str
    series: str = ""
    shape: Shape = "circle"
    hollow: bool = False
    strong: bool = False
    named: bool = False
    joined: bool = True


class Box(NamedTuple):
    """A rectangle in the chart's coordinates."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        """Whether the two share any area."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


def scatter_chart(
    points: Sequence[Mark],
    *,
    title: str,
    x_form: Callable[[float], str],
    y_form: Callable[[float], str],
    x_title: str,
    y_title: str,
    limit: tuple[float, str] | None = None,
) -> str:
    """Points in a plane with a legend of their series.

    Args:
        limit: a value of y and its name, drawn as a dashed line.
    """
    ordered = sorted(points)
    ys = [p.y for p in ordered] + ([] if limit is None else [limit[0]])
    x_low, x_high = padded(ordered[0].x, ordered[-1].x)
    y_low, y_high = padded(min(ys), max(ys))

    def across(x: float) -> float:
        return round(LEFT + (x - x_low) / (x_high - x_low) * (RIGHT - LEFT), 1)

    def down(y: float) -> float:
        return round(BOTTOM - (y - y_low) / (y_high - y_low) * (BOTTOM - TOP), 1)

    parts = [tick(0, 11, y_title, "start"), tick(RIGHT, BOTTOM + 31, x_title, "end")]
    for value in ticks(y_low, y_high, 4):
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{down(value)}" x2="{RIGHT}" y2="{down(value)}"/>')
        parts.append(tick(LEFT - 5, down(value) + 4, y_form(value), "end"))
    parts += [tick(across(value), BOTTOM + 15, x_form(value)) for value in ticks(x_low, x_high, 3)]
    taken = [_around(across(p.x), down(p.y), SIZES[p.strong] + 1.5) for p in ordered]
    if limit is not None:
        y = down(limit[0])
        parts.append(f'<line class="limit" x1="{LEFT}" y1="{y}" x2="{RIGHT}" y2="{y}"/>')
        at = _beside_line(limit[1], y, taken)
        taken += [at, Box(LEFT, y - 1, RIGHT, y + 1)]
        parts.append(_text(at, limit[1], "tick"))
    series = list(dict.fromkeys(p.series for p in ordered))
    for name in series:
        way = [(across(p.x), down(p.y)) for p in ordered if p.series == name and p.joined]
        if len(way) > 1:
            parts.append(f'<polyline class="path" points="{" ".join(f"{x},{y}" for x, y in way)}"/>')
            taken += [box for a, b in itertools.pairwise(way) for box in _along(a, b)]
    for p in sorted(ordered, key=lambda p: (not p.hollow, p.shape == "diamond")):  # hollow marks below
        parts.append(_mark(across(p.x), down(p.y), p))
    for p in sorted((p for p in ordered if p.named), key=lambda p: not p.strong):
        at = place_label(p.label, across(p.x), down(p.y), SIZES[p.strong], taken)
        taken.append(at)
        parts.append(_text(at, p.label, "value"))
    height = BOTTOM + 36
    for name in series if len(series) > 1 else ():
        sample = next(p for p in ordered if p.series == name)
        parts.append(_mark(LEFT + 4, height + 6, sample._replace(strong=False, label=name)))
        parts.append(tick(LEFT + 14, height + 10, name, "start"))
        height += 16
    return svg(title, height, parts)


def place_label(text: str, x: float, y: float, size: float, taken: Sequence[Box]) -> Box:
    """Where a label stands beside its mark: the nearest place that is free and inside the chart."""
    width = CHARACTER * len(text)
    for distance in (size + 4, size + 16, size + 28, size + 44):
        for dx, dy in ((1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0)):
            left = x + dx * distance - (width if dx < 0 else width / 2 if dx == 0 else 0)
            middle = y + dy * distance
            box = Box(left, middle - LINE / 2, left + width, middle + LINE / 2)
            inside = box.left >= LEFT and box.right <= RIGHT and box.top >= TOP - 8 and box.bottom <= BOTTOM
            if inside and not any(box.overlaps(other) for other in taken):
                return box
    left = min(max(x - width / 2, LEFT), RIGHT - width)
    return Box(left, TOP - 20, left + width, TOP - 20 + LINE)  # above the plot, where no mark stands


def _beside_line(text: str, y: float, taken: Sequence[Box]) -> Box:
    """The name of the limit: above or below its line where that is free, else above the plot."""
    width = CHARACTER * len(text)
    lefts = [RIGHT - width - step for step in range(0, int(RIGHT - LEFT - width), 8)]
    places = [
        Box(left, y + shift - LINE / 2, left + width, y + shift + LINE / 2)
        for left in lefts
        for shift in (-8, 9)
    ]
    above = Box(RIGHT - width, TOP - 20, RIGHT, TOP - 20 + LINE)
    return next((box for box in places if not any(box.overlaps(b) for b in taken)), above)


def _along(a: tuple[float, float], b: tuple[float, float]) -> list[Box]:
    """Small boxes along a line."""
    steps = max(1, round(max(abs(b[0] - a[0]), abs(b[1] - a[1])) / 4))
    shares = [i / steps for i in range(steps + 1)]
    return [_around(a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1]), 1.5) for t in shares]


def _around(x: float, y: float, size: float) -> Box:
    return Box(x - size, y - size, x + size, y + size)


def _text(box: Box, text: str, kind: str) -> str:
    middle, base = (box.left + box.right) / 2, box.bottom - 3
    return f'<text class="{kind}" x="{middle:.1f}" y="{base:.1f}" text-anchor="middle">{escape(text)}</text>'


def _mark(x: float, y: float, point: Mark) -> str:
    size, name = SIZES[point.strong], f"<title>{escape(point.label)}</title>"
    style = f"{'hollow' if point.hollow else 'dot'}{' strong' if point.strong else ''}"
    if point.shape == "circle":
        return f'<circle class="{style}" cx="{x}" cy="{y}" r="{size:g}">{name}</circle>'
    if point.shape == "diamond":
        around = f"{x},{y - size - 1} {x + size + 1},{y} {x},{y + size + 1} {x - size - 1},{y}"
        return f'<polygon class="{style}" points="{around}">{name}</polygon>'
    corner = f'x="{x - size:.1f}" y="{y - size:.1f}" width="{2 * size:g}" height="{2 * size:g}"'
    return f'<rect class="{style}" {corner}>{name}</rect>'
