"""One real daemon on a real OpenSearch: an agent's whole day."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.conftest import Certificates
from tests.e2e.processes import Running, start_daemon, tool
from tests.engine.fake import fake_engine
from tests.indexer.daemons import wazuh_files
from tests.indexer.harness import call
from wazuh_comms_trio.testing import Reply, stateful_event, stateless_event

pytestmark = [pytest.mark.indexer, pytest.mark.processes, pytest.mark.real_clock]


async def test_an_agents_whole_day(tmp_path: Path, certificates: Certificates, port: int) -> None:
    files = wazuh_files(tmp_path, certificates, [port])
    async with fake_engine(tmp_path) as engine, start_daemon(files) as daemon:
        agent = await daemon.add_agent("a1", "--group", "web")
        assert (await agent.authenticate()).status == 200
        stored = call(port, "GET", f"/wazuh-agents/_doc/{agent.uuid}")["_source"]["agent"]
        assert stored["name"] == "a1"

        reply = await agent.post_stateful(
            [
                stateful_event("e1", "fim", "create", {"file": {"path": "/etc/passwd"}}),
                stateful_event("e2", "fim", "delete"),
                stateful_event("e3", "sca", "update", {"check": 1}),
            ]
        )
        assert reply.status == 200
        assert [(r["id"], r["status"]) for r in reply.json()["results"]] == [("e1", 201), ("e2", 404), ("e3", 201)]
        document = call(port, "GET", f"/wazuh-states-fim/_doc/{agent.uuid}_e1")["_source"]
        assert document["file"] == {"path": "/etc/passwd"}
        assert document["agent"]["id"] == agent.uuid

        assert (await agent.post_stateless([stateless_event("logcollector", "file", {"m": 1})])).status == 204
        assert engine.requests[0][2].startswith(agent.metadata)

        polled: list[Reply] = []
        async with trio.open_nursery() as nursery:

            async def poll() -> None:
                polled.append(await agent.poll())

            nursery.start_soon(poll)
            sent = await tool(files, "commands", "send", "--agent", agent.uuid, "restart")
        (command,) = polled[0].json()["commands"]
        document_id = command["document_id"]
        assert document_id in str(sent)
        assert (await agent.report(document_id, 0, "done")).status == 200
        shown = call(port, "GET", f"/wazuh-commands/_doc/{document_id}")["_source"]["command"]
        assert (shown["status"], shown["result"]["code"]) == ("success", 0)

        login = call(port, "GET", f"/wazuh-agents/_doc/{agent.uuid}")["_source"]["agent"]
        assert login["status"] == "active"
        assert login["last_login"]
        await tool(files, "agents", "remove", agent.uuid)
        with trio.fail_after(12):
            while (await agent.get_file("default.conf")).status != 403:  # noqa: ASYNC110  # nothing tells
                await trio.sleep(0.2)


async def test_a_large_body_costs_no_memory(tmp_path: Path, certificates: Certificates, port: int) -> None:
    """100 MiB of stateless events, in flight: less than 8 MiB more than without."""
    peak = 0
    async with (
        fake_engine(tmp_path, drop_above=0) as engine,
        start_daemon(wazuh_files(tmp_path, certificates, [port], timeouts={"stateless": 60})) as daemon,
    ):
        agent = await daemon.add_agent("a1")
        assert (await agent.authenticate()).status == 200
        line = b'{"module":"m","collector":"c"}\n{"message":"' + b"x" * 4000 + b'"}\n'
        assert (await agent.post_stateless([line] * 300)).status == 204
        before = resident_bytes(daemon)

        async def watch() -> None:
            nonlocal peak
            while True:
                peak = max(peak, resident_bytes(daemon))
                await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            engine.received = 0
            body = line * (100 * 1024 * 1024 // len(line))
            assert (await agent.post_stateless([body])).status == 204
            nursery.cancel_scope.cancel()
        assert engine.received == len(agent.metadata) + len(body)
    assert peak - before < 8 * 1024 * 1024


def resident_bytes(daemon: Running) -> int:
    return int(Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1]) * 4096


async def test_an_engine_that_fails(tmp_path: Path, certificates: Certificates, port: int) -> None:
    """Stopped, slow, answering 4xx and 5xx, closing in the middle of a body: what the agent is told, and what becomes
    of its events."""
    event = stateless_event("m", "c", {"n": 1})
    files = wazuh_files(
        tmp_path, certificates, [port], timeouts={"stateless": 3}, quarantine={"path": str(tmp_path / "q")}
    )
    async with start_daemon(files) as daemon:
        agent = await daemon.add_agent("a1")
        assert (await agent.authenticate()).status == 200

        async def answer(*events: bytes) -> tuple[int, int | None]:
            reply = await agent.post_stateless(events or [event])
            return reply.status, reply.json()["code"] if reply.body else None

        async def ready() -> str:
            reply = await agent.request("GET", "/api/v1/ready", authorised=False)
            return str(reply.json()["message"]) if reply.body else "ready"

        assert await answer() == (503, 2802)
        assert await ready() == "engine: The engine's socket cannot be reached"
        async with fake_engine(tmp_path) as engine:
            with trio.fail_after(5):
                while await ready() != "ready":  # noqa: ASYNC110  # nothing tells
                    await trio.sleep(0.1)
            assert await answer() == (204, None)
            engine.stall = 100
            assert await answer() == (503, 2800)
            with trio.fail_after(5):
                while await ready() != "engine: The engine did not answer in time":  # noqa: ASYNC110  # as above
                    await trio.sleep(0.1)
            engine.stall = 0
            for status in (408, 429, 500, 503):
                engine.status = status
                assert await answer() == (503, 2803)
            engine.status = 204
            engine.close_after = 1
            assert await answer() == (503, 2803)
            assert await answer(event * 20_000) == (503, 2803)
            engine.close_after = None
            assert await tool(files, "quarantine", "list") == []
            engine.status, engine.body = 400, b'{"error":["no such module"],"code":4}'
            assert await answer() == (204, None)
            assert await answer(event * 40_000) == (204, None)  # more than 1 MiB
            kept = await tool(files, "quarantine", "list")
            assert [entry["reason"] for entry in kept] == ["no such module"] * 2
            engine.status, engine.body = 204, b""
            assert await answer() == (204, None)
        scan = {"type": "packagelist", "packages": []}
        assert (await agent.scan(scan)).status == 503
        async with fake_engine(tmp_path, status=422, body=b'{"error":"what?"}'):
            reply = await agent.scan(scan)
            assert (reply.status, reply.body) == (422, b'{"error":"what?"}')
