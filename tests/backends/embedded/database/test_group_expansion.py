"""A group's command in slices: others' writes come in between, and what is left unfinished is continued."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import trio

from wazuh_comms_trio.backends.embedded.database.database import Database
from wazuh_comms_trio.backends.embedded.group_expansion import AT_ONCE
from wazuh_comms_trio.backends.embedded.stores import SqliteStores, open_sqlite
from wazuh_comms_trio.backends.interfaces import Action, Agent, Command, Target
from wazuh_comms_trio.errors import BackendUnavailable

pytestmark = pytest.mark.real_clock

SLICES = 3
AGENTS = [str(UUID(int=number, version=4)) for number in range(SLICES * AT_ONCE)]
GROUP = Command("p", Target("group", "all"), Action("restart"), timeout=1000)
CHILDREN = {f"p_{agent}" for agent in AGENTS}


class Gate:
    """Lets so many slices through; then each waits (``reached``) until ``opened``, or fails if it is ``broken``."""

    def __init__(self, stores: SqliteStores, monkeypatch: pytest.MonkeyPatch, slices: int) -> None:
        self.left = slices
        self.reached = trio.Event()
        self.opened = trio.Event()
        self.broken = False
        groups: Any = stores.commands._groups
        store = groups._store
        write = Database.write

        async def guarded(database: Database, work: Any, **more: Any) -> Any:
            if getattr(work, "func", None) == store:
                self.left -= 1
                if self.left < 0:
                    self.reached.set()
                if self.left < 0 and self.broken:
                    raise BackendUnavailable
                if self.left < 0:
                    await self.opened.wait()
            return await write(database, work, **more)

        monkeypatch.setattr(Database, "write", guarded)


@asynccontextmanager
async def fleet(folder: Path) -> AsyncIterator[SqliteStores]:
    async with open_sqlite(folder) as stores:
        async with trio.open_nursery() as nursery:
            for agent_id in AGENTS:
                nursery.start_soon(stores.agents.add, Agent(agent_id, "a", "hash"))
        yield stores


async def ids(stores: SqliteStores, **more: Any) -> set[str]:
    return {command.document_id for command in await stores.commands.list(limit=10_000, **more)}


async def test_what_it_says_is_in_memory_once_for_all_who_are_offered_it(tmp_path: Path) -> None:
    """A megabyte for a thousand agents, who all poll, was a gigabyte before anything was asked for room."""
    args = {"x": "y" * 100_000}
    large = Command("large", Target("group", "all"), Action("restart", args=args), timeout=1000)
    another = Command("b", Target("agent", AGENTS[0]), Action("restart", args={"x": 1}), timeout=1000)
    async with fleet(tmp_path) as stores:
        await stores.commands.add([large, another])
        other, *children = await stores.commands.claim(AGENTS[:50])
        assert len(children) == 50
        assert len({id(child.action.args) for child in children}) == 1
        assert children[0].action.args == args
        assert (other.document_id, other.action.args) == ("b", {"x": 1})


async def test_others_come_between_and_see_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet(tmp_path) as stores, open_sqlite(tmp_path) as others:
        gate = Gate(stores, monkeypatch, 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stores.commands.add, [GROUP])
            await gate.reached.wait()
            lone = Command("lone", Target("agent", AGENTS[0]), Action("restart"), timeout=1000)
            await others.commands.add([lone])
            for each in (stores, others):
                assert await ids(each) == {"p", "lone"}
                assert await each.commands.children(["p"]) == []
                parent = await each.commands.get("p")
                assert parent is not None
                assert parent.status == "pending"
            (stored,) = await others.commands.add([GROUP])  # sent again: one process expands it
            assert stored.status == "pending"
            assert AGENTS[0] in await others.commands.wait_news()
            assert {each.document_id for each in await others.commands.claim([AGENTS[0]])} == {f"p_{AGENTS[0]}", "lone"}
            gate.opened.set()
        assert await ids(others) == {"p", "lone", *CHILDREN}
        assert len(await others.commands.children(["p"])) == len(AGENTS)
        parent = await others.commands.get("p")
        assert parent is not None
        assert parent.status == "sent"


async def test_what_failed_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet(tmp_path) as stores:
        gate = Gate(stores, monkeypatch, 1)
        gate.broken = True
        with pytest.raises(BackendUnavailable):
            await stores.commands.add([GROUP])
        assert await ids(stores) == {"p"}
        gate.left = 100
        news: set[str] = set()
        with trio.fail_after(20):
            while not news.issuperset(AGENTS):
                news.update(await stores.commands.wait_news())
        assert await ids(stores) == {"p", *CHILDREN}


@pytest.mark.parametrize("when", ["meanwhile", "after it was given up"])
async def test_one_that_is_sent_again_and_given_up_the_first_time_is_continued(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fleet(tmp_path) as stores:
        gate = Gate(stores, monkeypatch, 1)
        async with trio.open_nursery() as first:
            first.start_soon(stores.commands.add, [GROUP])
            await gate.reached.wait()
            if when == "meanwhile":
                await stores.commands.add([GROUP])
            first.cancel_scope.cancel()
        if when != "meanwhile":
            await stores.commands.add([GROUP])
        gate.left = 100
        news: set[str] = set()
        with trio.fail_after(20):
            while not news.issuperset(AGENTS):
                news.update(await stores.commands.wait_news())
        assert await ids(stores) == {"p", *CHILDREN}


@pytest.mark.parametrize("how", ["it ended", "a version that doesn't know freed it"])
async def test_another_process_continues(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet(tmp_path) as stores:
        gate = Gate(stores, monkeypatch, 2)
        gate.broken = True
        with pytest.raises(BackendUnavailable):
            await stores.commands.add([GROUP])
        if how != "it ended":
            free = "UPDATE commands SET owner = NULL, news = 1000000"
            await stores.database.write(lambda connection: connection.execute(free).fetchall())
    gate.left = 100
    async with open_sqlite(tmp_path) as others:
        if how == "it ended":
            assert await ids(others) == {"p"}
            await others.commands.expire()
        news: set[str] = set()
        with trio.fail_after(20):
            while not news.issuperset(AGENTS):
                news.update(await others.commands.wait_news())
        assert news == set(AGENTS)
        assert await ids(others) == {"p", *CHILDREN}
        assert await ids(others, status="sent") == {"p"}


async def test_one_that_looks_overdue_is_continued_once_the_clock_is_set_back(tmp_path: Path) -> None:
    now = 0.0
    async with open_sqlite(tmp_path, wall_clock=lambda: now) as stores:
        await stores.commands.add([GROUP])  # without members
        await stores.agents.add(Agent(AGENTS[0], "a", "hash"))
        free = "UPDATE commands SET status = 'pending', owner = NULL, sent_at = NULL, news = 1000000"
        await stores.database.write(lambda connection: connection.execute(free).fetchall())
    async with open_sqlite(tmp_path, wall_clock=lambda: now) as others:
        now = 5000.0
        with trio.move_on_after(0.1) as looked:
            await others.commands.wait_news()
        assert looked.cancelled_caught
        assert await ids(others, status="pending") == {"p"}
        now = 1.0
        with trio.fail_after(20):
            assert set(await others.commands.wait_news()) == {AGENTS[0]}
        assert await ids(others, status="sent") == {"p"}


async def test_one_that_is_cancelled_meanwhile_goes_no_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet(tmp_path) as stores, open_sqlite(tmp_path) as others:
        gate = Gate(stores, monkeypatch, 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stores.commands.add, [GROUP])
            await gate.reached.wait()
            cancelled = await others.commands.cancel("p")
            assert cancelled is not None
            assert (cancelled.status, cancelled.result and cancelled.result.message) == ("failed", "cancelled")
            gate.opened.set()
        assert len(await ids(others, status="failed")) == 1 + AT_ONCE
        assert await ids(others, status="pending") == set()
        assert await others.commands.claim(AGENTS) == ()
