"""Which agents are read again after a change: those that it concerned, in whatever process it was made."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import pytest

from wazuh_comms_trio.backends.embedded import agents as sqlite_agents
from wazuh_comms_trio.backends.embedded.agents import SqliteAgents
from wazuh_comms_trio.backends.embedded.state_schema import CHANGES_KEPT
from wazuh_comms_trio.backends.embedded.stores import open_sqlite
from wazuh_comms_trio.backends.interfaces import Action, Agent, Command, Target

pytestmark = pytest.mark.real_clock

COUNT = 100
IDS = [f"{number:08x}-39b5-7bfb-a7bc-c5c6835f03d1" for number in range(COUNT)]


@asynccontextmanager
async def fleet(folder: Path) -> AsyncIterator[tuple[SqliteAgents, SqliteAgents]]:
    """One process's registry, which knows all agents, and another process's."""
    async with open_sqlite(folder) as one, open_sqlite(folder) as other:
        for agent_id in IDS:
            await other.agents.add(Agent(agent_id, "a", f"hash of {agent_id}"))
        for agent_id in IDS:
            assert await one.agents.lookup(agent_id) is not None
        await one.agents.changed()
        yield one.agents, other.agents


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the agents that were read from the file."""
    read: list[str] = []
    select = sqlite_agents._select

    def noted(connection: apsw.Connection, agent_id: str) -> Agent | None:
        read.append(agent_id)
        return select(connection, agent_id)

    monkeypatch.setattr(sqlite_agents, "_select", noted)
    return read


async def look_at_all(agents: SqliteAgents) -> dict[str, Agent | None]:
    return {agent_id: await agents.lookup(agent_id) for agent_id in IDS}


async def test_a_change_costs_its_agent_alone(tmp_path: Path, reads: list[str]) -> None:
    async with fleet(tmp_path) as (here, there):
        await there.rekey(IDS[3], "another")
        await there.set_groups(IDS[5], ["web"])
        await there.remove(IDS[7])
        await there.add(Agent(IDS[7], "a", "enrolled anew"))
        await there.add(Agent("new", "a", "hash"))
        await here.rekey(IDS[9], "by this process")
        reads.clear()
        found = await look_at_all(here)
        assert sorted(reads) == [IDS[3], IDS[5], IDS[7], IDS[9]]
        assert [found[IDS[number]].key_hash for number in (3, 7, 9)] == ["another", "enrolled anew", "by this process"]  # type: ignore[union-attr]
        assert found[IDS[5]].groups == ("web",)  # type: ignore[union-attr]
        assert await here.changed() == {IDS[3], IDS[5], IDS[7], IDS[9]}
        assert await here.changed() == set()


async def test_what_is_known_at_once_follows_every_process(tmp_path: Path, reads: list[str]) -> None:
    async with fleet(tmp_path) as (here, there):
        reads.clear()
        known = here.known(IDS[3].upper())
        assert known is not None
        assert known.key_hash == f"hash of {IDS[3]}"
        await there.rekey(IDS[3], "another")
        await there.remove(IDS[7])
        assert here.known(IDS[3]) is here.known(IDS[7]) is None
        assert here.known(IDS[4]) is not None
        assert reads == []
        assert await here.lookup(IDS[3]) is here.known(IDS[3]) is not None


def out_of_memory(connection: apsw.Connection) -> None:
    raise MemoryError


async def test_nothing_is_known_at_once_of_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """What is wrong with it is for ``lookup`` to say."""
    async with fleet(tmp_path) as (here, _):
        assert here._database.read_at_once(out_of_memory) is None
        reader = here._database._connections.loop_reader
        assert reader is not None
        reader.close()
        assert here.known(IDS[3]) is None


async def test_log_ins_events_and_commands_change_no_agent(tmp_path: Path, reads: list[str]) -> None:
    async with fleet(tmp_path) as (here, there), open_sqlite(tmp_path) as stores:
        await there.record_login(IDS[0], 1.0)
        await there.rekey("nobody", "x")
        await stores.commands.add([Command("c", Target("agent", IDS[1]), Action("restart"), created_at=1.0)])
        reads.clear()
        await look_at_all(here)
        assert reads == []
        assert await here.changed() == set()


async def test_a_delivered_set_group_changes_its_agent(tmp_path: Path, reads: list[str]) -> None:
    async with fleet(tmp_path) as (here, _), open_sqlite(tmp_path) as stores:
        order = Command("c", Target("agent", IDS[1]), Action("set-group", args={"groups": ["db"]}))
        await stores.commands.add([order])
        await stores.commands.mark_sent([one.document_id for one in await stores.commands.claim([IDS[1]])])
        reads.clear()
        found = await look_at_all(here)
        assert reads == [IDS[1]]
        assert found[IDS[1]].groups == ("db",)  # type: ignore[union-attr]


async def test_too_many_changes_are_all_agents(tmp_path: Path, reads: list[str]) -> None:
    """What the file doesn't remember any more costs a look at everybody, and nobody is forgotten."""
    async with fleet(tmp_path) as (here, there):
        await there.rekey(IDS[3], "another")

        def churn(connection: apsw.Connection) -> None:
            for number in range(CHANGES_KEPT):
                connection.execute("UPDATE agents SET version = ? WHERE id = ?", (str(number), IDS[5]))

        await there._database.write(churn)
        kept = await there._database.read(
            lambda connection: connection.execute("SELECT count(*) FROM agent_changes").get
        )
        assert kept == CHANGES_KEPT
        reads.clear()
        found = await look_at_all(here)
        assert sorted(reads) == IDS
        assert found[IDS[3]].key_hash == "another"  # type: ignore[union-attr]
        assert await here.changed() is None
        assert await here.changed() == set()


async def test_a_file_that_is_opened_again_is_read_again(tmp_path: Path, reads: list[str]) -> None:
    """It may be another one, with as many changes."""
    async with fleet(tmp_path) as (here, _):
        reads.clear()
        connections = here._database._connections
        old = connections.loop_reader
        assert old is not None
        connections.loop_reader = apsw.Connection(str(here._database.path))
        old.close()
        await look_at_all(here)
        assert sorted(reads) == IDS
        assert await here.changed() is None


async def test_more_agents_than_are_remembered(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come round and round: each round reads some of them again, never all."""
    monkeypatch.setattr(sqlite_agents, "AGENTS_REMEMBERED", COUNT * 4 // 5)
    random.seed(1)
    async with fleet(tmp_path) as (here, _):
        await look_at_all(here)
        reads.clear()
        for _ in range(5):
            await look_at_all(here)
        assert COUNT // 5 < len(reads) / 5 < COUNT * 3 // 5
