"""Callers share an opening that begins after they came, and none that began before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.backends.embedded.database.test_group_patience import Turns
from wazuh_comms_trio.backends.files.shared_openings import PATIENCE, SharedOpenings
from wazuh_comms_trio.backends.loop_turns import SHORT_TURN


class Folder:
    """Its openings take until ``end``, and find what was there when they began."""

    def __init__(self) -> None:
        self.content = "old"
        self.begun: list[str] = []
        self.given_back: list[str] = []
        self.error: Exception | None = None
        self._ends: list[trio.Event] = []
        self.openings: SharedOpenings[str] = SharedOpenings(self._open, self.given_back.append)

    async def _open(self, name: str) -> str:
        number = len(self.begun)
        content = f"{name}, {self.content}"
        self.begun.append(name)
        self._ends.append(trio.Event())
        await self._ends[number].wait()
        if self.error is not None:
            raise self.error
        return f"{content}, {number}"

    async def end(self, number: int) -> None:
        self._ends[number].set()
        await wait_all_tasks_blocked()

    async def fetch(self, name: str = "a") -> str:
        opening = self.openings.join(name)
        try:
            return await self.openings.result(opening)
        finally:
            self.openings.leave(opening)


class Callers:
    """What each of them was given, or its error."""

    def __init__(self, folder: Folder, nursery: trio.Nursery) -> None:
        self.found: list[object] = []
        self._folder = folder
        self._nursery = nursery

    async def come(self, number: int, name: str = "a") -> Callable[[], None]:
        """Returns what cancels them."""
        scopes = [trio.CancelScope() for _ in range(number)]

        async def fetch(scope: trio.CancelScope) -> None:
            with scope:
                try:
                    self.found.append(await self._folder.fetch(name))
                except OSError as error:
                    self.found.append(error)

        for scope in scopes:
            self._nursery.start_soon(fetch, scope)
        await wait_all_tasks_blocked()

        def cancel() -> None:
            for scope in scopes:
                scope.cancel()

        return cancel


async def test_who_comes_while_one_is_under_way_shares_the_next(mock_clock: MockClock) -> None:
    folder = Folder()
    async with trio.open_nursery() as nursery:
        callers = Callers(folder, nursery)
        await callers.come(1)
        folder.content = "new"
        await callers.come(4)
        assert len(folder.begun) == 1
        await folder.end(0)
        assert callers.found == ["a, old, 0"]
        assert len(folder.begun) == 2
        await callers.come(1)
        await folder.end(1)
        assert callers.found == ["a, old, 0"] + ["a, new, 1"] * 4
        await folder.end(2)
    assert len(callers.found) == 6
    assert folder.given_back == ["a, old, 0", "a, new, 1", "a, new, 2"]


async def test_those_that_are_about_to_come_are_waited_for_where_several_came(mock_clock: MockClock) -> None:
    folder = Folder()
    async with trio.open_nursery() as nursery:
        callers = Callers(folder, nursery)
        await callers.come(1)
        await callers.come(2)
        await folder.end(0)
        await folder.end(1)
        turns = Turns(mock_clock, 5 * SHORT_TURN)
        trio.lowlevel.add_instrument(turns)
        for _ in range(3):
            nursery.start_soon(folder.fetch)
            await trio.lowlevel.checkpoint()
        trio.lowlevel.remove_instrument(turns)
        await wait_all_tasks_blocked()
        assert len(folder.begun) == 3
        await folder.end(2)
    assert len(folder.begun) == 3


async def test_one_that_comes_alone_begins_at_once(mock_clock: MockClock) -> None:
    folder = Folder()
    async with trio.open_nursery() as nursery:
        for number in range(2):
            nursery.start_soon(folder.fetch)
            for _ in range(2):
                await trio.lowlevel.checkpoint()
            assert len(folder.begun) == number + 1
            await folder.end(number)


async def test_other_files_are_opened_meanwhile(mock_clock: MockClock) -> None:
    folder = Folder()
    async with trio.open_nursery() as nursery:
        callers = Callers(folder, nursery)
        await callers.come(1, "a")
        await callers.come(1, "b")
        assert folder.begun == ["a", "b"]
        await folder.end(1)
        await folder.end(0)
    assert callers.found == ["b, old, 1", "a, old, 0"]


async def test_what_is_found_is_in_use_until_the_last_one_leaves(mock_clock: MockClock) -> None:
    folder = Folder()
    openings = folder.openings
    both = [openings.join("a"), openings.join("a")]
    assert both[0] is both[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(openings.result, both[0])
        await wait_all_tasks_blocked()
        await folder.end(0)
    openings.leave(both[0])
    assert folder.given_back == []
    assert await openings.result(both[1]) == "a, old, 0"
    openings.leave(both[1])
    assert folder.given_back == ["a, old, 0"]


@pytest.mark.parametrize("is_under_way", [False, True])
async def test_a_cancelled_caller_costs_others_nothing(mock_clock: MockClock, is_under_way: bool) -> None:
    """Neither while it opens the file for them, nor while it waits until it may."""
    folder = Folder()
    async with trio.open_nursery() as nursery:
        callers = Callers(folder, nursery)
        if is_under_way:
            await callers.come(1)
        cancel = await callers.come(1)
        await callers.come(2)
        cancel()
        await wait_all_tasks_blocked()
        for number in range(3):
            if number < len(folder.begun):
                await folder.end(number)
    assert len(callers.found) == 2 + is_under_way
    assert len(folder.begun) == 2


async def test_nothing_is_opened_for_those_who_have_left(mock_clock: MockClock) -> None:
    folder = Folder()
    async with trio.open_nursery() as nursery:
        callers = Callers(folder, nursery)
        await callers.come(1)
        cancel = await callers.come(3)
        cancel()
        await folder.end(0)
        assert len(folder.begun) == 1
        await callers.come(1)
        await folder.end(1)
    assert len(callers.found) == 2


async def test_an_opening_that_hangs_holds_up_others_shortly(autojump_clock: MockClock) -> None:
    folder = Folder()
    async with trio.open_nursery() as nursery:
        callers = Callers(folder, nursery)
        await callers.come(1)
        began = trio.current_time()
        await callers.come(2)
        await trio.sleep(PATIENCE)
        await wait_all_tasks_blocked()
        assert len(folder.begun) == 2
        await folder.end(1)
        assert callers.found == ["a, old, 1"] * 2
        assert trio.current_time() - began == PATIENCE
        await callers.come(1)  # nothing that began later is under way
        await folder.end(2)
        assert len(callers.found) == 3
        await folder.end(0)
    assert len(callers.found) == 4


async def test_an_error_is_everybodys(mock_clock: MockClock) -> None:
    folder = Folder()
    folder.error = OSError(5, "a disk that is broken")
    async with trio.open_nursery() as nursery:
        callers = Callers(folder, nursery)
        await callers.come(1)
        await callers.come(3)
        await folder.end(0)
        await folder.end(1)
        folder.error = None
        await callers.come(1)
        await folder.end(2)
    assert [str(error) for error in callers.found[:-1]] == ["[Errno 5] a disk that is broken"] * 4
    assert callers.found[-1] == "a, old, 2"
    assert folder.given_back == ["a, old, 2"]
