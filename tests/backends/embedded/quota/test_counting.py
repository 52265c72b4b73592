"""What the file counts of each agent's documents, whoever writes to it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from tests.contract.harness import INDEX, Clock
from wazuh_comms_trio.backends.embedded.quota import counting
from wazuh_comms_trio.backends.embedded.quota.counting import (
    TRIGGERS,
    count_anew,
    count_some,
    keep_counting,
    start_counting,
    stop_counting,
    used_bytes,
    wrong_sums,
)
from wazuh_comms_trio.backends.embedded.stores import SqliteStores, open_sqlite
from wazuh_comms_trio.backends.interfaces import DocumentOperation
from wazuh_comms_trio.backup.verify import Finding, verify
from wazuh_comms_trio.config.models import CommunicationsApi, Config, Embedded, Ssl

pytestmark = pytest.mark.real_clock

ONE, OTHER = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1", "0194857f-39b5-7bfb-a7bc-c5c6835f03d2"


def operation(action: str, document_id: str, length: int = 100) -> DocumentOperation:
    body = None if action == "delete" else b'{"a":"%b"}' % (b"x" * length)
    return DocumentOperation(action, INDEX, document_id, body, own=True)  # type: ignore[arg-type]


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[SqliteStores]:
    async with open_sqlite(tmp_path, wall_clock=Clock()) as stores:
        yield stores


async def used(stores: SqliteStores, agent_id: str | None = None) -> int:
    return await stores.database.read(lambda connection: used_bytes(connection, agent_id))


async def test_each_write_is_counted(stores: SqliteStores) -> None:
    await keep_counting(stores.database)
    await stores.events.bulk([operation("create", f"{ONE}_a"), operation("create", f"{ONE}_b", 50)])
    assert await used(stores, ONE) == (108 + 200) + (58 + 200)
    await stores.events.bulk([operation("create", f"{ONE}_a", 300)])  # it replaces what is there
    assert await used(stores, ONE) == (308 + 200) + (58 + 200)
    await stores.events.bulk([operation("create", f"{ONE}_a", 300), operation("update", f"{ONE}_b", 10)])
    assert await used(stores, ONE) == (308 + 200) + (18 + 200)
    await stores.events.bulk([operation("create", f"{OTHER}_a"), operation("delete", f"{ONE}_a")])
    assert (await used(stores, ONE), await used(stores, OTHER), await used(stores)) == (218, 308, 526)
    await stores.events.bulk([operation("delete", f"{OTHER}_a")])
    assert (await used(stores, OTHER), await used(stores)) == (0, 218)


async def test_an_insert_that_does_nothing_counts_nothing(stores: SqliteStores) -> None:
    await keep_counting(stores.database)
    await stores.events.bulk([operation("create", f"{ONE}_{number}") for number in range(60)])
    before = await used(stores)
    results = await stores.events.bulk([operation("create", f"{ONE}_{number}") for number in range(30, 90)])
    assert [result.result for result in results] == ["noop"] * 30 + ["created"] * 30
    assert await used(stores) == before + 30 * 308


async def test_what_was_there_is_counted_while_others_write(
    stores: SqliteStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any write between any two steps: the sums are never too high, and right at the end."""
    monkeypatch.setattr(counting, "_ROWS", 7)
    rng = random.Random(5)
    ids = [f"{agent}_{number}" for agent in (ONE, OTHER, "x" * 36) for number in range(40)]
    await stores.events.bulk([operation("create", one, rng.randrange(300)) for one in ids])
    await stores.database.write(start_counting)
    steps = 0
    while await stores.database.write(count_some):
        steps += 1
        actions = rng.choices(["create", "update", "delete"], k=3)
        await stores.events.bulk([operation(each, rng.choice(ids), rng.randrange(300)) for each in actions])
        assert await used(stores) <= await stores.database.read(really_used)
        assert await stores.database.read(wrong_sums) is None
    assert steps > 10
    await stores.events.bulk([operation(rng.choice(["create", "delete"]), one, rng.randrange(300)) for one in ids])
    assert await used(stores) == await stores.database.read(really_used)
    assert await stores.database.read(wrong_sums) == 0


def really_used(connection: apsw.Connection) -> int:
    found = connection.execute("SELECT sum(length(body) + 200) FROM documents").get
    return found if isinstance(found, int) else 0


async def test_what_an_earlier_version_writes_is_counted(stores: SqliteStores) -> None:
    await keep_counting(stores.database)
    await stores.events.bulk([operation("create", f"{ONE}_a")])
    columns = "(no, index_no, id, version, changed_at, body)"
    statement = f"INSERT OR REPLACE INTO documents {columns} VALUES (?, 1, ?, 1, 1, ?)"

    def write(connection: apsw.Connection) -> None:
        connection.execute(statement, (1001, f"{ONE}_a", b"{}"))
        connection.execute(statement, (1002, f"{ONE}_b", b"{}"))
        connection.execute("UPDATE documents SET body = x'7b207d' WHERE no = 1002")

    await stores.database.write(write)
    assert await used(stores, ONE) == 202 + 203


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("ignored", [0, 1, 2, 3])
async def test_an_earlier_version_sees_what_was_not_created(stores: SqliteStores, ignored: int, counted: bool) -> None:
    """It takes all for created when there were as many changes, those of triggers included, as rows."""
    await stores.events.bulk([operation("create", f"{ONE}_{number}") for number in range(ignored)])
    await stores.database.write(start_counting)
    if counted:
        await keep_counting(stores.database)
    columns = "(no, index_no, id, version, changed_at, body)"
    statement = f"INSERT INTO documents {columns} VALUES (?, 1, ?, 1, 1, x'7b7d') ON CONFLICT DO NOTHING"

    def changes(connection: apsw.Connection) -> int:
        before = connection.total_changes()
        connection.executemany(statement, [(1000 + number, f"{ONE}_{number}") for number in range(3)])
        return connection.total_changes() - before

    assert await stores.database.write(changes) > 3


async def test_notes_that_are_missing_are_made_anew(stores: SqliteStores) -> None:
    await keep_counting(stores.database)
    await stores.database.write(
        lambda connection: connection.execute("DELETE FROM counters WHERE name LIKE 'documents_replaced%'").get
    )
    await stores.events.bulk([operation("create", f"{ONE}_a")])
    assert await stores.database.read(wrong_sums) == 1
    await stores.database.write(count_anew)
    await stores.events.bulk([operation("create", f"{ONE}_b")])
    assert await used(stores, ONE) == 2 * 308


async def test_off_it_costs_nothing_and_on_again_it_is_right(stores: SqliteStores) -> None:
    await keep_counting(stores.database)
    await stores.events.bulk([operation("create", f"{ONE}_a")])
    await stores.database.write(stop_counting)
    names = f"SELECT count(*) FROM sqlite_schema WHERE name IN ({', '.join('?' * len(TRIGGERS))})"
    assert await stores.database.read(lambda connection: connection.execute(names, TRIGGERS).get) == 0
    await stores.events.bulk([operation("create", f"{ONE}_b")])
    assert await used(stores) == 0
    await keep_counting(stores.database)
    assert await used(stores, ONE) == 2 * 308
    await keep_counting(stores.database)
    assert await used(stores, ONE) == 2 * 308


async def test_a_number_of_agents_without_documents_is_forgotten(stores: SqliteStores) -> None:
    await keep_counting(stores.database)
    await stores.events.bulk([operation("create", f"{ONE}_a"), operation("delete", f"{ONE}_a")])
    await stores.events.bulk([operation("create", f"{ONE}_a")])
    await stores.events.bulk([operation("delete", f"{ONE}_a")])
    await keep_counting(stores.database)
    rows = await stores.database.read(lambda connection: connection.execute("SELECT * FROM document_usage").fetchall())
    assert rows == []


async def test_sums_are_not_wrong_before_anything_is_counted(stores: SqliteStores) -> None:
    """Counted anew they would be counted twice."""
    await stores.events.bulk([operation("create", f"{ONE}_a")])
    await stores.database.write(start_counting)
    assert await stores.database.read(wrong_sums) is None


async def test_wrong_sums_are_found_and_repaired(stores: SqliteStores, tmp_path: Path) -> None:
    await keep_counting(stores.database)
    await stores.events.bulk([operation("create", f"{ONE}_a"), operation("create", f"{OTHER}_a")])
    config = Config(CommunicationsApi(Ssl(tmp_path, tmp_path), backend="embedded", embedded=Embedded(tmp_path)))

    def found(*, repair: bool = False) -> list[Finding]:
        return [each for each in verify(config, repair=repair) if each.place == "state.db"]

    assert found() == []
    for change in (
        "UPDATE document_usage SET bytes = bytes - 1",
        "DELETE FROM document_usage",
        "INSERT INTO document_usage VALUES ('nobody', 5)",
    ):
        await stores.database.write(lambda connection, change=change: connection.execute(change).get)  # type: ignore[misc]
        (finding,) = found()
        assert "of their documents" in finding.damage
        assert not finding.repaired
        (finding,) = found(repair=True)
        assert finding.repaired
        assert found() == []
    assert await used(stores, ONE) == 308
