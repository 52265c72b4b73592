"""A drained node: ``ready`` is 503 on every worker, also on those that come, and everything is served as before."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from tests.e2e.processes import Files, Running, start_daemon, tool
from tests.supervisor.nodes import ask, kill, parked, post, serving, status
from wazuh_comms_trio.cli.commands.status import find_problems
from wazuh_comms_trio.daemon.drain import Drain
from wazuh_comms_trio.daemon.status import read_status
from wazuh_comms_trio.testing import AgentClient, stateful_event, stateless_event
from wazuh_comms_trio.testing.node.daemon import Daemon
from wazuh_comms_trio.testing.node.node import open_node

MakeFiles = Callable[..., Files]
UUID = "01a2054b-6d7e-7c3b-ae8c-801744614b42"
#: Connections after which every one of two workers was asked, in all likelihood: one in a million runs misses one.
ENOUGH = 20


async def ready(client: AgentClient) -> tuple[int, str]:
    reply = await client.request("GET", "/api/v1/ready", authorised=False)
    return reply.status, reply.json()["message"] if reply.body else ""


async def readiness(daemon: Running) -> set[tuple[int, str]]:
    return {await ready(daemon.client(UUID, "")) for _ in range(ENOUGH)}


async def is_served(agent: AgentClient) -> None:
    assert (await agent.alive()).status == 200
    assert (await agent.authenticate()).status == 200
    assert (await agent.post_stateless([stateless_event("m", "c", {"n": 1})])).status == 204
    assert (await agent.post_stateful([stateful_event("id1", "fim", "create", {"n": 1})])).status == 200


async def switch(files: Files, method: str) -> bool:
    """As the tool does; is the node drained now?"""
    reply = await ask(files, method, "/api/v1/drain")
    assert reply.status == 200
    return bool(reply.json()["drained"])


@pytest.mark.processes
@pytest.mark.real_clock
@pytest.mark.parametrize("workers", [1, 2])
async def test_drain_and_back_and_a_stop_that_waits(make_files: MakeFiles, workers: int) -> None:
    files = make_files(workers=workers, shutdown={"delay": 2})
    async with start_daemon(files, expect_errors=True) as daemon:
        pids = await serving(files, workers)
        waiting, last, agent = await daemon.add_agents(3)
        assert (await waiting.authenticate()).status == 200
        assert (await last.authenticate()).status == 200
        assert await readiness(daemon) == {(200, "")}
        replies: list[tuple[int, float]] = []

        async def poll(client: AgentClient) -> None:
            reply = await client.poll()
            replies.append((reply.status, trio.current_time()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll, waiting)
            await parked(files, 1)
            assert await tool(files, "drain") == {"drained": True, "parked": 1}
            assert await readiness(daemon) == {(503, "drained")}
            await is_served(agent)
            assert replies == []  # the poll waits on, and gets what comes
            assert await post(files, [("c1", waiting.uuid)]) == {"c1"}
        assert replies.pop()[0] == 200
        assert (await status(files))["drained"] > 0
        if workers > 1:
            kill(pids[0])
            await serving(files, workers, but=pids[0])
            assert await readiness(daemon) == {(503, "drained")}
            daemon.process.send_signal(signal.SIGHUP)
            await serving(files, workers, generation=2)
            assert await readiness(daemon) == {(503, "drained")}
        assert await switch(files, "DELETE") is False
        assert await readiness(daemon) == {(200, "")}
        assert "drained" not in await status(files)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll, last)  # a worker that is killed may not have written that c1 was delivered
            await parked(files, 1)
            began = trio.current_time()
            daemon.process.send_signal(signal.SIGTERM)
            await daemon.wait_for_line("stopping in 2 s")
            assert await readiness(daemon) == {(503, "drained")}
            await is_served(agent)
            assert await switch(files, "DELETE") is True  # it stops all the same
            assert replies == []
        assert await daemon.process.wait() == 0
    ((code, end),) = replies
    assert code == 408
    assert end - began >= 2
    actions = [json.loads(line)["action"] for line in (files.state / "audit.log").read_text().splitlines()]
    assert [action for action in actions if "drain" in action] == ["drain", "drain undo"]


@pytest.mark.processes
@pytest.mark.real_clock
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_second_signal_doesnt_wait(make_files: MakeFiles, workers: int) -> None:
    async with start_daemon(make_files(workers=workers, shutdown={"delay": 60})) as daemon:
        began = trio.current_time()
        daemon.process.send_signal(signal.SIGTERM)
        await daemon.wait_for_line("stopping in 60 s")
        daemon.process.send_signal(signal.SIGTERM)
        assert await daemon.process.wait() == 0
        assert trio.current_time() - began < 20


async def test_every_worker_of_a_node_is_told(autojump_clock: MockClock) -> None:
    async with open_node(2) as node:

        async def found() -> set[tuple[int, str]]:
            await trio.testing.wait_all_tasks_blocked()
            return {await ready(worker.client(UUID)) for worker in node.workers}

        node.hub.drain(True)
        assert await found() == {(503, "drained")}
        broken: Daemon = node.workers[0]
        assert broken.worker.services.readiness.state == "ready"  # of the stores: what `status` shows beside it
        node.hub.drain(False)
        assert await found() == {(200, "")}


async def test_what_is_left_of_the_delay(autojump_clock: MockClock) -> None:
    told: list[bool] = []
    assert Drain(told.append).begin_to_stop(0) == 0
    assert told == []
    drain = Drain(told.append)
    drain.begin()
    await trio.sleep(4)
    assert drain.seconds == 4
    assert drain.begin_to_stop(10) == 6
    drain.end()
    assert drain.seconds == 4  # it stops: nothing undoes that
    drain = Drain(told.append)
    drain.begin()
    await trio.sleep(11)
    assert drain.begin_to_stop(10) == 0
    drain = Drain(told.append)
    drain.begin()
    drain.end()
    assert drain.seconds is None
    assert drain.begin_to_stop(10) == 10
    assert told[-3:] == [True, False, True]


def test_the_tool_calls_it_a_problem() -> None:
    found = read_status({"generation": 1, "configured_workers": 0, "workers": [], "drained": 12.5})
    assert find_problems(found) == ["the node is drained: balancers leave it out, until `wazuh-comms drain --undo`"]
