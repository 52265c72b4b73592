"""``wazuh-comms indexer init`` and ``check`` against a real OpenSearch."""

from __future__ import annotations

import json
import os
from itertools import count
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.conftest import Certificates
from tests.e2e.processes import PROGRAMS, tool
from tests.indexer.cluster import free_port
from tests.indexer.daemons import wazuh_files
from tests.indexer.harness import call, settings
from wazuh_comms_trio.backends.interfaces import DocumentOperation, Outcome
from wazuh_comms_trio.backends.opensearch.admin.check import Finding, check_indexer
from wazuh_comms_trio.backends.opensearch.admin.fields import count_fields, full_of_fields
from wazuh_comms_trio.backends.opensearch.admin.init import init_indexer
from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable, OpenSearchClient
from wazuh_comms_trio.backends.opensearch.stores import open_opensearch
from wazuh_comms_trio.config.backend_models import Indexer, IndexerHost, IndexerNames

pytestmark = [pytest.mark.indexer, pytest.mark.real_clock]


async def init(indexer: Indexer) -> dict[str, tuple[bool, str]]:
    async with OpenSearchClient(indexer) as client:
        return {step.name: (step.made, step.found) for step in await init_indexer(client, indexer.names)}


async def check(indexer: Indexer, **options: Any) -> list[Finding]:
    return [finding async for finding in check_indexer(indexer, **options)]


def problems(findings: list[Finding]) -> list[str]:
    assert all(finding.remedy for finding in findings if finding.level != "ok")
    return [f"{finding.what}: {finding.text}" for finding in findings if finding.level != "ok"]


def everything(port: int) -> Any:
    state = call(port, "GET", "/_cluster/state/metadata?expand_wildcards=all")["metadata"]
    return state["indices"], state.get("index_template"), state["templates"]


async def test_init_makes_what_is_missing_once(port: int) -> None:
    first = await init(settings(port))
    assert len(first) == 16
    assert all(made for made, _ in first.values())
    assert {"wazuh-agents", "wazuh-commands", "wazuh-states-fim"} < first.keys()
    before = everything(port)
    second = await init(settings(port))
    assert not any(made for made, _ in second.values())
    assert everything(port) == before
    assert problems(await check(settings(port))) == []
    # hidden from wildcards, as those of a Wazuh indexer are
    assert "wazuh-agents" not in call(port, "GET", "/*")


async def test_two_at_once(port: int) -> None:
    results: list[dict[str, tuple[bool, str]]] = []

    async def one() -> None:
        results.append(await init(settings(port)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        nursery.start_soon(one)
    assert all(results[0][name][0] or results[1][name][0] for name in results[0])


async def test_init_leaves_what_others_made(port: int) -> None:
    strict = {"index_patterns": [".agents*"], "template": {"mappings": {"dynamic": "strict"}}}
    call(port, "PUT", "/_index_template/index-template-agent", strict)
    call(port, "PUT", "/_template/old-states", {"index_patterns": ["wazuh-states-*"], "order": 1})
    call(port, "PUT", "/.agents", {"mappings": {"properties": {"agent": {"properties": {"id": {"type": "keyword"}}}}}})
    before = call(port, "GET", "/.agents")
    steps = await init(settings(port))
    assert steps["wazuh-comms-agents"] == (False, "index-template-agent")
    assert steps["wazuh-comms-states"] == (False, "old-states")
    assert steps[".agents"] == (False, ".agents")
    assert steps[".commands"] == (True, ".commands")  # of the same generation
    assert call(port, "GET", "/.agents") == before
    assert "wazuh-agents" not in steps


async def test_who_is_no_opensearch_is_not_prepared() -> None:
    """Although it says 200 to everything, also to whether an index is there."""

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        with pytest.raises(IndexerUnavailable, match="this is no OpenSearch"):
            await init(settings(listener.socket.getsockname()[1]))
        nursery.cancel_scope.cancel()


async def test_check_on_an_empty_indexer(port: int) -> None:
    found = problems(await check(settings(port)))
    assert found == [
        "agents index: wazuh-agents and .agents: missing",
        "commands index: wazuh-commands and .commands: missing",
        "state indices: 10 of 10 are missing, and there is no template for them",
    ]
    named = settings(port, names=IndexerNames("a-x", "c-x"))
    assert problems(await check(named))[:2] == ["agents index: a-x: missing", "commands index: c-x: missing"]


async def test_check_of_a_registry_that_vanished_advises_no_empty_one(port: int) -> None:
    call(port, "PUT", "/wazuh-comms-nodes/_doc/a?refresh=true", {"name": "a", "registry": True})
    agents, commands, *_ = [finding for finding in await check(settings(port)) if finding.level == "problem"]
    assert agents.text == "wazuh-agents and .agents: missing, and there was one"
    assert agents.remedy.startswith("restore it from a snapshot")
    assert commands.remedy == "run `wazuh-comms indexer init`"


async def test_check_changes_nothing(port: int) -> None:
    await init(settings(port))
    before = everything(port)
    await check(settings(port))
    assert everything(port) == before


async def test_check_says_what_is_wrong(port: int) -> None:
    text = {"type": "text"}
    agents = {"mappings": {"properties": {"agent": {"properties": {"groups": text, "last_login": text}}}}}
    commands = {
        "settings": {"blocks.write": True},
        "mappings": {"dynamic": "strict", "properties": {"command": {"properties": {"status": text}}}},
    }
    call(port, "PUT", "/wazuh-agents", agents)
    call(port, "PUT", "/.agents", {})
    call(port, "PUT", "/.commands", commands)
    found = "\n".join(problems(await check(settings(port))))
    assert "agent.groups is a text, and values can't be found exactly" in found
    assert "agent.last_login is a text, not a date" in found
    assert "wazuh-agents is used, and .agents exists too" in found
    assert ".commands: blocks.write is set" in found
    assert "command.status is a text" in found
    assert "`delivery` (who delivers a command) isn't mapped" in found
    assert ".commands: no write: cluster_block_exception" in found


async def test_dynamic_mappings_are_good_enough(port: int) -> None:
    call(port, "PUT", "/.agents/_doc/a1", {"agent": {"id": "a1", "groups": ["g"], "status": "active", "last_login": 5}})
    command = {"status": "pending", "target": {"type": "agent", "id": "a1"}}
    call(port, "PUT", "/.commands/_doc/c1", {"@timestamp": "2025-03-11T19:12:36.629Z", "command": command})
    found = problems(await check(settings(port)))
    assert [line for line in found if "index:" in line] == []


async def test_clocks_that_differ(port: int) -> None:
    import time

    await init(settings(port))
    found = problems(await check(settings(port), wall_clock=lambda: time.time() - 30))
    assert len(found) == 1
    assert "30." in found[0]
    assert "ahead of this machine's" in found[0]


async def test_a_host_that_is_not_there(port: int) -> None:
    await init(settings(port))
    both = attrs.evolve(settings(port), hosts=(IndexerHost("127.0.0.1", free_port()), IndexerHost("127.0.0.1", port)))
    (finding,) = [finding for finding in await check(both) if finding.level != "ok"]
    assert "Connection refused" in finding.text
    assert "indexer.hosts" in finding.remedy


async def test_the_program(tmp_path: Path, certificates: Certificates, port: int) -> None:
    files = wazuh_files(tmp_path, certificates, [port], indexer={"username": "u", "password": "pass-word"})
    command = [str(PROGRAMS / "wazuh-comms"), "--config", str(files.config), "indexer"]

    async def run(*more: str) -> tuple[int, str]:
        done = await trio.run_process([*command, *more], capture_stdout=True, capture_stderr=True, check=False)
        output = (done.stdout + done.stderr).decode()
        assert "Traceback" not in output
        assert "pass-word" not in output
        return done.returncode, output

    status, output = await run("check")
    assert status == 1
    assert "agents index: wazuh-agents and .agents: missing -> run `wazuh-comms indexer init`" in output
    status, output = await run("init")
    assert (status, output.count("made")) == (0, 17)
    status, output = await run("init")
    assert (status, output.count("exists")) == (0, 17)
    audit = [json.loads(line) for line in (files.state / "audit.log").read_text().splitlines()]
    assert len(audit) == 17  # what was made, and nothing for the second time
    assert {(entry["action"], entry["what"]) for entry in audit} == {
        ("indexer init", "template"),
        ("indexer init", "index"),
    }
    assert {entry["uid"] for entry in audit} == {os.getuid()}
    assert "wazuh-agents" in {entry["object"] for entry in audit}
    status, output = await run("check")
    assert status == 0
    assert output.count("\n") >= 6
    report = await tool(files, "indexer", "check")
    assert report["ok"]
    assert {"level", "what", "text", "remedy"} == report["checks"][0].keys()
    gone = files.config.read_text().replace(f"port: {port}", f"port: {free_port()}")
    files.config.write_text(gone)
    status, output = await run("init")
    assert status == 1
    assert "Connection refused" in output
    status, output = await run("check")
    assert status == 1


STATES = "wazuh-states-fim"


def create(document_id: str, document: object) -> DocumentOperation:
    return DocumentOperation("create", STATES, document_id, json.dumps(document).encode())


def fields_there(port: int) -> int:
    return count_fields(call(port, "GET", f"/{STATES}/_mapping")[STATES]["mappings"])


@pytest.mark.parametrize("prepared", [False, True])
async def test_one_agent_makes_all_fields(port: int, prepared: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Documents with further ones are refused for good, once in the log; those without are taken."""
    if prepared:
        await init(settings(port))
    known, numbers = {"file": {"path": "/etc"}}, count()
    async with open_opensearch(settings(port)) as stores:

        async def outcomes(*documents: object) -> list[Outcome]:
            operations = [create(f"d{next(numbers)}", one) for one in documents]
            return [one.outcome for one in await stores.events.bulk(operations)]

        assert await outcomes(known) == [Outcome.DONE]
        limit = fields_there(port) + 5
        call(port, "PUT", f"/{STATES}/_settings", {"index.mapping.total_fields.limit": limit})
        assert await outcomes({f"f{number}": 1 for number in range(5)}) == [Outcome.DONE]
        assert fields_there(port) == limit
        assert await outcomes({"g": 1}, {"h": 1}) == [Outcome.REFUSED] * 2
        assert await outcomes(known) == [Outcome.DONE]
    (line,) = [text for text in caplog.messages if "fields" in text]
    assert line.startswith(f"indexer: {STATES} takes no further fields: documents with new ones go to the quarantine")
    texts = [finding.text for finding in await check(settings(port)) if finding.what == "state indices"]
    assert f"{STATES}: it has {limit} of {limit} fields" in "; ".join(texts)


def test_objects_and_what_a_field_is_indexed_as_besides_are_fields() -> None:
    text = {"type": "text", "fields": {"keyword": {"type": "keyword"}}}
    mappings = {"dynamic": True, "properties": {"a": {"properties": {"b": text, "c": {"type": "long"}}}, "d": text}}
    assert count_fields(mappings) == 6
    assert count_fields({}) == 0
    assert (
        full_of_fields("i", mappings, "7")
        == "i: it has 6 of 7 fields: documents with further ones go to the quarantine"
    )
    assert full_of_fields("i", mappings, "8") is None
    assert full_of_fields("i", mappings, None) is None
