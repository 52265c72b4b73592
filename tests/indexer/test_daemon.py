"""One real daemon on a real OpenSearch: an agent's whole day."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.conftest import Certificates
from tests.e2e.processes import start_daemon, tool
from tests.engine.fake import fake_engine
from tests.indexer.cluster import shared_node
from tests.indexer.daemons import wazuh_files
from tests.indexer.harness import call, wipe
from wazuh_comms_trio.testing import Reply, stateful_event, stateless_event

pytestmark = [pytest.mark.indexer, pytest.mark.processes, pytest.mark.real_clock]


@pytest.fixture
def port() -> int:
    node = shared_node().port
    wipe(node)
    return node


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
        assert [(r["id"], r["status"]) for r in reply.json()["results"]] == [("e1", 201), ("e2", 404), ("e3", 404)]
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
