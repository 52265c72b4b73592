"""Openings that callers share: all who ask for a file before its opening begins have that one.

An opening is a trip to a thread and back, which costs more than the file. Nobody gets what was read before it asked, so
that a file that has been changed is sent as it is now. No I/O of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

import trio

from wazuh_comms_trio.backends.loop_turns import pass_turns

__all__ = ["PATIENCE", "Opening", "SharedOpenings"]

T = TypeVar("T")

#: Seconds that callers wait for an opening of the same file which began before they came; then theirs begins beside it:
#: one that hangs doesn't say that all do.
PATIENCE: Final = 0.5
#: Callers of an opening, and of the last one before it, from which on others are likely to come with them.
SEVERAL: Final = 3


class Opening(Generic[T]):
    """One opening of the file ``name``, for ``users`` callers."""

    __slots__ = ("error", "found", "has_leader", "name", "users", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.users = 0
        self.found: T | None = None
        self.error: Exception | None = None
        self.has_leader = False  # one of the callers, who opens the file for all
        self.waiting = trio.lowlevel.ParkingLot()


class SharedOpenings(Generic[T]):
    """``open_file`` opens a file by its name; ``give_back`` is called with what it found once its last user has left.

    A caller joins an opening, asks for its ``result`` and leaves it in any case.
    """

    def __init__(self, open_file: Callable[[str], Awaitable[T]], give_back: Callable[[T], None]) -> None:
        self._open_file = open_file
        self._give_back = give_back
        self._last_users = 0
        self._coming: dict[str, Opening[T]] = {}  # they haven't begun
        self._under_way: dict[str, trio.Event] = {}  # set at the end of the last one that has begun

    def join(self, name: str) -> Opening[T]:
        opening = self._coming.get(name)
        if opening is None:
            opening = self._coming[name] = Opening(name)
        opening.users += 1
        return opening

    def leave(self, opening: Opening[T]) -> None:
        opening.users -= 1
        if opening.users:
            return
        self._begin(opening)  # nobody is left who would
        if opening.found is not None:
            self._give_back(opening.found)

    async def result(self, opening: Opening[T]) -> T:
        """What ``open_file`` returned, or raises. A cancelled caller's place is another one's."""
        while opening.found is None:
            if opening.error is not None:
                raise opening.error.with_traceback(None)  # one of its own for each task
            if opening.has_leader:
                await opening.waiting.park()
                continue
            opening.has_leader = True
            try:
                await self._lead(opening)
            finally:
                opening.has_leader = False
                opening.waiting.unpark_all()
        return opening.found

    async def _lead(self, opening: Opening[T]) -> None:
        if (before := self._under_way.get(opening.name)) is not None:
            with trio.move_on_after(PATIENCE):
                await before.wait()
        await self._wait_for_more(opening)
        self._begin(opening)
        self._under_way[opening.name] = ended = trio.Event()
        try:
            opening.found = await self._open_file(opening.name)
        except Exception as error:
            opening.error = error
        finally:
            ended.set()
            if self._under_way.get(opening.name) is ended:
                del self._under_way[opening.name]

    async def _wait_for_more(self, opening: Opening[T]) -> None:
        """Lets requests get on that are about to ask for the same file. One that comes alone doesn't wait."""
        if opening.users + self._last_users >= SEVERAL:
            await pass_turns()
        self._last_users = opening.users

    def _begin(self, opening: Opening[T]) -> None:
        """Whoever comes from now on has the next one."""
        if self._coming.get(opening.name) is opening:
            del self._coming[opening.name]
