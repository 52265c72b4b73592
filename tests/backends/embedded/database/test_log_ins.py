"""Log-ins wait a moment for others' writes, so that they share a transaction."""

from __future__ import annotations

from pathlib import Path

from trio.testing import MockClock, wait_all_tasks_blocked

from wazuh_comms_trio.backends.embedded.agents import LOG_INS_WAIT, SqliteAgents
from wazuh_comms_trio.backends.embedded.stores import open_sqlite
from wazuh_comms_trio.backends.interfaces import Agent

IDS = [f"{number:08x}-39b5-7bfb-a7bc-c5c6835f03d1" for number in range(3)]


async def enrol(agents: SqliteAgents) -> None:
    for agent_id in IDS:
        await agents.add(Agent(agent_id, "a", "hash"))


async def last_log_ins(agents: SqliteAgents) -> list[float | None]:
    return [None if (agent := await agents.get(agent_id)) is None else agent.last_login for agent_id in IDS]


async def test_those_of_a_moment_are_written_at_its_end_in_one_transaction(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with open_sqlite(tmp_path) as stores:
        agents = stores.agents
        await enrol(agents)
        writes, transactions = agents._database.commits
        for number, agent_id in enumerate(IDS):
            await agents.record_login(agent_id, float(number))
            await wait_all_tasks_blocked()
        assert agents._database.commits == (writes, transactions)
        assert await last_log_ins(agents) == [None, None, None]
        written = agents._log_ins_written
        assert written is not None
        mock_clock.jump(LOG_INS_WAIT)
        await written.wait()
        assert agents._database.commits == (writes + 1, transactions + 1)
        assert await last_log_ins(agents) == [0.0, 1.0, 2.0]
        await agents.record_login(IDS[0], 9.0)  # the next moment
        await wait_all_tasks_blocked()
        mock_clock.jump(LOG_INS_WAIT)
        assert agents._log_ins_written is not None
        await agents._log_ins_written.wait()
        assert await last_log_ins(agents) == [9.0, 1.0, 2.0]


async def test_they_go_with_what_is_written_before(tmp_path: Path, mock_clock: MockClock) -> None:
    async with open_sqlite(tmp_path) as stores:
        await enrol(stores.agents)
        writes, transactions = stores.agents._database.commits
        await stores.agents.record_login(IDS[1], 5.0)
        await wait_all_tasks_blocked()
        await stores.agents.rekey(IDS[0], "another")
        assert stores.agents._database.commits == (writes + 2, transactions + 1)
        assert await last_log_ins(stores.agents) == [None, 5.0, None]


async def test_a_stop_loses_none(tmp_path: Path, mock_clock: MockClock) -> None:
    async with open_sqlite(tmp_path) as stores:
        await enrol(stores.agents)
        await stores.agents.record_login(IDS[2], 5.0)
    async with open_sqlite(tmp_path) as stores:
        assert await last_log_ins(stores.agents) == [None, None, 5.0]
