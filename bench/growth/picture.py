"""Curves as an SVG file, without further packages: a small chart for each, the size on a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, COLUMNS = 300, 190, 4
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 34, 34
COLOURS = {"documents": "#1b6ca8", "agents": "#2a7f3f", "commands": "#a8501b"}


@dataclass(frozen=True)
class Curve:
    """``points``: size and value, by size; ``over``: what the sizes are of."""

    name: str
    over: str
    unit: str
    points: Sequence[tuple[int, float]]


def draw(curves: Sequence[Curve], title: str) -> str:
    rows = -(-len(curves) // COLUMNS)
    width, height = COLUMNS * WIDTH, rows * HEIGHT + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="10" y="20" font-size="14">{escape(title)}</text>',
    ]
    for position, curve in enumerate(curves):
        row, column = divmod(position, COLUMNS)
        parts.append(f'<g transform="translate({column * WIDTH} {row * HEIGHT + 30})">{_chart(curve)}</g>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _chart(curve: Curve) -> str:
    """Its vertical axis begins at zero."""
    sizes = [max(size, 1) for size, _ in curve.points]
    first, last = math.log10(min(sizes)), math.log10(max(sizes))
    top = _round_up(max(value for _, value in curve.points))
    inner, deep = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def across(size: int) -> float:
        return LEFT + inner * ((math.log10(max(size, 1)) - first) / (last - first) if last > first else 0.5)

    def down(value: float) -> float:
        return TOP + deep * (1 - value / top)

    parts = [f'<text x="{LEFT}" y="16" font-size="12">{escape(curve.name)}, {escape(curve.unit)}</text>']
    for share in (0, 0.5, 1):
        y = down(top * share)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{top * share:g}</text>')
    for size, _ in curve.points:
        if size in (curve.points[0][0], curve.points[-1][0]) or math.log10(max(size, 1)).is_integer():
            y = HEIGHT - BOTTOM + 15
            parts.append(f'<text x="{across(size):.1f}" y="{y}" text-anchor="middle">{_short(size)}</text>')
    parts.append(
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 5}" text-anchor="end" fill="#666">{escape(curve.over)}</text>'
    )
    colour = COLOURS.get(curve.over, "black")
    line = " ".join(f"{across(size):.1f},{down(value):.1f}" for size, value in curve.points)
    parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
    parts += [
        f'<circle cx="{across(size):.1f}" cy="{down(value):.1f}" r="2.5" fill="{colour}"/>'
        for size, value in curve.points
    ]
    return "".join(parts)


def _round_up(value: float) -> float:
    """To 1, 2, 4, 6 or 8 with noughts."""
    if value <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next(unit * step for step in (1, 2, 4, 6, 8, 10) if unit * step >= value)


def _short(size: int) -> str:
    for unit, name in ((1_000_000, "M"), (1000, "k")):
        if size >= unit:
            return f"{size / unit:g}{name}"
    return str(size)
