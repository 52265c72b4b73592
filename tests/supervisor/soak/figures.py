"""Figures of the hour: a worker's memory and whether it grows, the slowest answers, how busy the machine was."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

#: A worker gives its free memory back once a minute, some 10 MB of it, and has it again within seconds: the lowest
#: value of a minute is known only to whoever looks right then. Looking every ten seconds was at another moment of that
#: each minute, which made growth of 2 MB an hour, up or down, of nothing.
MEMORY_SAMPLE: Final = 0.2
#: Seconds of which the lowest value counts. Not every time finds as much to give back: of single minutes the lowest
#: values are 1.5 to 3 MB apart, of three minutes 0.1 to 1 MB.
LOWEST_OF: Final = 300.0


@frozen
class Memory:
    """Of one worker at one moment (seconds since the load began)."""

    time: float
    pid: int
    memory: int  # bytes that are its own alone


@frozen
class Sample(Memory):
    descriptors: int
    tasks: int


def own_memory(pid: int) -> int:
    _, found, rest = Path(f"/proc/{pid}/status").read_text().partition("RssAnon:")
    if not found:
        raise ProcessLookupError(f"{pid} has ended")
    return int(rest.split()[0]) << 10


def p99(times: Sequence[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


def growth(samples: Sequence[Memory]) -> float:
    """MB an hour, by all pairs of the windows' lowest values, their median: what is freed soon isn't growth. There are
    at least eight windows, shorter ones where there was less time. NaN for less than two moments."""
    if len({sample.time for sample in samples}) < 2:
        return math.nan
    began, seconds = samples[0].time, samples[-1].time - samples[0].time
    count = max(8, round(seconds / LOWEST_OF))
    lowest: dict[int, int] = {}
    for sample in samples:
        number = min(count - 1, int((sample.time - began) / seconds * count))
        lowest[number] = min(sample.memory, lowest.get(number, sample.memory))
    points = sorted(lowest.items())
    slopes = [(b - a) / (later - earlier) for i, (earlier, a) in enumerate(points) for later, b in points[i + 1 :]]
    return statistics.median(slopes) * count / seconds * 3600 / 1e6


def busy() -> tuple[float, float]:
    """Seconds of this machine's processors at work, and all."""
    values = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return float(sum(values) - values[3] - values[4]), float(sum(values))


def load_of_machine(before: tuple[float, float], after: tuple[float, float]) -> float:
    return 100 * (after[0] - before[0]) / (after[1] - before[1])
