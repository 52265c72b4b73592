"""A real daemon whose indexer goes away, or hangs, and comes back: what doesn't need it goes on meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from tests.conftest import Certificates
from tests.e2e.processes import Running, start_daemon
from tests.engine.fake import fake_engine
from tests.indexer.daemons import wazuh_files
from tests.indexer.harness import call
from tests.indexer.proxy import Mode, proxy
from wazuh_comms_trio.testing import AgentClient, Reply, stateful_event, stateless_event

pytestmark = [pytest.mark.indexer, pytest.mark.processes, pytest.mark.real_clock]

STATEFUL_LIMIT = 4.0
OUTAGE = 8.0


def resident_bytes(daemon: Running) -> int:
    return int(Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1]) * 4096


async def timed(request: Callable[[], Awaitable[Reply]]) -> tuple[int, float]:
    began = trio.current_time()
    reply = await request()
    return reply.status, trio.current_time() - began


@pytest.mark.parametrize("how", ["refuse", "hang"])
async def test_the_rest_goes_on(tmp_path: Path, certificates: Certificates, port: int, how: Mode) -> None:
    async with (
        proxy(port) as between,
        fake_engine(tmp_path) as engine,
        start_daemon(
            wazuh_files(
                tmp_path,
                certificates,
                [between.port],
                timeouts={"stateful": STATEFUL_LIMIT, "authentication": 3.0},
                token={"revocation": 2.0},
            )
        ) as daemon,
    ):
        (tmp_path / "groups" / "default.conf").write_text("content")
        *parked, busy, stateful = await daemon.add_agents(12)
        for agent in (*parked, busy, stateful):
            assert (await agent.authenticate()).status == 200
        assert (await stateful.post_stateful([stateful_event("0", "fim", "create", {})])).status == 200
        polled: list[Reply] = []

        async def poll(agent: AgentClient) -> None:
            polled.append(await agent.poll())

        async def work(limit: float, slowest: list[float]) -> None:
            """What needs no indexer, until the outage is over."""
            while trio.current_time() < limit:
                requests = (
                    lambda: busy.post_stateless([stateless_event("m", "c", {"n": 1})]),
                    lambda: busy.get_file("default.conf"),
                )
                for request in requests:
                    status, seconds = await timed(request)
                    assert status in (200, 204)
                    slowest.append(seconds)

        async def send(limit: float, answers: list[tuple[int, float]]) -> None:
            number = 0
            while trio.current_time() < limit:
                number += 1
                event = stateful_event(f"{number}", "fim", "create", {"file": {"text": "x" * 20_000}})
                answers.append(await timed(lambda event=event: stateful.post_stateful([event])))  # type: ignore[misc]

        async with trio.open_nursery() as nursery:
            for agent in parked:
                nursery.start_soon(poll, agent)
            await trio.sleep(0.5)
            memory = resident_bytes(daemon)
            between.accepted = 0
            between.switch(how)
            limit = trio.current_time() + OUTAGE
            slowest: list[float] = []
            answers: list[tuple[int, float]] = []
            async with trio.open_nursery() as meanwhile:
                meanwhile.start_soon(work, limit, slowest)
                for _ in range(10):
                    meanwhile.start_soon(send, limit, answers)
            assert len(slowest) > 50
            assert sorted(slowest)[len(slowest) // 2] < 0.5
            assert max(slowest) < 3.0  # the first one waits a little for what it then knows
            assert {status for status, _ in answers} == {503}
            assert max(seconds for _, seconds in answers) < STATEFUL_LIMIT + 0.5
            assert not polled
            assert between.accepted < 3 * OUTAGE + 24  # no storm; what hung at first had a connection each
            assert resident_bytes(daemon) - memory < 32 * 1024 * 1024
            between.switch("pass")
            began = trio.current_time()
            last = [stateful_event("z", "fim", "create", {})]
            with trio.fail_after(10):
                while (await stateful.post_stateful(last)).status != 200:  # noqa: ASYNC110  # nothing tells
                    await trio.sleep(0.1)
            assert trio.current_time() - began < 5
            assert (await parked[0].get_file("default.conf")).status == 200
            command = {"status": "pending", "target": {"type": "group", "id": "all"}, "action": {"name": "restart"}}
            document = {"@timestamp": "2099-01-01T00:00:00.000Z", "command": {**command, "timeout": 100}}
            call(port, "PUT", "/wazuh-commands/_doc/all", document)
            with trio.move_on_after(15):
                while len(polled) < len(parked):  # noqa: ASYNC110  # as above
                    await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
        assert [reply.status for reply in polled] == [200] * len(parked)
        assert engine.requests
