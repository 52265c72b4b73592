"""``wazuh-comms events`` and ``wazuh-comms quarantine``."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
import trio

from tests.cli.conftest import Tool
from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.backends.interfaces import Agent, DocumentOperation
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.quarantine.interface import Rejected
from wazuh_comms_trio.quarantine.opening import open_quarantine

AGENT = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1"
METADATA = b'{"agent":{"id":"%s","name":"one","groups":[]}}' % AGENT.encode()
STATELESS = METADATA + b'\n{"module":"logcollector","collector":"file"}\n{"event":{"original":"hello \\u001b[31m"}}\n'


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    yield body


def fill(config: Config) -> None:
    async def run() -> None:
        async with open_backends(config) as backends:
            await backends.engine.send_events(pieces(STATELESS), agent_id=AGENT, length=len(STATELESS))
            operation = DocumentOperation("create", "wazuh-states-fim", f"{AGENT}_f1", b'{"file":{"path":"/a"}}')
            await backends.events.bulk([operation])

    trio.run(run)


def put_aside(config: Config, *entries: Rejected) -> None:
    async def run() -> None:
        async with open_quarantine(config) as quarantine:
            await quarantine.add(entries)

    trio.run(run)


def stateful(header: str, data: str, document_id: str = "", version: str = "") -> Rejected:
    document = document_id and f"wazuh-states-fim/{AGENT}_{document_id}"
    payload = f"{header}\n{data}".encode()
    return Rejected(AGENT, "stateful", "unknown operation", METADATA, payload, document, version)


GOOD = stateful('{"id":"f2","module":"fim","operation":"create"}', '{"file":{"path":"/b"}}', "f2", "absent")
BAD = stateful('{"id":"f3","module":"fim","operation":"explode"}', '{"file":{}}')


def test_tail_of_nothing(tool: Tool) -> None:
    printed = tool("events", "tail")
    assert (printed.status, printed.out, printed.err) == (0, "", "")


def test_tail_prints_one_document_a_line(tool: Tool, config: Config) -> None:
    fill(config)
    events = [json.loads(line) for line in tool("events", "tail", "--json").lines]
    assert [event["kind"] for event in events] == ["stateless", "stateful"]
    assert events[0]["agent_id"] == AGENT
    assert events[0]["data"] == {"event": {"original": "hello \x1b[31m"}}
    assert (events[1]["index"], events[1]["document_id"]) == ("wazuh-states-fim", f"{AGENT}_f1")
    assert events[1]["data"] == {"file": {"path": "/a"}}


def test_an_agents_texts_do_nothing_to_a_terminal(tool: Tool, config: Config) -> None:
    """An agent's JSON was printed as it came: C1 controls, texts that are read backwards, returns between tokens."""
    data = '{"a":\r\t"\x9b2K\u202e\u2028\x7f\U000e0041 é \\u001b"}'

    async def run() -> None:
        async with open_backends(config) as backends:
            body = STATELESS + b'{"module":"logcollector","collector":"file"}\n' + data.encode() + b"\n"
            await backends.engine.send_events(pieces(body), agent_id=AGENT, length=len(body))

    trio.run(run)
    for words in (["--json"], []):
        printed = tool("events", "tail", *words)
        assert all(line.isprintable() for line in printed.out.split("\n"))
    events = [json.loads(line) for line in tool("events", "tail", "--json").lines]
    assert events[1]["data"] == json.loads(data)


def test_tail_for_people(tool: Tool, config: Config) -> None:
    fill(config)
    first, second = tool("events", "tail").lines
    assert f"  stateless  logcollector/file  {AGENT}  " in first
    assert "\x1b" not in first
    assert "  stateful  wazuh-states-fim  " in second
    assert second.endswith('{"file":{"path":"/a"}}')


@pytest.mark.expects_errors
def test_a_quarantine_that_was_made_anew_is_told_of(tool: Tool, config: Config, state: Path) -> None:
    put_aside(config, BAD)
    shutil.rmtree(state / "quarantine")
    for _ in range(2):
        listed = tool("quarantine", "list")
        assert (listed.status, listed.out) == (1, "")
        assert "quarantine.db: the one that was there is gone, with all that was in it (noticed at 20" in listed.err
    assert tool("store", "verify").status == 1
    assert tool("store", "verify", "--repair").status == 0
    assert tool("quarantine", "list").status == 0


def test_quarantine_list_and_show(tool: Tool, config: Config) -> None:
    empty = tool("quarantine", "list")
    assert (empty.status, empty.out) == (0, "")
    assert empty.err.startswith("0 entries, 0 of ")
    put_aside(config, GOOD, BAD, BAD)
    first, second = tool("quarantine", "list", "--json").document
    assert (first["kind"], first["agent_id"], first["reason"]) == ("stateful", AGENT, "unknown operation")
    assert (first["count"], second["count"]) == (1, 2)
    assert tool("quarantine", "list", "--agent", AGENT.replace("1", "2"), "--json").document == []
    assert tool("quarantine", "list").lines[0].split()[:2] == ["ID", "LAST"]
    shown = tool("quarantine", "show", str(second["id"]), "--json").document
    assert shown["payload"] == BAD.payload.decode()
    assert shown["metadata"] == METADATA.decode()
    assert '"operation":"explode"' in tool("quarantine", "show", str(second["id"])).out
    assert tool("quarantine", "show", str(second["id"]), "--raw").out == BAD.payload.decode()
    missing = tool("quarantine", "show", "99")
    assert (missing.status, missing.err) == (1, "wazuh-comms: there is no entry 99 in the quarantine\n")


def test_the_quarantine_is_listed_without_a_registry(tool: Tool, config: Config, state: Path) -> None:
    put_aside(config, stateful('{"module":"fim"}', "{}"))
    (state / "state.db").write_bytes(b"no database" * 1000)
    listed = tool("quarantine", "list")
    assert (listed.status, listed.lines[1].split()[2]) == (0, AGENT)


def test_quarantine_drop(tool: Tool, config: Config, audit: Callable[[], list[dict[str, Any]]]) -> None:
    put_aside(config, GOOD, BAD)
    first, second = (str(entry["id"]) for entry in tool("quarantine", "list", "--json").document)
    for words in ((), (first, "--all"), ("x",), ("--all", "--agent", AGENT)):
        assert tool("quarantine", "drop", *words).status == 2
    partly = tool("quarantine", "drop", first, "99")
    assert (partly.status, partly.err) == (1, "wazuh-comms: not in the quarantine: 99; nothing was done\n")
    assert tool("quarantine", "drop", first, "--json").document == {"dropped": 1}
    assert tool("quarantine", "drop", "--all").out == "dropped 1 entry\n"
    assert tool("quarantine", "list", "--json").document == []
    assert [(entry["action"], entry["object"]) for entry in audit()] == [
        ("quarantine drop", first),
        ("quarantine drop", second),
    ]


def test_an_entry_that_cannot_be_read_can_be_dropped(tool: Tool, config: Config, state: Path) -> None:
    put_aside(config, GOOD, BAD)
    connection = apsw.Connection(str(state / "quarantine" / "quarantine.db"))
    connection.execute("UPDATE entries SET first_at = 'yesterday' WHERE id = 2")
    connection.close()
    assert [entry["id"] for entry in tool("quarantine", "list", "--json").document] == [1]
    assert tool("quarantine", "replay", "2").status == 1
    assert tool("quarantine", "drop", "2", "3").err.endswith("not in the quarantine: 3; nothing was done\n")
    assert tool("quarantine", "drop", "1", "2", "--json").document == {"dropped": 2}
    assert tool("quarantine", "drop", "2").status == 1


def test_replay_takes_what_can_be_taken(tool: Tool, config: Config, audit: Callable[[], list[dict[str, Any]]]) -> None:
    put_aside(config, GOOD, BAD, Rejected(AGENT, "stateless", "refused", b"", STATELESS))
    replayed = tool("quarantine", "replay", "--all", "--json")
    assert replayed.status == 1
    good, bad, stateless = replayed.document
    assert good["error"] is None
    assert [(result["status"], result["result"]) for result in good["results"]] == [(201, "created")]
    assert "explode" in bad["error"] or "operation" in bad["error"]
    assert stateless == {"id": stateless["id"], "error": None, "results": [], "overtaken": False}
    (left,) = tool("quarantine", "list", "--json").document
    assert (left["id"], left["replay_error"], left["count"]) == (bad["id"], bad["error"], 1)
    events = [json.loads(line) for line in tool("events", "tail", "--json").lines]
    assert sorted(event["kind"] for event in events) == ["stateful", "stateless"]
    (entry,) = audit()
    assert (entry["action"], entry["object"]) == ("quarantine replay", f"{good['id']},{stateless['id']}")


def write(config: Config, *operations: DocumentOperation) -> list[str]:
    """The versions of their documents afterwards."""

    async def run() -> list[str]:
        async with open_backends(config) as backends:
            await backends.events.bulk(operations)
            return list(await backends.events.versions([(one.index, one.document_id) for one in operations]))

    return trio.run(run)


def stored(config: Config, document_id: str) -> Any:
    async def run() -> Any:
        async with open_backends(config) as backends:
            body = await backends.events.get("wazuh-states-fim", f"{AGENT}_{document_id}")
            return None if body is None else json.loads(body).get("file")

    return trio.run(run)


CREATE = '{"id":"f2","module":"fim","operation":"create"}'


def test_replay_writes_only_onto_what_was_there_at_the_refusal(tool: Tool, config: Config) -> None:
    there = DocumentOperation("create", "wazuh-states-fim", f"{AGENT}_f2", b'{"file":{"path":"/there"}}')
    (version,) = write(config, there)
    put_aside(config, stateful(CREATE, '{"file":{"path":"/other"}}', "f2", version))
    assert tool("quarantine", "replay", "--all").status == 0
    assert stored(config, "f2") == {"path": "/other"}
    # What has changed since is overtaken: it stays, and says so.
    put_aside(config, stateful(CREATE, '{"file":{"path":"/late"}}', "f2", version))
    for words in ((), ("--force",)):
        late = tool("quarantine", "replay", "--all", *words)
        assert late.status == 1
        assert "overtaken: a later event has changed the document since" in late.out
    assert stored(config, "f2") == {"path": "/other"}
    (left,) = tool("quarantine", "list", "--json").document
    assert left["overtaken_at"] is not None
    assert "(overtaken)" in tool("quarantine", "list").out


def test_replay_of_what_is_not_known_to_be_the_newest_asks_for_force(tool: Tool, config: Config) -> None:
    put_aside(config, stateful(CREATE, '{"file":{"path":"/unknown"}}'))
    asked = tool("quarantine", "replay", "--all")
    assert asked.status == 1
    assert "it isn't known whether its document has changed since; --force" in asked.out
    assert stored(config, "f2") is None
    assert tool("quarantine", "replay", "--all", "--force").status == 0
    assert stored(config, "f2") == {"path": "/unknown"}
    assert tool("quarantine", "list", "--json").document == []


def test_replay_of_many_events_keeps_what_is_still_refused(tool: Tool, config: Config) -> None:
    def event(number: int, operation: str = "create") -> str:
        return f'{{"id":"e{number}","module":"fim","operation":"{operation}"}}\n{{"file":{{"path":"/{number}"}}}}\n'

    many = event(1) + event(2, "explode") + event(3) + '{"id":"e4","module":"fim","operation":"delete"}\n' + event(5)
    lines = f"no header\n{many}"
    put_aside(config, Rejected(AGENT, "stateful", "from here on nothing is known", METADATA, lines.encode()))
    replayed = tool("quarantine", "replay", "--all", "--force", "--json")
    assert replayed.status == 1
    (one,) = replayed.document
    assert [(result["id"], result["status"]) for result in one["results"]] == [
        ("e1", 201),
        ("e3", 201),
        ("e4", 404),
        ("e5", 201),
    ]
    assert stored(config, "e5") == {"path": "/5"}
    left = tool("quarantine", "list", "--json").document
    payloads = [tool("quarantine", "show", str(entry["id"]), "--raw").out for entry in left]
    assert payloads == ["no header", event(2, "explode").rstrip("\n")]
    assert left[1]["reason"] == "Unknown operation"


def test_replay_goes_on_behind_what_cannot_be_read(tool: Tool, config: Config, state: Path) -> None:
    large = "x" * 300_000
    header = '{"id":"f9","module":"fim","operation":"create"}'
    lost = stateful(header, f'{{"file":"{large}"}}', "f9", "absent")
    put_aside(config, lost, Rejected(AGENT, "stateless", "refused", b"", STATELESS + large.encode()), GOOD)
    for payload in (state / "quarantine" / "payloads").iterdir():
        payload.unlink()
    replayed = tool("quarantine", "replay", "--all", "--json")
    assert replayed.status == 1
    why = "quarantine.db: entries/{} can't be read: its payload: No such file or directory"
    assert [one["error"] for one in replayed.document] == [why.format(1), why.format(2), None]
    first, second = tool("quarantine", "list", "--json").document
    assert [first["replay_error"], second["replay_error"]] == [why.format(1), why.format(2)]


def test_replay_of_nothing(tool: Tool) -> None:
    nothing = tool("quarantine", "replay", "--all")
    assert (nothing.status, nothing.out) == (0, "")
    assert "nothing to replay" in nothing.err


def test_damage_is_told_with_the_exit_status(tool: Tool, config: Config, state: Path, tmp_path: Path) -> None:
    fill(config)
    (segment,) = (state / "events").glob("*.ndjson")
    data = bytearray(segment.read_bytes())
    data[len(data) // 4] ^= 0x20
    segment.write_bytes(data)
    tailed = tool("events", "tail", "--json")
    assert tailed.status == 1
    assert [json.loads(line)["kind"] for line in tailed.lines] == ["stateful"]
    assert f"{segment.name}: {len(data)} bytes with 1 record can't be read" in tailed.err
    made = tool("backup", str(tmp_path / "comms.backup"))
    assert made.status == 1
    assert "not complete" in made.out
    assert segment.name in made.err
    restored = tool("restore", str(tmp_path / "comms.backup"))
    assert restored.status == 0
    assert segment.name in restored.err


def test_store_verify(tool: Tool, config: Config, state: Path) -> None:
    fill(config)
    assert tool("store", "verify").status == 0
    (segment,) = (state / "events").glob("*.ndjson")
    segment.write_bytes(segment.read_bytes().replace(b"hello", b"hallo"))
    looked = tool("store", "verify", "--json")
    assert looked.status == 1
    (damage,) = looked.document["damaged"]
    assert (damage["place"], damage["repaired"]) == (f"events/{segment.name}", False)
    repaired = tool("store", "verify", "--repair")
    assert repaired.status == 0
    assert "0 records are kept" in repaired.out
    assert tool("store", "verify").out.strip() == f"{state}: nothing is damaged"
    entry = json.loads((state / "audit.log").read_text().splitlines()[-1])
    assert (entry["action"], entry["object"]) == ("store verify", f"events/{segment.name}")


def test_store_prune(tool: Tool, config: Config) -> None:
    fill(config)
    looked = tool("store", "prune", "--dry-run", "--json")
    assert looked.status == 0
    assert looked.document == {"deleted": False, "commands": 0, "documents_of_removed_agents": 0, "documents": 0}
    assert tool("store", "prune").out.startswith("deleted: 0 finished commands")


def test_documents_of_agents_that_an_earlier_version_removed(tool: Tool, config: Config, state: Path) -> None:
    fill(config)
    unknown, removed = "0198f2a0-0000-7000-8000-00000000000a", "0198f2a0-0000-7000-8000-00000000000b"

    async def fill_index() -> None:
        async with open_backends(config) as backends:
            await backends.agents.add(Agent(AGENT, "a", key_hash="h"))
            ids = [f"{agent}_{number}" for agent in (unknown, removed, AGENT) for number in range(120)]
            ids += [f"{unknown}x_1", unknown, "plain", f"x{unknown}_1"]
            for index in ("wazuh-states-fim-files", "wazuh-states-inventory-packages"):
                operations = [DocumentOperation("create", index, each, b"{}") for each in ids]
                await backends.events.bulk(operations)
            await backends.agents.add(Agent(removed, "b", key_hash="h"))
            await backends.agents.remove(removed)  # this version notes when, and deletes them in a month

    trio.run(fill_index)
    verified = tool("store", "verify", "--json")
    assert (verified.status, verified.document["documents_of_unknown_agents"]) == (0, {unknown: 240})
    assert "240 documents are of 1 agents that aren't enrolled" in tool("store", "verify").err
    looked = tool("store", "prune", "--unknown-agents", "--dry-run", "--json")
    assert looked.document == {"deleted": False, "documents_of_unknown_agents": {unknown: 240}}
    assert count_documents(state) == 729
    gone = tool("store", "prune", "--unknown-agents")
    assert gone.out.splitlines() == [f"{unknown}: 240 documents", "deleted: 240 documents of 1 unknown agents"]
    assert count_documents(state) == 489
    entry = json.loads((state / "audit.log").read_text().splitlines()[-1])
    assert (entry["action"], entry["documents_of_unknown_agents"], entry["agents"]) == ("store prune", 240, [unknown])
    assert tool("store", "verify", "--json").document["documents_of_unknown_agents"] == {}


def count_documents(state: Path) -> int:
    with closing(sqlite3.connect(state / "state.db")) as database:
        return int(database.execute("SELECT count(*) FROM documents").fetchone()[0])
