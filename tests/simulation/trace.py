"""What happened in a run, line by line, its hash, and which fault struck where."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256

import trio

__all__ = ["Trace", "Violation"]


class Violation(Exception):
    """A promise was broken: the run has failed. ``check`` is its name."""

    def __init__(self, check: str, text: str) -> None:
        super().__init__(f"{check}: {text}")
        self.check = check


class Trace:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.coverage: Counter[tuple[str, str]] = Counter()
        self._hash = sha256()

    def add(self, who: str, what: str) -> None:
        line = f"{trio.current_time():10.4f} {who:<14} {what}"
        self.lines.append(line)
        self._hash.update(line.encode())

    def strike(self, fault: str, place: str, who: str) -> None:
        """An injected fault has had an effect."""
        self.coverage[fault, place] += 1
        self.add(who, f"** {fault} at {place}")

    @property
    def hash(self) -> str:
        return self._hash.hexdigest()[:16]
