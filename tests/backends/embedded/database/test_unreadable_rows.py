"""Rows of ``state.db`` that something else wrote, or a disk changed: each costs at most itself."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contract.harness import A1, A2, Harness, open_embedded
from wazuh_comms_trio.backends.embedded import command_rows
from wazuh_comms_trio.backends.embedded.agents import _agent
from wazuh_comms_trio.backends.interfaces import Action, Command, CommandReport, CommandResult, Target
from wazuh_comms_trio.errors import DocumentUnreadable

pytestmark = pytest.mark.real_clock

DEEP = '{"a":' * 5000 + "1" + "}" * 5000
#: Column and value; what stands for itself in SQL.
BAD_COMMANDS = {
    "no json": ("body", "'{'"),
    "a list": ("body", "'[]'"),
    "no name": ("body", "'{}'"),
    "other types": ("body", """'{"name":1,"args":[]}'"""),
    "too deep": ("body", f"""'{{"name":"x","args":{DEEP}}}'"""),
    "no text": ("body", "CAST(x'ff7b' AS TEXT)"),
    "a blob": ("body", "x'7b7d'"),
    "a result that is none": ("result", "'[1]'"),
}
BAD_AGENTS = {
    "groups that are none": ("groups", "'[1'"),
    "groups of another type": ("groups", "'{}'"),
    "no text": ("host", "CAST(x'ff' AS TEXT)"),
    "a name that is none": ("name", "x'00'"),
    "a moment that is none": ("last_login", "'yesterday'"),
}


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    async with open_embedded(tmp_path) as opened:
        yield opened


def harm(folder: Path, table: str, row_id: str, change: tuple[str, str]) -> None:
    connection = apsw.Connection(str(folder / "state" / "state.db"))
    connection.set_busy_timeout(5000)
    connection.execute(f"UPDATE {table} SET {change[0]} = {change[1]} WHERE id = '{row_id}'")
    connection.close()


def named(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    return [line.split(" can't be read")[0] for line in lines if "can't be read" in line]


def command(document_id: str, agent_id: str = A1) -> Command:
    return Command(document_id, Target("agent", agent_id), Action("restart"))


@pytest.mark.parametrize("kind", BAD_COMMANDS)
async def test_a_command(harness: Harness, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    commands = harness.backends.commands
    await commands.add([command("bad"), command("sound"), command("other", A2)])
    harm(tmp_path, "commands", "bad", BAD_COMMANDS[kind])
    assert {each.document_id for each in await commands.list()} == {"sound", "other"}
    with pytest.raises(DocumentUnreadable) as caught:
        await commands.get("bad")
    assert caught.value.name == "state.db: commands/bad"
    assert "status=pending" in caught.value.text
    taken = [each.document_id for each in await commands.claim([A1, A2])]
    assert sorted(taken) == ["other", "sound"]
    await commands.mark_sent(taken)
    assert not await commands.claim([A1])
    assert set(named(caplog)) == {"state.db: commands/bad"}
    reported = await commands.report([CommandReport(A1, each, CommandResult(0, "done")) for each in ("bad", "sound")])
    assert [result.status for result in reported] == [200, 200]
    sound = await commands.get("sound")
    assert sound is not None
    assert sound.status == "success"


async def test_a_command_is_cancelled(harness: Harness, tmp_path: Path) -> None:
    commands = harness.backends.commands
    await commands.add([command("bad")])
    harm(tmp_path, "commands", "bad", BAD_COMMANDS["no text"])
    cancelled = await commands.cancel("bad")
    assert cancelled is not None
    assert cancelled.status == "failed"
    assert not await commands.claim([A1])


async def test_what_a_step_needs_may_be_unreadable_too(harness: Harness, tmp_path: Path) -> None:
    commands = harness.backends.commands
    await commands.add([command("bad"), command("sound")])
    await commands.claim([A1])
    harm(tmp_path, "commands", "bad", ("created_at", "'never'"))
    await commands.mark_sent(["sound"])
    reported = await commands.report([CommandReport(A1, each, CommandResult(0)) for each in ("bad", "sound")])
    assert [result.status for result in reported] == [400, 200]


async def test_pages_of_commands_have_all_that_can_be_read_and_name_the_others(
    harness: Harness, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The place of some in the order is damaged: of the newest, the oldest, and where a page ends."""
    commands = harness.backends.commands
    await commands.add([command(f"c{number:04}") for number in range(1203)])
    values = {"c0000": "'never'", "c0702": "x'00'", "c0703": "9e999", "c1202": "'1e5x'", "c0500": "-9e999"}
    for document_id, value in values.items():
        harm(tmp_path, "commands", document_id, ("created_at", value))
    unreadable = {"c0000", "c0702", "c1202"}
    for options in ({}, {"status": "pending"}, {"agent_id": A1}, {"children": False}):
        pages = [page async for page in commands.pages(**options)]
        found = [each.document_id for page in pages for each in page]
        assert len(found) == 1200
        assert set(found) == {f"c{number:04}" for number in range(1203)} - unreadable
        assert (found[0], found[-1]) == ("c0703", "c0500")
        assert max(map(len, pages)) <= 500
    assert set(named(caplog)) == {f"state.db: commands/{document_id}" for document_id in unreadable}


@pytest.mark.parametrize("kind", BAD_AGENTS)
async def test_an_agent(harness: Harness, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    agents = harness.backends.agents
    bad = await harness.enrol(A1, groups=("web",))
    sound = await harness.enrol(A2, groups=("web",))
    harm(tmp_path, "agents", A1, BAD_AGENTS[kind])
    for look in (agents.get, agents.lookup):
        with pytest.raises(DocumentUnreadable) as caught:
            await look(A1)
        assert "hash-1" not in caught.value.text
        assert await look(A2) == sound
    assert await agents.list() == [sound]
    assert A2 in await agents.members("web")
    assert await agents.revoked({A1: bad.fingerprint, A2: sound.fingerprint}) == []
    assert set(named(caplog)) == {f"state.db: agents/{A1}"}
    await harness.backends.commands.add([Command("c", Target("group", "web"), Action("restart"))])
    assert f"c_{A2}" in [each.document_id for each in await harness.backends.commands.claim([A1, A2])]
    assert await agents.remove(A1)
    assert await agents.get(A1) is None


columns = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=20) | st.binary(max_size=20)
objects = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(columns | objects.map(json.dumps), min_size=9, max_size=9))
def test_any_row_is_one_or_refused(row: list[Any]) -> None:
    for make in (command_rows.decode, _agent):
        try:
            made: Any = make(tuple(row))
        except (ValueError, RecursionError):
            continue
        assert row[0] in (getattr(made, "document_id", None), getattr(made, "id", None))
