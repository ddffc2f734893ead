"""Draw the scaling section of the information benchmark as SVG, without a plotting library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Row = dict[str, Any]


def plot(axis: str, rows: list[Row], path: Path) -> None:
    """Draw nanoseconds per value against one axis, processor time beside wall time."""
    width, height, left, bottom = 460, 260, 56, 44
    most = max(max(r["ns_per_value"], r["cpu_ns_per_value"]) for r in rows) * 1.15
    across = [left + (width - left - 20) * i / max(len(rows) - 1, 1) for i in range(len(rows))]

    def up(value: float) -> float:
        return height - bottom - (height - bottom - 24) * value / most

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<path d="M{left} 20V{height - bottom}H{width - 12}" fill="none" stroke="#444"/>',
        f'<text x="{width / 2}" y="{height - 8}" text-anchor="middle">{axis}</text>',
        '<text x="14" y="14">ns per value</text>',
    ]
    for tick in range(5):
        value = most * tick / 4
        parts.append(f'<text x="{left - 6}" y="{up(value) + 4:.1f}" text-anchor="end">{value:.2f}</text>')
    for x, row in zip(across, rows, strict=True):
        parts.append(
            f'<text x="{x:.1f}" y="{height - bottom + 15}" text-anchor="middle">{row["point"]:,}</text>'
        )
    for key, colour, label, place in (
        ("ns_per_value", "#1f6fb4", "wall", 0),
        ("cpu_ns_per_value", "#b45f1f", "processor", 1),
    ):
        points = " ".join(f"{x:.1f},{up(r[key]):.1f}" for x, r in zip(across, rows, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{width - 80}" y="{30 + 14 * place}" fill="{colour}">{label}</text>')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")
