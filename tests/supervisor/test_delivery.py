"""Commands on their way to agents that are parked on several workers, with embedded stores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import trio

from tests.e2e.processes import Files, start_daemon
from tests.supervisor.nodes import add_logged_in, ask, kill, parked, post, serving
from wazuh_comms_trio.testing import AgentClient, ExchangeFailed

pytestmark = [pytest.mark.processes, pytest.mark.real_clock]

MakeFiles = Callable[..., Files]


async def poll_until(agent: AgentClient, count: int, got: Counter[str]) -> None:
    """As an agent does: again after every answer, and after every failure."""
    mine: set[str] = set()
    while len(mine) < count:
        try:
            reply = await agent.poll()
        except ExchangeFailed:
            await trio.sleep(0.05)
            continue
        assert reply.status in (200, 408, 503), reply
        for command in reply.json().get("commands", []):
            mine.add(command["document_id"])
            got[command["document_id"]] += 1


@pytest.mark.parametrize("workers", [2, 4])
async def test_each_command_is_delivered_once(workers: int, make_files: MakeFiles) -> None:
    agents_count, rounds = 150, 2
    files = make_files(workers=workers, logging={"level": "info"})
    async with start_daemon(files) as daemon:
        await serving(files, workers)
        agents = await add_logged_in(daemon, agents_count)
        got: Counter[str] = Counter()
        taken: Counter[str] = Counter()
        expected = [(f"{agent.uuid}/{turn}", agent.uuid) for turn in range(rounds) for agent in agents]
        with trio.fail_after(40):
            async with trio.open_nursery() as nursery:
                for agent in agents:
                    nursery.start_soon(poll_until, agent, rounds, got)
                await parked(files, agents_count)

                async def post_some(commands: list[tuple[str, str]]) -> None:
                    taken.update(await post(files, commands))

                for begin in range(0, len(expected), 50):
                    nursery.start_soon(post_some, expected[begin : begin + 50])
        names = {name for name, _ in expected}
        assert got == Counter(names)
        assert set(taken) <= names  # truthful: never one that wasn't; what came later than 2 s is stored all the same
        # What was parked when the posts came was told in time.
        assert len(taken) >= agents_count


async def test_a_worker_killed_in_the_middle_loses_no_command(make_files: MakeFiles) -> None:
    agents_count = 120
    files = make_files(logging={"level": "info"})
    async with start_daemon(files, expect_errors=True) as daemon:
        pids = await serving(files, 2)
        agents = await add_logged_in(daemon, agents_count)
        got: Counter[str] = Counter()
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for agent in agents:
                    nursery.start_soon(poll_until, agent, 1, got)
                await parked(files, agents_count)
                commands = [(agent.uuid + "/c", agent.uuid) for agent in agents]
                for begin in range(0, agents_count, 20):
                    nursery.start_soon(post, files, commands[begin : begin + 20])
                while sum(got.values()) < 5:  # noqa: ASYNC110  # in the middle
                    await trio.sleep(0.001)
                kill(pids[0])
        assert set(got) == {name for name, _ in commands}
        twice = [name for name, count in got.items() if count > 1]
        assert max(got.values()) <= 2
        # Twice: only what the killed worker had begun with.
        assert len(twice) < agents_count
        await serving(files, 2, but=pids[0])


async def test_a_post_in_vain_says_so_and_a_poster_without_workers_is_refused(make_files: MakeFiles) -> None:
    files = make_files()
    async with start_daemon(files) as daemon:
        (agent,) = await add_logged_in(daemon, 1)
        assert await post(files, [("c1", agent.uuid)]) == set()
        assert [each["document_id"] for each in (await agent.poll()).json()["commands"]] == ["c1"]
        assert await post(files, [("c1", agent.uuid)]) == {"c1"}
        reply = await ask(files, "POST", "/api/v1/commands", b"{")
        assert (reply.status, reply.json()["code"]) == (400, 400)
