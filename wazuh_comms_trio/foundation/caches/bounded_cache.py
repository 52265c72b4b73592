"""A dictionary of limited size, for what can be had again at a price."""

from __future__ import annotations

from random import randrange
from typing import Final, Generic, TypeVar

__all__ = ["AGENTS_REMEMBERED", "BoundedCache"]

K = TypeVar("K")
V = TypeVar("V")

#: Agents of whom something is remembered: as many as there are, and above this a share of them that shrinks slowly.
AGENTS_REMEMBERED: Final = 100_000


class BoundedCache(Generic[K, V]):
    """At most ``size`` entries; in a full one a new entry takes the place of any.

    Agents come round and round. What throws out the entry that wasn't used longest finds nothing any more once there is
    one agent more than places; with chance the share of what is found shrinks as the number of agents grows: with twice
    as many agents as places a fifth of them is still found.
    """

    __slots__ = ("_entries", "_keys", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._keys: list[K] = []
        self._entries: dict[K, tuple[int, V]] = {}  # with the key's place among the keys

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def get(self, key: K) -> V | None:
        entry = self._entries.get(key)
        return None if entry is None else entry[1]

    def put(self, key: K, value: V) -> tuple[K, V] | None:
        """Puts an entry; returns the entry that had to go."""
        before = self._entries.get(key)
        if before is not None:
            self._entries[key] = before[0], value
            return None
        gone = None
        if len(self._keys) >= self._size:
            victim = self._keys[randrange(len(self._keys))]
            gone = victim, self._entries[victim][1]
            self.drop(victim)
        self._entries[key] = len(self._keys), value
        self._keys.append(key)
        return gone

    def drop(self, key: K) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        place, last = entry[0], self._keys.pop()
        if place < len(self._keys):  # the last key takes its place
            self._keys[place] = last
            self._entries[last] = place, self._entries[last][1]

    def clear(self) -> None:
        self._entries.clear()
        self._keys.clear()
