"""Several workers' command stores in one file: one of them looks what is new, and tells the others."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from wazuh_comms_trio.backends.embedded import commands as sqlite_commands
from wazuh_comms_trio.backends.embedded.stores import SqliteStores, open_sqlite
from wazuh_comms_trio.backends.interfaces import Action, Command, Target
from wazuh_comms_trio.backends.leadership import Finding, Leadership

pytestmark = pytest.mark.real_clock

AGENT = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1"


class Linked(Leadership):
    """Publishes to the others of ``all``."""

    def __init__(self, all: list[Linked]) -> None:
        super().__init__(leader=not all)
        self._all = all
        all.append(self)

    def publish(self, topic: str, finding: Finding) -> None:
        for other in self._all:
            if other is not self:
                other.handle_finding(topic, finding)


@asynccontextmanager
async def workers(folder: Path, count: int) -> AsyncIterator[tuple[list[SqliteStores], list[Linked]]]:
    """The first one is the leader."""
    linked: list[Linked] = []
    async with AsyncExitStack() as stack:
        stores = [
            await stack.enter_async_context(open_sqlite(folder, wall_clock=lambda: 1000.0, leadership=Linked(linked)))
            for _ in range(count)
        ]
        yield stores, linked


def command(document_id: str) -> Command:
    return Command(document_id, Target("agent", AGENT), Action("restart"), timeout=100)


async def heard(stores: list[SqliteStores], act: Callable[[], object]) -> list[set[str]]:
    """What each worker hears of when ``act`` is done."""
    got: list[set[str]] = [set() for _ in stores]

    async def wait(number: int) -> None:
        got[number] |= set(await stores[number].commands.wait_news())

    with trio.move_on_after(5):
        async with trio.open_nursery() as nursery:
            for number in range(len(stores)):
                nursery.start_soon(wait, number)
            await trio.testing.wait_all_tasks_blocked(0.05)
            act()
    return got


async def write(folder: Path, document_id: str) -> None:
    """As the operator's tool does."""
    async with open_sqlite(folder, wall_clock=lambda: 1000.0) as tool:
        await tool.commands.add([command(document_id)])


async def test_what_a_tool_writes_is_news_for_all(tmp_path: Path) -> None:
    async with workers(tmp_path, 3) as (stores, _), trio.open_nursery() as nursery:
        assert await heard(stores, lambda: nursery.start_soon(write, tmp_path, "c1")) == [{AGENT}] * 3


async def test_who_takes_over_finds_what_was_written_meanwhile(tmp_path: Path) -> None:
    async with workers(tmp_path, 2) as (stores, linked):
        linked[0].set_leader(False)
        await write(tmp_path, "c1")
        assert await heard(stores, lambda: linked[1].set_leader(True)) == [{AGENT}] * 2


async def test_what_an_older_state_of_the_file_has_is_news(tmp_path: Path) -> None:
    """A backup was put back: its news have numbers that were seen before."""
    async with workers(tmp_path, 2) as (stores, _):

        def put_back() -> None:
            with sqlite3.connect(tmp_path / "state.db") as connection:
                connection.execute("UPDATE commands SET status = 'pending', owner = NULL WHERE id = 'c1'")
                connection.execute("DELETE FROM commands WHERE id <> 'c1'")
                connection.execute("UPDATE counters SET value = 1 WHERE name = 'news'")
            connection.close()

        for number in range(1, 4):
            await stores[0].commands.add([command(f"c{number}")])
        claimed = await stores[0].commands.claim([AGENT])
        await stores[0].commands.mark_sent([each.document_id for each in claimed])
        for each in stores:
            with trio.move_on_after(0.2):
                await each.commands.wait_news()
        assert await heard(stores, put_back) == [{AGENT}] * 2


async def test_one_on_duty_that_sees_nothing_is_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connections are broken, and nobody knows that it is of no use."""
    monkeypatch.setattr(sqlite_commands, "FOLLOWERS_INTERVAL", 0.2)
    async with workers(tmp_path, 2) as (stores, _), trio.open_nursery() as nursery:
        assert await heard(stores[1:], lambda: nursery.start_soon(write, tmp_path, "c1")) == [{AGENT}]
