"""What goes with age, what never does, and by which clock."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest
import trio

from tests.contract.harness import A1, A2, INDEX, Clock
from wazuh_comms_trio.backends.embedded import pruning
from wazuh_comms_trio.backends.embedded.pruning import (
    DAY,
    Due,
    age_of,
    due,
    live_through,
    note_documents,
    note_ends,
    prune,
    run_pruning,
)
from wazuh_comms_trio.backends.embedded.stores import SqliteStores, open_sqlite
from wazuh_comms_trio.backends.interfaces import Action, Agent, Command, CommandReport, CommandResult, Target
from wazuh_comms_trio.backends.interfaces import DocumentOperation as Operation
from wazuh_comms_trio.config.models import Keep

pytestmark = pytest.mark.real_clock

KEEP = Keep()


@pytest.fixture
async def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqliteStores]:
    monkeypatch.setattr(pruning, "PAUSE", 0.0)
    async with open_sqlite(tmp_path, wall_clock=Clock()) as opened:
        yield opened


async def live(stores: SqliteStores, days: float) -> None:
    """The daemon runs for so long, and looks."""

    def look(connection: apsw.Connection) -> None:
        while note_ends(connection):
            pass
        note_documents(connection)
        live_through(connection, 1_750_000_000, days * DAY)

    await stores.database.write(look)


async def create(stores: SqliteStores, *ids: str) -> None:
    await stores.events.bulk([Operation("create", INDEX, document_id, b"{}") for document_id in ids])


async def there(stores: SqliteStores, *ids: str) -> list[bool]:
    return [await stores.events.get(INDEX, document_id) is not None for document_id in ids]


async def test_finished_commands_go_after_their_days(stores: SqliteStores) -> None:
    await stores.agents.add(Agent(A1, "one", key_hash="h"))
    for name in ("ended", "waits"):
        await stores.commands.add([Command(name, Target("agent", A1), Action("restart"), timeout=1e9)])
    (claimed, _) = await stores.commands.claim([A1])
    await stores.commands.mark_sent([claimed.document_id])
    await stores.commands.report([CommandReport(A1, "ended", CommandResult(0))])
    await live(stores, 90)
    assert await prune(stores.database, KEEP) == Due(commands=1)
    assert await stores.commands.get("ended") is None
    assert await stores.commands.get("waits") is not None
    await live(stores, 900)
    assert not await prune(stores.database, KEEP)


async def test_a_command_that_ended_a_day_too_late_stays(stores: SqliteStores) -> None:
    await stores.commands.add([Command("c", Target("agent", A1), Action("restart"))])
    await live(stores, 50)
    await stores.commands.cancel("c")
    await live(stores, 89.9)
    assert not await prune(stores.database, KEEP)
    await live(stores, 0.2)
    assert not await prune(stores.database, Keep(finished_commands=0))
    assert await prune(stores.database, KEEP) == Due(commands=1)


async def test_a_command_whose_end_was_taken_back_has_its_days_from_the_next_one_on(stores: SqliteStores) -> None:
    """It had failed for want of an answer; its agent began late, and ended later."""
    await stores.agents.add(Agent(A1, "one", key_hash="h"))
    await stores.commands.add([Command("c", Target("agent", A1), Action("restart"), timeout=0.0)])
    await stores.commands.claim([A1])
    await stores.commands.mark_sent(["c"])
    await stores.database.write(lambda connection: connection.execute("UPDATE commands SET status = 'failed'"))
    await live(stores, 89.9)
    for code, days in ((2, 0.2), (0, 89.8)):
        await stores.commands.report([CommandReport(A1, "c", CommandResult(code))])
        await live(stores, days)
        assert not await prune(stores.database, KEEP)
    await live(stores, 0.2)
    assert await prune(stores.database, KEEP) == Due(commands=1)


async def test_documents_of_a_removed_agent(stores: SqliteStores) -> None:
    for agent_id in (A1, A2):
        await stores.agents.add(Agent(agent_id, "x", key_hash="h"))
    own = [f"{A1}_{number}" for number in range(250)]
    others = [f"{A2}_1", f"{A1}x_1", A1, "_1", f"x{A1}_1"]
    await create(stores, *own, *others)
    await stores.agents.remove(A1)
    await live(stores, 29.9)
    assert not await prune(stores.database, KEEP)
    await live(stores, 0.2)
    assert await prune(stores.database, KEEP) == Due(documents_of_removed_agents=250)
    assert not any(await there(stores, *own))
    assert all(await there(stores, *others))
    assert not await prune(stores.database, KEEP)


async def test_never_when_its_uuid_is_back(stores: SqliteStores) -> None:
    await stores.agents.add(Agent(A1, "x", key_hash="h"))
    await create(stores, f"{A1}_1")
    await stores.agents.remove(A1)
    await live(stores, 31)
    assert await stores.database.read(lambda connection: due(connection, KEEP)) == Due(documents_of_removed_agents=1)
    await stores.agents.add(Agent(A1, "back", key_hash="h"))
    assert not await prune(stores.database, KEEP)
    assert await there(stores, f"{A1}_1") == [True]
    await stores.agents.remove(A1)
    await live(stores, 29)
    assert not await prune(stores.database, KEEP)  # counted anew


async def test_documents_only_when_told(stores: SqliteStores) -> None:
    await create(stores, "old", "changed")
    for _ in range(12):
        await live(stores, 1)
    await stores.events.bulk([Operation("update", INDEX, "changed", b'{"n":1}')])
    await create(stores, "new")
    for _ in range(2):
        await live(stores, 1)
    assert not await prune(stores.database, KEEP)
    assert await prune(stores.database, Keep(documents=10)) == Due(documents=1)
    assert await there(stores, "old", "changed", "new") == [False, True, True]


async def test_nothing_in_the_first_day(stores: SqliteStores) -> None:
    await stores.agents.add(Agent(A1, "x", key_hash="h"))
    await create(stores, f"{A1}_1")
    await stores.agents.remove(A1)
    await stores.database.write(lambda connection: connection.execute("UPDATE removed_agents SET age = -9999999").get)
    await live(stores, 0.99)
    assert not await prune(stores.database, KEEP)
    await live(stores, 0.02)
    assert await prune(stores.database, KEEP)


async def test_a_clock_that_jumps_makes_nothing_old(stores: SqliteStores) -> None:
    async def look(now: float, lived: float | None) -> int:
        await stores.database.write(lambda connection: live_through(connection, now, lived))
        return await stores.database.read(age_of)

    assert await look(1e9, None) == 0
    assert await look(1e9 + 600, 600) == 600
    assert await look(5e9, 600) == 1200  # years ahead, while it runs
    assert await look(5e9 + 10**9, None) == 1200 + DAY  # ... and while it was stopped
    assert await look(1e9, None) == 1200 + DAY  # back
    assert await look(1e9 + 3600, None) == 1200 + DAY + 3600


async def test_the_daemon_prunes_and_announces(
    stores: SqliteStores, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, logger=pruning.__name__)
    monkeypatch.setattr(pruning, "INTERVAL", 0.01)
    await stores.commands.add([Command("c", Target("agent", A1), Action("restart"))])
    await stores.commands.cancel("c")
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_pruning, stores.database, KEEP, Clock(), None)
            while not caplog.records:  # noqa: ASYNC110  # a log announces nothing
                await trio.sleep(0.01)
            assert "deletes nothing for a day" in caplog.records[0].getMessage()
            assert "commands that have ended after 90 days" in caplog.records[0].getMessage()
            await stores.database.write(lambda connection: live_through(connection, 0.0, 91 * DAY))
            while await stores.commands.get("c") is not None:  # noqa: ASYNC110
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()


async def test_writers_go_on_meanwhile(stores: SqliteStores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows go in small steps: what is written meanwhile waits for one of them at most."""
    await stores.agents.add(Agent(A1, "x", key_hash="h"))
    await create(stores, *(f"{A1}_{number}" for number in range(1000)))
    await stores.agents.remove(A1)
    await live(stores, 31)
    monkeypatch.setattr(pruning, "PAUSE", 0.2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(prune, stores.database, KEEP)
        while (await there(stores, f"{A1}_0")) == [True]:  # noqa: ASYNC110  # a database announces nothing
            await trio.sleep(0.01)
        await create(stores, "meanwhile")
        assert await there(stores, f"{A1}_999") == [True]
        monkeypatch.setattr(pruning, "PAUSE", 0.0)
    assert await there(stores, f"{A1}_999", "meanwhile") == [False, True]
