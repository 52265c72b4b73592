"""Pauses that grow with every failure, and moments that are spread."""

from __future__ import annotations

from random import Random
from typing import Final

__all__ = ["Backoff", "even_share", "pause_after"]

#: Failures counted at most: a power of more is no float any more.
_MOST_FAILURES: Final = 500
#: Multiples of it, without their whole part, lie evenly, however many there are.
_GOLDEN: Final = 0.6180339887498949


def pause_after(failures: int, *, first: float, longest: float, factor: float = 2.0) -> float:
    """The pause after ``failures`` failures before this one, in seconds: ``first`` times ``factor`` for each of them,
    at most ``longest``. Pure."""
    return min(longest, first * factor ** min(failures, _MOST_FAILURES))


def even_share(number: int) -> float:
    """The place of the ``number``-th of many between 0 and 1, at which they lie evenly, however many come. Pure."""
    return number * _GOLDEN % 1


class Backoff:
    """The pauses between one thing's tries, in seconds: ``first``, then each ``factor`` times the one before, at most
    ``longest``. With ``rng`` each is multiplied by a number out of ``jitter``, so that processes that began together
    don't go on together."""

    __slots__ = ("_factor", "_failures", "_first", "_jitter", "_longest", "_rng")

    def __init__(
        self,
        first: float,
        longest: float,
        *,
        factor: float = 2.0,
        jitter: tuple[float, float] = (0.5, 1.0),
        rng: Random | None = None,
    ) -> None:
        self._first = first
        self._longest = longest
        self._factor = factor
        self._jitter = jitter
        self._rng = rng
        self._failures = 0

    def __repr__(self) -> str:
        return f"<Backoff after {self._failures} pauses>"

    def next_pause(self) -> float:
        """The next pause; the one after that is longer."""
        pause = pause_after(self._failures, first=self._first, longest=self._longest, factor=self._factor)
        self._failures += 1
        return pause if self._rng is None else pause * self._rng.uniform(*self._jitter)

    def reset(self) -> None:
        """Called after a success: the next pause is the first one again."""
        self._failures = 0
