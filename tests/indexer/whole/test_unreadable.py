"""A real daemon and a real OpenSearch, in which other programs wrote documents that no strict reader takes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.conftest import Certificates
from tests.e2e.processes import PROGRAMS, Files, start_daemon, tool
from tests.engine.fake import fake_engine
from tests.indexer.client.test_unreadable import UNREADABLE
from tests.indexer.daemons import wazuh_files
from tests.indexer.harness import call
from wazuh_comms_trio.foundation.timestamps import to_iso
from wazuh_comms_trio.testing import AgentClient

pytestmark = [pytest.mark.indexer, pytest.mark.processes, pytest.mark.real_clock]

NOBODY = "11111111-1111-4111-8111-111111111111"
#: Those that an OpenSearch takes.
KINDS = ("escape", "name", "bytes", "number", "deep", "lists", "comment")


def write_command(port: int, document_id: str, agent_id: str, args: bytes = b"{}") -> None:
    whole = {
        "@timestamp": to_iso(time.time()),
        "command": {
            "status": "pending",
            "target": {"type": "agent", "id": agent_id},
            "action": {"name": "restart", "args": "ARGS"},
            "timeout": 100,
        },
    }
    text = json.dumps(whole).encode().replace(b'"ARGS"', args)
    assert call(port, "PUT", f"/wazuh-commands/_doc/{document_id}?refresh=true", text)["result"] == "created"


async def polled(agent: AgentClient) -> list[str]:
    with trio.fail_after(15):
        reply = await agent.poll()
    assert reply.status == 200
    ids = [command["document_id"] for command in reply.json()["commands"]]
    for document_id in ids:
        assert (await agent.report(document_id, 0, "done")).status == 200
    return ids


async def findings(files: Files) -> list[str]:
    process = await trio.run_process(
        tool_command(files, "--json", "indexer", "check"), capture_stdout=True, check=False
    )
    return [each["text"] for each in json.loads(process.stdout)["checks"] if each["level"] == "problem"]


def tool_command(files: Files, *words: str) -> list[str]:
    return [str(PROGRAMS / "wazuh-comms"), "--config", str(files.config), *words]


async def test_commands_of_others(tmp_path: Path, certificates: Certificates, port: int) -> None:
    files = wazuh_files(tmp_path, certificates, [port])
    await tool(files, "indexer", "init")
    async with fake_engine(tmp_path), start_daemon(files) as daemon:
        agent = await daemon.add_agent("a1")
        assert (await agent.authenticate()).status == 200
        for kind in KINDS:
            write_command(port, f"bad-{kind}", NOBODY, UNREADABLE[kind])
        write_command(port, "sound", agent.uuid)
        assert await polled(agent) == ["sound"]

        assert [each["document_id"] for each in await tool(files, "commands", "list")] == ["sound"]
        named = [line for line in daemon.log if "can't be read" in line]
        assert len(named) == len(KINDS)
        assert all(any(f"wazuh-commands/bad-{kind} " in line for line in named) for kind in KINDS)
        assert len(await findings(files)) == len(KINDS)

        for kind in KINDS:
            name = f"bad-{kind}"
            shown: Any = await tool(files, "commands", "show", name)
            assert shown["unreadable"]
            assert "restart" in shown["text"]
            shown = await tool(files, "indexer", "show", f"wazuh-commands/{name}")
            assert shown["problem"]
            cancelled = await tool(files, "commands", "cancel", name)
            assert (cancelled["status"], cancelled["result"]["message"]) == ("failed", "cancelled")
            # The indexer wrote it anew with that, and some are sound now.
            if "unreadable" in await tool(files, "commands", "show", name):
                await tool(files, "indexer", "remove", f"wazuh-commands/{name}")
                assert call(port, "GET", f"/wazuh-commands/_doc/{name}")["found"] is False
        for verb in ("show", "remove"):
            with pytest.raises(AssertionError, match="wazuh-commands/sound can be read: "):
                await tool(files, "indexer", verb, "wazuh-commands/sound")
        assert await findings(files) == []
        write_command(port, "sound-2", agent.uuid)
        assert await polled(agent) == ["sound-2"]


async def test_an_agent_of_others(tmp_path: Path, certificates: Certificates, port: int) -> None:
    files = wazuh_files(tmp_path, certificates, [port])
    await tool(files, "indexer", "init")
    async with fake_engine(tmp_path), start_daemon(files) as daemon:
        agents = [await daemon.add_agent(name) for name in ("bad", "one", "two", "three")]
        bad = agents[0].uuid
        stored = call(port, "GET", f"/wazuh-agents/_doc/{bad}")["_source"]
        stored["agent"]["host"] = {"hostname": "\udced"}
        call(port, "PUT", f"/wazuh-agents/_doc/{bad}?refresh=true", stored)
        statuses: dict[str, int] = {}

        async def log_in(agent: AgentClient) -> None:
            statuses[agent.uuid] = (await agent.authenticate()).status

        async with trio.open_nursery() as nursery:
            for agent in agents:
                nursery.start_soon(log_in, agent)
        assert statuses == {agent.uuid: 503 if agent.uuid == bad else 200 for agent in agents}
        assert {each["name"] for each in await tool(files, "agents", "list")} == {"one", "two", "three"}
        assert len([line for line in daemon.log if f"wazuh-agents/{bad} can't be read" in line]) == 1
        assert [text.split(" ")[0] for text in await findings(files)] == [f"wazuh-agents/{bad}"]
        shown: Any = await tool(files, "agents", "show", bad)
        assert "\\udced" in shown["text"].lower()
        assert stored["agent"]["key"] not in shown["text"]
        await tool(files, "agents", "remove", bad)
        assert call(port, "GET", f"/wazuh-agents/_doc/{bad}")["found"] is False
        assert await findings(files) == []
