"""A run as a picture: requests, latencies, polls over time, one above the other. SVG, without further packages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Final

from attrs import frozen

from wazuh_comms_trio.cli.fleet.tally import Slice

__all__ = ["draw"]

_WIDTH: Final = 900
_LEFT, _RIGHT = 62, 20
_TOP, _DEEP, _GAP = 62, 150, 52
_STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)


@frozen
class _Curve:
    name: str
    colour: str
    value: Callable[[Slice], float | None]


_PANELS: Final[Sequence[tuple[str, bool, Sequence[_Curve]]]] = (
    (
        "requests a second",
        False,
        (
            _Curve("ended", "#1b6ca8", lambda each: each.requests / max(each.length, 0.001)),
            _Curve("errors", "#c0392b", lambda each: each.errors / max(each.length, 0.001)),
        ),
    ),
    (
        "latency in ms, from the planned moment",
        True,
        (
            _Curve("p50", "#2a7f3f", lambda each: _in_ms(each.p50)),
            _Curve("p99", "#1b6ca8", lambda each: _in_ms(each.p99)),
            _Curve("this client's own lateness (worst)", "#aaaaaa", lambda each: _in_ms(each.late)),
        ),
    ),
    ("polls parked", False, (_Curve("parked", "#a8501b", lambda each: float(each.parked)),)),
)


def draw(slices: Sequence[Slice], title: str, rest_from: float) -> str:
    """Draws the picture; ``rest_from``: seconds from the start, where a line divides the start from the rest."""
    end = max((each.start + each.length for each in slices), default=1.0)
    height = _TOP + len(_PANELS) * (_DEEP + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="24" font-size="15">{escape(title)}</text>',
    ]
    for number, (name, logarithmic, curves) in enumerate(_PANELS):
        top = _TOP + number * (_DEEP + _GAP)
        parts += _panel(slices, top, end, rest_from, name, logarithmic, curves)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(
    slices: Sequence[Slice],
    top: float,
    end: float,
    rest_from: float,
    name: str,
    logarithmic: bool,
    curves: Sequence[_Curve],
) -> Iterator[str]:
    found = {curve.name: [(each, curve.value(each)) for each in slices] for curve in curves}
    values = [value for points in found.values() for _, value in points if value is not None]
    low, high = _range(values, logarithmic)
    bottom = top + _DEEP

    def across(seconds: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * seconds / end

    def down(value: float) -> float:
        if logarithmic:
            share = math.log10(max(value, low) / low) / math.log10(high / low)
        else:
            share = (value - low) / (high - low)
        return bottom - _DEEP * min(1.0, max(0.0, share))

    yield f'<text x="{_LEFT}" y="{top - 8}" font-size="12" font-weight="bold">{escape(name)}</text>'
    place = _WIDTH - _RIGHT
    for curve in reversed(curves):
        yield f'<text x="{place}" y="{top - 8}" text-anchor="end" fill="{curve.colour}">{escape(curve.name)}</text>'
        place -= 7 * len(curve.name) + 16
    for mark in _marks(low, high, logarithmic):
        y = down(mark)
        yield f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#e4e4e4"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(mark)}</text>'
    step = next((each for each in _STEPS if end / each <= 10), _STEPS[-1])
    for number in range(int(end / step) + 1):
        x = across(number * step)
        yield f'<path d="M{x:.1f} {bottom}v4" stroke="#666"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" fill="#666">{_clock(number * step)}</text>'
    if 0 < rest_from < end:
        x = across(rest_from)
        yield f'<path d="M{x:.1f} {top}V{bottom}" stroke="#888" stroke-dasharray="3 3"/>'
        yield f'<text x="{x + 4:.1f}" y="{top + 11}" fill="#666">at rest</text>'
    yield f'<path d="M{_LEFT} {bottom}H{_WIDTH - _RIGHT}" stroke="#666"/>'
    for curve in curves:
        for run in _runs(found[curve.name]):
            points = " ".join(f"{across(each.start + each.length / 2):.1f},{down(value):.1f}" for each, value in run)
            if len(run) == 1:
                left, over = points.split(",")
                yield f'<circle cx="{left}" cy="{over}" r="2" fill="{curve.colour}"/>'
            else:
                yield f'<polyline points="{points}" fill="none" stroke="{curve.colour}" stroke-width="1.4"/>'


def _runs(points: Sequence[tuple[Slice, float | None]]) -> Iterator[list[tuple[Slice, float]]]:
    """Runs of neighbours that have a value: a line isn't drawn over a gap."""
    run: list[tuple[Slice, float]] = []
    for each, value in points:
        if value is not None:
            run.append((each, value))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _range(values: Sequence[float], logarithmic: bool) -> tuple[float, float]:
    if logarithmic:
        above = [value for value in values if value > 0]
        low = 10.0 ** math.floor(math.log10(max(min(above, default=1.0), 0.1)))
        high = 10.0 ** math.ceil(math.log10(max(max(above, default=10.0), 0.1)))
        return low, high if high > low else low * 10
    return 0.0, _round_up(max(values, default=1.0))


def _marks(low: float, high: float, logarithmic: bool) -> list[float]:
    if logarithmic:
        return [low * 10.0**power for power in range(round(math.log10(high / low)) + 1)]
    return [high * share for share in (0.0, 0.25, 0.5, 0.75, 1.0)]


def _round_up(value: float) -> float:
    """A number rounded up to 1, 2, 4, 6 or 8 with noughts."""
    if value <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next(unit * step for step in (1, 2, 4, 6, 8, 10) if unit * step >= value)


def _number(value: float) -> str:
    return f"{value:g}" if value < 10_000 else f"{value / 1000:g}k"


def _clock(seconds: int) -> str:
    if seconds < 3600:
        return f"{seconds // 60}:{seconds % 60:02}"
    return f"{seconds // 3600}:{seconds // 60 % 60:02} h"


def _in_ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds
