"""``wazuh-comms agents``."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.cli.conftest import Tool
from wazuh_comms_trio.backends.embedded.agents import SqliteAgents
from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.cli.commands.agents import new_uuid
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.errors import StorageFull
from wazuh_comms_trio.services.authentication.secret_hashes import key_matches

UUID = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1"
KEY = "abcdefghijklmnopqrstuvwxyz012345"

Audit = Callable[[], list[dict[str, Any]]]


def stored(config: Config, uuid: str) -> Agent | None:
    async def get() -> Agent | None:
        async with open_backends(config) as backends:
            return await backends.agents.get(uuid)

    return trio.run(get)


def test_add_prints_uuid_and_key(tool: Tool, config: Config) -> None:
    added = tool("agents", "add", "web-1")
    assert added.status == 0
    shown = dict(line.split(None, 1) for line in added.lines)
    assert shown["name"] == "web-1"
    assert re.fullmatch("[A-Za-z0-9]{32}", shown["key"])
    assert "shown this once" in added.err
    agent = stored(config, shown["uuid"])
    assert agent is not None
    assert (agent.name, agent.groups, agent.status, agent.last_login) == ("web-1", (), "disconnected", None)
    assert key_matches(shown["key"], agent.key_hash)


def test_add_as_told(tool: Tool, config: Config) -> None:
    words = ("--uuid", UUID.upper(), "--key", KEY, "--group", "web", "--group", "db", "--group", "web")
    added = tool("--json", "agents", "add", "Größe 1", *words)
    assert added.document == {"uuid": UUID, "name": "Größe 1", "key": KEY, "groups": ["web", "db"]}
    assert added.err == ""
    agent = stored(config, UUID)
    assert agent is not None
    assert agent.groups == ("web", "db")


def test_add_of_a_known_uuid_changes_nothing(tool: Tool, config: Config, audit: Audit) -> None:
    tool("agents", "add", "first", "--uuid", UUID, "--key", KEY)
    again = tool("agents", "add", "second", "--uuid", UUID)
    assert (again.status, again.out) == (1, "")
    assert again.err == f"wazuh-comms: there is an agent {UUID} already\n"
    agent = stored(config, UUID)
    assert agent is not None
    assert (agent.name, key_matches(KEY, agent.key_hash)) == ("first", True)
    assert len(audit()) == 1


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("",),
        ("   ",),
        ("a\nb",),
        ("a\x00b",),
        ("a\x7f",),
        ("a\u2028b",),
        ("\udcff",),
        ("n" * 129,),
        ("n", "--uuid", "1"),
        ("n", "--uuid", UUID + "0"),
        ("n", "--uuid", "{" + UUID + "}"),
        ("n", "--uuid", UUID.replace("-", "")),
        ("n", "--key", KEY[:-1]),
        ("n", "--key", KEY + "a"),
        ("n", "--key", "ä" * 32),
        ("n", "--key", KEY[:-1] + "-"),
        ("n", "--group", ""),
        ("n", "--group", "a/b"),
        ("n", "--group", ".."),
        ("n", "--group", "all"),
        ("n", "--group", "g" * 129),
        ("n", "--keys", KEY),
        ("n", "--gr", "web"),
        ("n", "m"),
    ],
)
def test_misuse_of_add(tool: Tool, state: Path, words: tuple[str, ...]) -> None:
    refused = tool("agents", "add", *words)
    assert (refused.status, refused.out) == (2, "")
    assert refused.err.startswith("usage: wazuh-comms")
    assert "Traceback" not in refused.err
    assert not state.exists()


def test_wrong_key_is_not_shown(tool: Tool) -> None:
    assert "hunter2" not in tool("agents", "add", "n", "--key", "hunter2").err


def test_name_of_128_characters(tool: Tool) -> None:
    assert tool("agents", "add", "ü" * 128).status == 0


def test_list(tool: Tool) -> None:
    empty = tool("agents", "list")
    assert (empty.status, empty.out) == (0, "")
    assert tool("agents", "list", "--json").document == []
    tool("agents", "add", "b", "--uuid", UUID, "--group", "web")
    tool("agents", "add", "a\u200e[31m")
    listed = tool("agents", "list")
    assert [line.split()[0] for line in listed.lines[:1]] == ["UUID"]
    assert [line.split()[1] for line in listed.lines[1:]] == ["a\\u200e[31m", "b"]
    first, second = tool("agents", "list", "--json").document
    assert first["name"] == "a\u200e[31m"
    assert second == {
        "uuid": UUID,
        "name": "b",
        "groups": ["web"],
        "status": "never",
        "last_seen": None,
        "node": None,
        "last_login": None,
        "type": None,
        "version": None,
        "host": {},
    }


def test_show(tool: Tool) -> None:
    tool("agents", "add", "b", "--uuid", UUID, "--group", "web")
    assert tool("agents", "show", UUID.upper(), "--json").document["uuid"] == UUID
    assert tool("agents", "show", UUID).lines[:3] == [f"uuid    {UUID}", "name    b", "groups  web"]
    unknown = tool("agents", "show", new_uuid())
    assert unknown.status == 1
    assert "there is no agent" in unknown.err


def test_show_what_an_agent_said_of_its_host(tool: Tool, config: Config) -> None:
    host = {"hostname": "hôte", "ip": ["10.0.0.5"]}

    async def enrol() -> None:
        async with open_backends(config) as backends:
            await backends.agents.add(Agent(id=UUID, name="b", key_hash="", host=host))

    trio.run(enrol)
    shown = dict(line.split(None, 1) for line in tool("agents", "show", UUID).lines)
    assert json.loads(shown["host"]) == host


def test_remove(tool: Tool, config: Config, audit: Audit) -> None:
    tool("agents", "add", "b", "--uuid", UUID)
    assert tool("agents", "remove", UUID, "--json").document == {"uuid": UUID, "removed": True}
    assert stored(config, UUID) is None
    again = tool("agents", "remove", UUID)
    assert (again.status, again.err) == (1, f"wazuh-comms: there is no agent {UUID}\n")
    assert [entry["action"] for entry in audit()] == ["agents add", "agents remove"]


def test_several_agents_are_removed_together_or_none(tool: Tool, audit: Audit) -> None:
    uuids = [tool("agents", "add", f"web-{number}", "--json").document["uuid"] for number in range(4)]
    refused = tool("agents", "remove", "web-0", UUID, "web-1")
    assert (refused.status, refused.out, refused.err) == (1, "", f"wazuh-comms: there is no agent {UUID}\n")
    assert len(tool("agents", "list", "--json").document) == 4
    removed = tool("agents", "remove", "web-0", uuids[1], "web-1")
    assert removed.lines == [f"removed {uuids[number]} (web-{number})" for number in (0, 1)]
    assert [(one["action"], one["object"]) for one in audit()[-2:]] == [("agents remove", uuid) for uuid in uuids[:2]]
    document = tool("agents", "remove", *uuids[2:], "--json").document
    assert document == [{"uuid": uuid, "removed": True} for uuid in uuids[2:]]


def test_a_failure_on_the_way_says_how_many_are_removed(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    uuids = [tool("agents", "add", f"web-{number}", "--json").document["uuid"] for number in range(3)]
    remove = SqliteAgents.remove
    calls: list[str] = []

    async def fails_then(self: SqliteAgents, agent_id: str) -> bool:
        calls.append(agent_id)
        if len(calls) == 2:
            raise StorageFull
        return await remove(self, agent_id)

    monkeypatch.setattr(SqliteAgents, "remove", fails_then)
    refused = tool("agents", "remove", "web-0", "web-1", "web-2")
    assert (refused.status, refused.out) == (1, "")
    assert refused.err.startswith(f"1 of 3 agents were removed\nremoved {uuids[0]} (web-0)\n")
    assert [agent["name"] for agent in tool("agents", "list", "--json").document] == ["web-1", "web-2"]


def test_rekey(tool: Tool, config: Config) -> None:
    tool("agents", "add", "b", "--uuid", UUID, "--key", KEY)
    new = tool("agents", "rekey", UUID, "--json").document
    agent = stored(config, UUID)
    assert agent is not None
    assert new["uuid"] == UUID
    assert key_matches(new["key"], agent.key_hash)
    assert not key_matches(KEY, agent.key_hash)
    assert tool("agents", "rekey", UUID, "--key", KEY, "--json").document["key"] == KEY
    assert tool("agents", "rekey", new_uuid()).status == 1


def test_audit_log_has_who_what_and_no_key(
    tool: Tool, state: Path, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    monkeypatch.setenv("SUDO_UID", "1234")
    monkeypatch.setattr("os.getuid", lambda: 0)
    tool("agents", "add", "b", "--uuid", UUID, "--key", KEY, "--group", "web")
    tool("agents", "rekey", UUID, "--key", KEY)
    first, second = audit()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    chained = {name: first.pop(name) for name in ("age", "prev", "sum")}
    assert (chained["age"], chained["prev"]) == (0, "")
    assert first == {
        "user": "alice",
        "uid": 0,
        "sudo_user": "alice",
        "sudo_uid": 1234,
        "action": "agents add",
        "object": UUID,
        "name": "b",
        "groups": ["web"],
    }
    assert second["action"] == "agents rekey"
    assert KEY not in (state / "audit.log").read_text()
    assert stat.S_IMODE((state / "audit.log").stat().st_mode) & 0o007 == 0


def test_nobody_but_root_can_claim_to_be_another(tool: Tool, audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    monkeypatch.setattr("os.getuid", lambda: 1)
    tool("agents", "add", "b")
    (entry,) = audit()
    assert entry["user"] != "alice"
    assert (entry["uid"], entry["sudo_user"]) == (1, "alice")


def test_a_change_that_cannot_be_written_down_is_not_made(tool: Tool, config: Config, state: Path) -> None:
    tool("agents", "add", "b", "--uuid", UUID, "--key", KEY)
    (state / "audit.log").unlink()
    (state / "audit.log").mkdir()
    for words in (("add", "c"), ("remove", UUID), ("rekey", UUID)):
        refused = tool("agents", *words)
        assert (refused.status, refused.out) == (1, "")
        assert refused.err == f"wazuh-comms: {state / 'audit.log'}: Is a directory\n"
    agent = stored(config, UUID)
    assert agent is not None
    assert key_matches(KEY, agent.key_hash)
    assert len(tool("agents", "list", "--json").document) == 1


def test_audit_entry_after_one_that_was_cut_off(tool: Tool, state: Path) -> None:
    tool("agents", "add", "a")
    with (state / "audit.log").open("a") as file:
        file.write('{"time":')
    tool("agents", "add", "b")
    lines = (state / "audit.log").read_text().splitlines()
    assert len(lines) == 3
    assert '"name": "b"' in lines[2]


def test_uuid_version_7() -> None:
    made = new_uuid(now=lambda: 0x0194857F39B5 / 1000)
    assert re.fullmatch(r"0194857f-39b[45]-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", made)
    assert new_uuid() != new_uuid()


def test_an_agents_text_makes_no_lines_of_its_own(tool: Tool, config: Config) -> None:
    forged = "endpoint\nstatus       active\x1b[2K"

    async def add() -> None:
        async with open_backends(config) as backends:
            await backends.agents.add(Agent(id=UUID, name=forged, key_hash="x", type=forged, version=forged))

    trio.run(add)
    assert len(tool("agents", "list").lines) == 2
    shown = tool("agents", "show", UUID)
    assert [line.split()[1] for line in shown.lines if line.startswith("status ")] == ["never"]
    assert "\x1b" not in shown.out
    assert len(tool("agents", "remove", UUID, "--yes").lines) <= 1


def test_a_names_blanks_forge_neither_a_name_nor_columns(tool: Tool) -> None:
    forged = ("web-1 ", " web-1", "web-1  never  db")
    for name in ("web-1", *forged):
        assert tool("agents", "add", name).status == 0
    shown = [line[38:].split("  ")[0] for line in tool("agents", "list", "--sort", "name").lines[1:]]
    assert sorted(shown) == sorted(("web-1", r"web-1\x20", r"\x20web-1", r"web-1 \x20never \x20db"))
    for agent in tool("agents", "list", "--json").document:
        assert tool("commands", "send", "--agent", agent["uuid"], "restart").status == 0
    named = [line.split()[2] for line in tool("commands", "list").lines[1:]]
    others = [agent["uuid"] for agent in tool("agents", "list", "--json").document if agent["name"] != "web-1"]
    assert sorted(named) == sorted(["web-1", *others])


def test_a_version_of_many_digits_is_sorted_like_any_other(tool: Tool, config: Config) -> None:
    versions = {"a": "6.0.10", "b": "v6.0.9", "c": "9" * 5000, "d": "6.0." + "1" * 5000}

    async def add() -> None:
        async with open_backends(config) as backends:
            for place, (name, version) in enumerate(versions.items()):
                await backends.agents.add(Agent(id=UUID[:-1] + str(place), name=name, key_hash="x", version=version))

    trio.run(add)
    listed = tool("agents", "list", "--sort", "version", "--json")
    assert [agent["name"] for agent in listed.document] == ["c", "d", "b", "a"]
