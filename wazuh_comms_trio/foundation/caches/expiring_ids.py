"""Ids that are remembered for a time."""

from __future__ import annotations

import heapq

import trio

__all__ = ["ExpiringIds"]


class ExpiringIds:
    """Each id until its seconds have passed, on trio's clock; of more than ``size`` those go first that are nearest to
    their end."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._until: dict[str, float] = {}
        self._order: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, id: object) -> bool:
        until = self._until.get(id) if isinstance(id, str) else None
        return until is not None and until > trio.current_time()

    def add(self, id: str, seconds: float) -> None:
        until = trio.current_time() + max(0.0, seconds)
        self._until[id] = until
        heapq.heappush(self._order, (until, id))
        self.forget()

    def forget(self) -> None:
        """Drops ids whose time is over."""
        now = trio.current_time()
        while self._order and (self._order[0][0] <= now or len(self._order) > self._size):
            until, id = heapq.heappop(self._order)
            if self._until.get(id) == until:
                del self._until[id]
