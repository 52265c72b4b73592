"""Text in a row of ``state.db`` that is no UTF-8 any more: it costs its row, and nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest
import trio

from tests.contract.harness import A1, A2, A3, INDEX, Clock
from wazuh_comms_trio.backends.embedded.database.schema import check_usable, migrate
from wazuh_comms_trio.backends.embedded.database.text import texts
from wazuh_comms_trio.backends.embedded.documents import stored_documents
from wazuh_comms_trio.backends.embedded.pruning import DAY, Due, live_through, prune, prune_removed_agents
from wazuh_comms_trio.backends.embedded.state_schema import STATE
from wazuh_comms_trio.backends.embedded.stores import SqliteStores, open_sqlite
from wazuh_comms_trio.backends.embedded.unowned import unowned_documents
from wazuh_comms_trio.backends.interfaces import Action, Agent, Command, Target
from wazuh_comms_trio.backends.interfaces import DocumentOperation as Operation
from wazuh_comms_trio.backends.unavailable import StateForeign
from wazuh_comms_trio.config.models import Keep

pytestmark = pytest.mark.real_clock

COLUMNS = ("id", "target_type", "target_id", "status", "body", "result", "owner")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def stores(tmp_path: Path, clock: Clock) -> AsyncIterator[SqliteStores]:
    async with open_sqlite(tmp_path, wall_clock=clock) as opened:
        yield opened


def harm(folder: Path, table: str, column: str, rows: str, text: str = "ff6162") -> None:
    connection = apsw.Connection(str(folder / "state.db"))
    connection.set_busy_timeout(5000)
    connection.execute(f"UPDATE {table} SET {column} = CAST(x'{text}' AS TEXT) WHERE {rows}")
    assert connection.changes() == 1
    connection.close()


def command(document_id: str, agent_id: str, timeout: float = 1000) -> Command:
    return Command(document_id, Target("agent", agent_id), Action("restart"), timeout=timeout)


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("is_claimed", [True, False])
async def test_others_commands_come_and_end(
    stores: SqliteStores, clock: Clock, tmp_path: Path, column: str, is_claimed: bool
) -> None:
    commands = stores.commands
    await commands.add([command("bad", A1)])
    if is_claimed:
        await commands.claim([A1])
    harm(tmp_path, "commands", column, "id = 'bad'")
    await commands.add([command("late", A2, 1), command("good", A3)])
    with trio.fail_after(20):
        assert A3 in await commands.wait_news()
    clock.now += 10
    await commands.expire()
    late = await commands.get("late")
    assert late is not None
    assert late.status == "failed"
    assert [each.document_id for each in await commands.claim([A1, A2, A3])][-1] == "good"
    await commands.mark_sent(["good"])
    assert "good" in [each.document_id for each in await commands.list()]


@pytest.mark.parametrize("text", ["ff6162", "002f", "2e2e2f73746174652e6462"])
async def test_what_a_damaged_owner_has_is_free_and_leads_to_no_file(
    stores: SqliteStores, tmp_path: Path, text: str
) -> None:
    """The last one is ``../state.db``."""
    await stores.commands.add([command("c", A1)])
    await stores.commands.claim([A1])
    harm(tmp_path, "commands", "owner", "id = 'c'", text)
    await stores.commands.expire()
    assert [each.document_id for each in await stores.commands.claim([A1])] == ["c"]
    assert (tmp_path / "state.db").exists()


async def test_a_group_has_its_other_members(stores: SqliteStores, tmp_path: Path) -> None:
    for agent_id in (A1, A2):
        await stores.agents.add(Agent(agent_id, "name", "h", groups=("web",)))
    harm(tmp_path, "agents", "id", f"id = '{A1}'")
    assert await stores.agents.members("web") == await stores.agents.members("all") == [A2]
    assert await stores.agents.named("name") == [A2]
    await stores.commands.add([Command("g", Target("group", "web"), Action("restart"))])
    assert [each.document_id for each in await stores.commands.claim([A2])] == [f"g_{A2}"]


async def test_other_removed_agents_documents_go(stores: SqliteStores, tmp_path: Path) -> None:
    for agent_id in (A1, A2):
        await stores.agents.add(Agent(agent_id, "x", "h"))
        await stores.events.bulk([Operation("create", INDEX, f"{agent_id}_1", b"{}")])
        await stores.agents.remove(agent_id)
    harm(tmp_path, "removed_agents", "id", f"id = '{A1}'")
    await stores.database.write(lambda connection: live_through(connection, 1_750_000_000, 31 * DAY))
    assert await prune(stores.database, Keep()) == Due(documents_of_removed_agents=1)
    assert await stores.events.get(INDEX, f"{A2}_1") is None
    assert not await prune(stores.database, Keep())


async def test_one_that_stands_out_of_order_stops_no_pruning(tmp_path: Path) -> None:
    """As a disk damages it: nobody moves the row to where its id would be looked for."""
    removed = [f"{number}0000000-0000-0000-0000-000000000000" for number in range(5)]
    async with open_sqlite(tmp_path) as stores:
        for agent_id in removed:
            await stores.agents.add(Agent(agent_id, "x", "h"))
            await stores.agents.remove(agent_id)
        await stores.database.write(lambda connection: live_through(connection, 1_750_000_000, 31 * DAY))
    _damage_file(tmp_path / "state.db", removed[2].encode(), b"\xff" + removed[2].encode()[1:])
    async with open_sqlite(tmp_path) as stores:
        for _ in range(len(removed)):
            await stores.database.write(lambda connection: prune_removed_agents(connection, Keep()))
        assert not await stores.database.write(lambda connection: prune_removed_agents(connection, Keep()))


def _damage_file(path: Path, text: bytes, damaged: bytes) -> None:
    data = path.read_bytes()
    assert text in data
    path.write_bytes(data.replace(text, damaged))


def test_one_that_is_null_where_there_can_be_none() -> None:
    connection = apsw.Connection(":memory:")
    assert texts(connection.execute("SELECT NULL UNION ALL SELECT CAST('a' AS BLOB)")) == ["a"]


async def test_documents_are_shown_and_counted_behind_one(stores: SqliteStores, tmp_path: Path) -> None:
    ids = (f"{A1}_1", "b", f"{A2}_1")
    await stores.events.bulk([Operation("create", INDEX, document_id, b"{}") for document_id in ids])
    harm(tmp_path, "documents", "id", "id = 'b'", "30ff")
    shown = await stores.database.read(stored_documents)
    assert [each.document_id for each in shown] == [ids[0], "0\\xff", ids[2]]
    assert await stores.database.read(unowned_documents) == {A1: 1, A2: 1}
    harm(tmp_path, "indices", "name", "no = 1")
    assert {each.index for each in await stores.database.read(stored_documents)} == {"\\xffab"}


async def test_what_was_told_of_silence_begins_anew(stores: SqliteStores, tmp_path: Path) -> None:
    await stores.presence.keep_watch("", "{}")
    harm(tmp_path, "presence_watch", "state", "no = 1")
    assert await stores.presence.take_watch("", 0.0, 1.0) == "\ufffdab"


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM compatibility",
        "UPDATE compatibility SET usable_since = x'00'",
        "UPDATE compatibility SET usable_since = CAST(x'ff' AS TEXT)",
    ],
)
def test_a_later_version_that_says_nothing_of_itself_is_left_alone(damage: str) -> None:
    connection = apsw.Connection(":memory:")
    migrate(connection, STATE)
    connection.execute(f"PRAGMA user_version = 99; {damage}")
    with pytest.raises(StateForeign, match="written by a newer version"):
        check_usable(connection, STATE)
