"""Large commands that wait for many agents: a claim has no more of them in memory than a reply may have, or one."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from random import Random

import pytest
import trio

from tests.services.bench import A1, A2, agent, caller
from wazuh_comms_trio.backends.embedded.command_rows import CLAIM_BYTES
from wazuh_comms_trio.backends.embedded.stores import SqliteStores, open_sqlite
from wazuh_comms_trio.backends.interfaces import Action, Command, CommandReport, CommandResult, Target
from wazuh_comms_trio.services.commands.dispatcher import CommandDispatcher

pytestmark = pytest.mark.real_clock

PER_CLAIM = 2
#: In the order in which they are stored, and claimed.
WHOSE = {"a": A1, "b": A1, "c": A2, "d": A1, "e": A2}


async def store_large(stores: SqliteStores) -> None:
    for document_id, agent_id in WHOSE.items():
        args = {"x": document_id * (CLAIM_BYTES // PER_CLAIM)}
        large = Command(document_id, Target("agent", agent_id), Action("restart", args=args), timeout=1000)
        await stores.commands.add([large])


async def test_a_claim_is_as_large_as_a_reply_and_the_rest_is_news(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path) as stores:
        await store_large(stores)
        await stores.commands.wait_news()
        assert [each.document_id for each in await stores.commands.claim([A1, A2])] == ["a", "b"]
        reports = [CommandReport(A2, "c", CommandResult(0)), CommandReport(A1, "b", CommandResult(0))]
        assert [result.status for result in await stores.commands.report(reports)] == [400, 200]  # not offered, offered
        for expected in (["c", "d"], ["e"]):
            with trio.fail_after(20):
                news = await stores.commands.wait_news()
            assert news == {WHOSE[document_id] for document_id in "cde" if document_id >= expected[0]}
            assert [each.document_id for each in await stores.commands.claim(news)] == expected
        assert not await stores.commands.claim([A1, A2])


@pytest.mark.parametrize("value", [[], {}, 1.5, "ab", [[]]], ids=repr)
async def test_many_values_are_counted_as_what_they_take(tmp_path: Path, value: object) -> None:
    count = CLAIM_BYTES // len(json.dumps([value])) // 10
    async with open_sqlite(tmp_path) as stores:
        for number in range(30):
            args = {"i": number, "x": [value] * count}
            large = Command(f"d{number}", Target("agent", A1), Action("restart", args=args), timeout=1000)
            await stores.commands.add([large])
        await stores.commands.wait_news()
        tracemalloc.start()
        try:
            claimed = await stores.commands.claim([A1])
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert claimed
        assert held < 3 * CLAIM_BYTES  # the last one makes it more than may be


async def test_all_come_to_their_agents(tmp_path: Path) -> None:
    got: dict[str, list[str]] = {A1: [], A2: []}
    async with open_sqlite(tmp_path) as stores, trio.open_nursery() as nursery:
        for agent_id in got:
            await stores.agents.add(agent(agent_id))
        await store_large(stores)
        dispatcher = CommandDispatcher(
            stores.commands, stores.agents, poll_timeout=60, wall_clock=lambda: 1000.0, rng=Random(0)
        )
        await nursery.start(dispatcher.run)

        async def poll(agent_id: str) -> None:
            while len(got[agent_id]) < list(WHOSE.values()).count(agent_id):
                delivery = await dispatcher.poll(caller(agent_id), deadline=trio.current_time() + 60)
                assert delivery is not None
                got[agent_id] += [each.document_id for each in delivery.commands]
                await delivery.confirm()

        with trio.fail_after(20):
            async with trio.open_nursery() as polls:
                for agent_id in got:
                    polls.start_soon(poll, agent_id)
        dispatcher.close()
    assert got == {A1: ["a", "b", "d"], A2: ["c", "e"]}
