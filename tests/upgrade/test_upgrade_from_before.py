"""Reloads between this tree and the last commit before its modules moved, under load, with workers of both at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
import trio
from attrs import define, field

from tests.e2e.agents import stored
from tests.e2e.processes import Files, Running, start_daemon
from tests.supervisor.nodes import POLL_INTERVAL, add_logged_in, post, reload, serving, status, under_load
from tests.upgrade.versions import BEFORE_THE_MOVE, has_commit, install
from wazuh_comms_trio.testing import AgentClient

pytestmark = [
    pytest.mark.processes,
    pytest.mark.real_clock,
    pytest.mark.skipif(not has_commit(BEFORE_THE_MOVE), reason="this tree's repository lacks the earlier commit"),
]

WORKERS = 3


@define
class Commands:
    """Commands that were posted one after the other to agents that poll all along, each until its poster was told of
    the delivery (``told``). ``received``: how often each came."""

    posted: list[str] = field(factory=list)
    told: set[str] = field(factory=set)
    received: Counter[str] = field(factory=Counter)
    failed: list[str] = field(factory=list)

    async def more(self, number: int) -> None:
        wanted = len(self.posted) + number
        while len(self.posted) < wanted:  # noqa: ASYNC110
            await trio.sleep(POLL_INTERVAL)


@asynccontextmanager
async def commands_all_along(daemon: Running, agents: list[AgentClient]) -> AsyncIterator[Commands]:
    """While the block runs; then what was posted has arrived."""
    commands, done = Commands(), trio.Event()

    async def poll(agent: AgentClient) -> None:
        while True:
            reply = await agent.poll()
            if reply.status == 200:
                commands.received.update(each["document_id"] for each in reply.json()["commands"])
            elif reply.status != 408:
                commands.failed.append(f"{reply.status} {reply.body!r}")

    async def send() -> None:
        for number in count(1):
            if done.is_set():
                return
            name = f"command {number}"
            with trio.fail_after(20):
                while name not in commands.told:  # an answer comes within two seconds, and may come before the command
                    commands.told |= await post(daemon.files, [(name, agents[number % len(agents)].uuid)])
            commands.posted.append(name)

    async with trio.open_nursery() as nursery:
        for agent in agents:
            nursery.start_soon(poll, agent)
        async with trio.open_nursery() as sending:
            sending.start_soon(send)
            yield commands
            done.set()
        with trio.fail_after(20):
            while len(commands.received) < len(commands.posted):  # noqa: ASYNC110
                await trio.sleep(POLL_INTERVAL)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("before_first", [True, False], ids=["the earlier supervisor", "this tree's supervisor"])
async def test_to_the_other_version_by_reload_under_load_and_back(
    before_first: bool, make_files: Callable[..., Files], tmp_path: Path
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    files = make_files(workers=WORKERS)

    def put(before: bool) -> dict[str, str]:
        return install(site, commit=BEFORE_THE_MOVE) if before else install(site, reports_later=True)

    async def is_earlier() -> set[bool]:
        return {"later" not in worker for worker in (await status(files))["workers"]}

    async with start_daemon(files, environment=put(before_first)) as daemon:
        await serving(files, WORKERS)
        agents = await add_logged_in(daemon, 4)
        assert await is_earlier() == {before_first}
        async with under_load(daemon) as load, commands_all_along(daemon, agents) as commands:
            await load.more(20)
            await commands.more(10)
            for generation, before in ((2, not before_first), (3, before_first)):
                put(before)
                assert (await reload(files)) == {"reloaded": True, "problems": [], "warnings": [], "needs_restart": []}
                # The other version's workers beside those that are leaving.
                await commands.more(10)
                await serving(files, WORKERS, generation=generation)
                assert await is_earlier() == {before}
                await load.more(20)
                await commands.more(10)
        assert load.failed == commands.failed == []
    assert commands.received == Counter(commands.posted)
    assert commands.told == set(commands.posted)
    numbers, documents = await stored(files)
    assert load.acknowledged == set(documents)
    assert load.stateless == set(numbers)
