"""What is refused when the documents' quota, or an agent's share of it, is used up; and what never is."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import pytest

from tests.backends.embedded.quota.test_counting import ONE, OTHER, operation
from tests.contract.harness import INDEX, Clock
from wazuh_comms_trio.backends.document_rules import Document
from wazuh_comms_trio.backends.embedded.quota import limits
from wazuh_comms_trio.backends.embedded.quota.counting import keep_counting, used_by_all
from wazuh_comms_trio.backends.embedded.stores import SqliteStores, open_sqlite
from wazuh_comms_trio.backends.interfaces import Agent, DocumentOperation, Outcome
from wazuh_comms_trio.config.models import EmbeddedDocuments

pytestmark = pytest.mark.real_clock

#: Of ``operation``'s documents of 100 bytes.
EACH = 308


@asynccontextmanager
async def limited(folder: Path, documents: float, percent: float = 100, **more: bool) -> AsyncIterator[SqliteStores]:
    """Room for so many documents."""
    settings = EmbeddedDocuments(int(documents * EACH), percent)
    async with open_sqlite(folder, wall_clock=Clock(), documents=settings, **more) as stores:
        await keep_counting(stores.database)
        yield stores


def creates(agent_id: str, *numbers: int) -> list[DocumentOperation]:
    return [operation("create", f"{agent_id}_{number}") for number in numbers]


async def statuses(stores: SqliteStores, operations: list[DocumentOperation]) -> list[int]:
    results = await stores.events.bulk(operations)
    assert all((result.outcome is Outcome.FULL) == (result.status == 507) for result in results)
    return [result.status for result in results]


async def test_what_does_not_fit_is_refused_and_the_rest_is_taken(tmp_path: Path) -> None:
    async with limited(tmp_path, 3) as stores:
        assert await statuses(stores, creates(ONE, 1, 2, 3, 4, 5)) == [201, 201, 201, 507, 507]
        assert await stores.events.get(INDEX, f"{ONE}_3") is not None
        assert await stores.events.get(INDEX, f"{ONE}_4") is None
        assert await stores.events.usage() == (3 * EACH, 3 * EACH)
        assert await statuses(stores, creates(OTHER, 1)) == [507]


async def test_what_shrinks_deletes_or_changes_nothing_always_passes(tmp_path: Path) -> None:
    async with limited(tmp_path, 9) as stores:
        assert await statuses(stores, creates(ONE, 1, 2, 3)) == [201, 201, 201]
    async with limited(tmp_path, 1) as stores:  # the operator has lowered it
        assert await statuses(stores, creates(ONE, 1)) == [200]
        assert await statuses(stores, [operation("create", f"{ONE}_1", 101)]) == [507]
        assert await statuses(stores, [operation("create", f"{ONE}_1", 99)]) == [200]
        assert await statuses(stores, [operation("update", f"{ONE}_2", 98)]) == [200]
        assert await statuses(stores, [operation("update", f"{ONE}_2", 99)]) == [507]
        assert await statuses(stores, [operation("delete", f"{ONE}_2"), operation("delete", f"{ONE}_3")]) == [200, 200]
        assert await stores.events.usage() == (EACH - 1, EACH)
        assert await statuses(stores, [operation("create", f"{ONE}_1", 100)]) == [200]


async def test_what_is_deleted_makes_room_within_the_same_call(tmp_path: Path) -> None:
    async with limited(tmp_path, 2) as stores:
        assert await statuses(stores, creates(ONE, 1, 2)) == [201, 201]
        swap = [operation("create", f"{ONE}_3"), operation("delete", f"{ONE}_1"), operation("create", f"{ONE}_4")]
        assert await statuses(stores, swap) == [507, 200, 201]
        assert await statuses(stores, creates(ONE, 4, 3)) == [200, 507]


async def test_an_agent_has_its_share_and_the_others_have_theirs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with limited(tmp_path, 10, 20) as stores:
        for number in range(10):
            await stores.agents.add(Agent(f"0194857f-39b5-7bfb-a7bc-{number:012}", "a", "h"))
        with caplog.at_level(logging.WARNING):
            assert await statuses(stores, [*creates(ONE, 1, 2, 3), *creates(OTHER, 1)]) == [201, 201, 507, 201]
            assert await statuses(stores, creates(ONE, 4)) == [507]
        (near,) = await stores.events.near_share(0.8)
        assert (near.agent_id, near.used, near.share) == (ONE, 2 * EACH, 2 * EACH)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"documents: agent {ONE} has used up its share")


async def test_few_agents_have_an_even_part(tmp_path: Path) -> None:
    async with limited(tmp_path, 4, 10) as stores:
        for agent_id in (ONE, OTHER):
            await stores.agents.add(Agent(agent_id, "a", "h"))
        assert await statuses(stores, creates(ONE, 1, 2, 3)) == [201, 201, 507]


def test_each_agent_that_joins_is_counted_while_they_are_few() -> None:
    """The first alone may have everything, and what was counted then was believed for a minute."""
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE agents (id TEXT PRIMARY KEY)")
    connection.execute("CREATE TABLE document_usage (agent_id TEXT PRIMARY KEY, bytes INTEGER) WITHOUT ROWID")
    connection.execute("INSERT INTO document_usage VALUES (?, 500)", (ONE,))
    now = 0.0
    quota = limits.DocumentQuota(EmbeddedDocuments(1000, 10), own_ids=True, clock=lambda: now)
    shares = []
    for number in range(12):
        connection.execute("INSERT INTO agents VALUES (?)", (f"{number}",))
        now += 0.02
        shares += [near.share for near in quota.near_share(connection, 0.1)]
    assert shares == [1000, 500, 333, 250, 200, 166, 142, 125, 111, 100, 100, 100]


async def test_where_ids_say_nothing_of_agents_only_all_are_limited(tmp_path: Path) -> None:
    async with limited(tmp_path, 3, 1, own_ids=False) as stores:
        for agent_id in (ONE, OTHER):
            await stores.agents.add(Agent(agent_id, "a", "h"))
        assert await statuses(stores, creates(ONE, 1, 2, 3, 4)) == [201, 201, 201, 507]
        assert await stores.events.near_share(0.1) == []


async def test_a_large_call_is_refused_from_where_it_is_full(tmp_path: Path) -> None:
    big = [DocumentOperation("create", INDEX, f"{ONE}_{i}", b'{"a":"%b"}' % (b"x" * 100_000)) for i in range(20)]
    async with limited(tmp_path, 12 * (100_008 + 200) / EACH) as stores:
        assert await statuses(stores, big) == [201] * 12 + [507] * 8


async def test_two_processes_share_one_quota(tmp_path: Path) -> None:
    """Each believes its sum for a second; what it then finds counts."""
    async with limited(tmp_path, 10) as stores, limited(tmp_path, 10) as others:
        assert await statuses(stores, creates(ONE, *range(5))) == [201] * 5
        assert await statuses(others, creates(OTHER, *range(5))) == [201] * 5
        assert await statuses(stores, creates(ONE, *range(5, 11))) == [507] * 6
        assert await statuses(others, [operation("delete", f"{OTHER}_1")]) == [200]
        assert await statuses(stores, creates(ONE, 5, 6)) == [201, 507]


def test_a_quota_that_is_used_up_is_not_summed_with_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum of 10 000 agents takes milliseconds, in a transaction that all others wait for."""
    sums = 0

    def counted(connection: apsw.Connection) -> tuple[int, int]:
        nonlocal sums
        sums += 1
        return used_by_all(connection)

    monkeypatch.setattr(limits, "used_by_all", counted)
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE document_usage (agent_id TEXT PRIMARY KEY, bytes INTEGER) WITHOUT ROWID")
    rows = [(f"0194857f-39b5-7bfb-a7bc-{number:012}", EACH) for number in range(10_000)]
    connection.executemany("INSERT INTO document_usage VALUES (?, ?)", rows)
    now = 100.0
    quota = limits.DocumentQuota(EmbeddedDocuments(10_000 * EACH), own_ids=False, clock=lambda: now)
    create, document = operation("create", f"{ONE}_1"), Document(b"x" * 108, 1)
    for _ in range(10):
        now += 0.005
        room = quota.room_for(connection, [create])
        assert room is not None
        refusal = room.take(create.document_id, None, document)
        assert refusal is not None
        assert refusal.outcome is Outcome.FULL
    assert sums == 1
    # What the calls themselves take away and add is known meanwhile.
    assert room.take(f"{ONE}_2", document, None) is None
    room = quota.room_for(connection, [create, create])
    assert room is not None
    assert room.take(create.document_id, None, document) is None
    assert room.take(f"{ONE}_3", None, document) is not None
    assert sums == 1
    connection.execute("DELETE FROM document_usage WHERE agent_id < ?", (rows[100][0],))  # another process
    now += 0.1
    assert quota.room_for(connection, [create]) is None
    assert sums == 2


async def test_without_a_limit_nothing_is_counted(tmp_path: Path) -> None:
    async with limited(tmp_path, 1) as stores:
        await statuses(stores, creates(ONE, 1))
    async with open_sqlite(tmp_path, wall_clock=Clock(), documents=EmbeddedDocuments()) as stores:
        assert await statuses(stores, creates(ONE, 1, 2, 3)) == [200, 201, 201]
        assert await stores.events.usage() == (0, 0)
        assert await stores.events.near_share(0.8) == ()
