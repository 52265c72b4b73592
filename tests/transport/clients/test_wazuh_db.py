"""wazuh-db: what its answers mean, pages, streamed rows, sessions."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from attrs import frozen

from wazuh_comms_trio.errors import (
    AnswerCut,
    AnswerInvalid,
    NotSynchronized,
    PayloadTooLarge,
    WazuhError,
    WazuhInternalError,
)
from wazuh_comms_trio.testing import Answer, FakeDaemon, Frames, Oddities, WazuhDBModel, open_fake_daemon
from wazuh_comms_trio.transport import WazuhDB, open_wazuh_db
from wazuh_comms_trio.wire.wdb_paging import next_page


@frozen
class Package:
    name: str


@pytest.fixture
def model() -> WazuhDBModel:
    model = WazuhDBModel(page_rows=10)
    for number in range(1, 36):
        status = "active" if number % 2 else "disconnected"
        groups = ("default", "web") if number > 30 else ("default",)
        model.add_agent(number, f"agent-{number}", groups=groups, connection_status=status)
    model.packages[1] = [{"name": f"package-{number}", "vendor": None, "size": number} for number in range(600)]
    return model


async def test_one_answer(db: WazuhDB) -> None:
    assert await db.query("global insert-agent-group new") is None
    assert await db.query("global find-group default") == [{"id": 1}]
    rows = await db.query("global get-agent-info 7")
    assert rows[0]["name"] == "agent-7"
    assert "os_name" not in rows[0], "NULL columns are absent"


async def test_error_answers_are_exceptions_with_the_daemons_text(db: WazuhDB) -> None:
    with pytest.raises(WazuhError) as caught:
        await db.query("global sql SELEC 1")
    assert caught.value.code == 1014
    assert caught.value.message.startswith("Cannot execute SQL query")
    with pytest.raises(WazuhError, match="Invalid DB query actor: nobody"):
        await db.query("nobody there")


async def test_json_requests(db: WazuhDB) -> None:
    assert await db.query({"version": 1, "command": "getstats", "parameters": {}}) == {
        "name": "wazuh-db",
        "metrics": {"queries": {"received": 0}},
    }


async def test_decoded_into_a_type(db: WazuhDB) -> None:
    @frozen
    class Agent:
        id: int
        name: str
        os_name: str | None = None  # NULL columns are absent, so they need a default

    agents = await db.query("global sql SELECT id, name, os_name FROM agent ORDER BY id LIMIT 2", type=list[Agent])
    assert agents == [Agent(1, "agent-1"), Agent(2, "agent-2")]
    with pytest.raises(AnswerInvalid):
        await db.query("global sql SELECT id FROM agent LIMIT 1", type=list[Agent])


@pytest.mark.parametrize("query", ["global get-all-agents", "global get-all-agents last_id 0"])
async def test_query_collects_all_pages(db: WazuhDB, query: str) -> None:
    assert await db.query(query) == [{"id": number} for number in range(1, 36)]


async def test_pages(db: WazuhDB, database: FakeDaemon) -> None:
    pages = [page async for page in db.pages("global get-all-agents last_id {last_id}")]
    assert [len(page) for page in pages] == [10, 10, 10, 5]
    assert database.requests == [f"global get-all-agents last_id {last}".encode() for last in (0, 10, 20, 30)]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("global get-agents-by-connection-status 0 active", 18),
        ("global get-group-agents default last_id 0", 35),
        ("global get-group-agents web", 5),
        ("global get-group-agents nobody", 0),
    ],
)
async def test_every_form_of_paging(db: WazuhDB, query: str, count: int) -> None:
    assert len(await db.query(query)) == count
    assert len([item for page in [page async for page in db.pages(query)] for item in page]) == count


async def test_pages_of_wrapped_rows(db: WazuhDB) -> None:
    pages = [page async for page in db.pages("global sync-agent-info-get last_id 0")]
    assert [len(page[0]["data"]) for page in pages] == [10, 10, 10, 5]


async def test_pages_end_as_an_iterator_does(db: WazuhDB) -> None:
    pages = db.pages("global get-group-agents web")
    assert [page async for page in pages] == [[31, 32, 33, 34, 35]]
    assert [page async for page in pages] == []


async def test_pages_left_early_hold_nothing(db: WazuhDB) -> None:
    async for _ in db.pages("global get-all-agents"):
        break
    gc.collect()
    assert db.statistics().in_use == 0


async def test_pages_that_do_not_move_on(db: WazuhDB, database: FakeDaemon) -> None:
    database.set_answer(lambda request: 'due [{"id":5}]')
    with pytest.raises(AnswerInvalid, match="ends where it began"):
        await collect(db.pages("global get-all-agents"), [])
    database.set_answer(lambda request: "due []")
    with pytest.raises(AnswerInvalid, match="no id to go on from"):
        await db.query("global get-all-agents")


async def test_pages_by_another_key(db: WazuhDB, database: FakeDaemon) -> None:
    database.set_answer(['due [{"hash":"aa"},{"hash":"bb"}]', 'ok [{"hash":"cc"}]'])
    query = "global get-distinct-groups {last_id}"
    pages = [page async for page in db.pages(query, last_id=lambda page: page[-1]["hash"])]
    assert len(pages) == 2
    assert database.requests[-1] == b"global get-distinct-groups bb"


async def test_page_cancelled_is_asked_for_again(
    db: WazuhDB, database: FakeDaemon, autojump_clock: trio.testing.MockClock
) -> None:
    pages = db.pages("global get-all-agents")
    assert len(await anext(pages)) == 10
    database.set_oddities(silent=True)
    with trio.move_on_after(1):
        await anext(pages)
    database.set_oddities(silent=False)
    assert (await anext(pages))[0] == {"id": 11}


async def test_streamed_rows(db: WazuhDB, database: FakeDaemon) -> None:
    rows = [row async for row in db.rows("agent 001 package get")]
    assert len(rows) == 600
    assert rows[0] == {"name": "package-0", "size": 0}
    assert (db.statistics().in_use, db.statistics().idle) == (0, 0), "that connection isn't used again"
    assert database.requests == [b"agent 001 package get"]
    assert await db.query("global find-group default") == [{"id": 1}]


async def test_query_collects_streamed_rows(db: WazuhDB, database: FakeDaemon) -> None:
    assert len(await db.query("agent 001 package get")) == 600
    found = await db.query("agent 001 package get", type=list[Package])
    assert (len(found), found[-1]) == (600, Package("package-599"))
    database.set_answer([Frames(['ok {"status":"SUCCESS"}'], streamed=True)])
    assert await db.query("agent 001 package get") == []


async def test_an_agent_that_was_never_synchronized_has_no_empty_list(db: WazuhDB, database: FakeDaemon) -> None:
    with pytest.raises(NotSynchronized, match="Error 1014"):
        await db.query("agent 002 package get")
    with pytest.raises(NotSynchronized):
        await anext(db.rows("agent 002 package get"))
    database.set_answer([Frames(['ok {"status":"BROKEN"}'], streamed=True)])
    with pytest.raises(AnswerInvalid, match="BROKEN"):
        await db.query("agent 001 package get")
    assert db.statistics().in_use == 0


async def test_text_that_is_not_utf_8(database: FakeDaemon) -> None:
    answer = b'ok [{"name":"caf\xe9"}]'
    database.set_answer([answer] * 3)
    async with open_wazuh_db(connect=database.connect) as db:
        assert await db.query("global sql x") == [{"name": "caf\ufffd"}]
        assert await db.pool.request(b"global sql x") == answer
    async with open_wazuh_db(connect=database.connect, text_errors="strict") as db:
        with pytest.raises(AnswerInvalid, match="isn't UTF-8"):
            await db.query("global sql x")


async def test_rows_left_early_in_a_with_block(db: WazuhDB) -> None:
    async with db.rows("agent 001 package get") as rows:
        async for row in rows:
            assert row["size"] == 0
            break
    assert (db.statistics().in_use, db.statistics().requests, db.statistics().given_up) == (0, 1, 1)
    assert [row async for row in rows] == []


async def test_rows_forgotten(db: WazuhDB) -> None:
    async for _ in db.rows("agent 001 package get"):
        break
    gc.collect()
    await trio.testing.wait_all_tasks_blocked()
    assert (db.statistics().in_use, db.statistics().given_up) == (0, 1)


async def test_rows_forgotten_after_the_pool_closed(database: FakeDaemon) -> None:
    async with open_wazuh_db(connect=database.connect) as db:
        rows = db.rows("agent 001 package get")
        await anext(rows)
    del rows
    gc.collect()
    await trio.testing.wait_all_tasks_blocked()
    assert database.open_connections == 0


async def test_rows_cancelled(db: WazuhDB, database: FakeDaemon, autojump_clock: trio.testing.MockClock) -> None:
    database.set_answer([Frames(['due {"id":1}', 'due {"id":2}'], streamed=True)])
    got = []
    with trio.move_on_after(1):
        async for row in db.rows("agent 001 package get"):
            got.append(row)
    assert got == [{"id": 1}, {"id": 2}]
    assert (db.statistics().in_use, db.statistics().given_up) == (0, 1)


async def collect(rows: AsyncIterator[Any], into: list[Any]) -> None:
    async for row in rows:
        into.append(row)


async def test_rows_that_end_in_an_error(db: WazuhDB, database: FakeDaemon) -> None:
    database.set_answer([Frames(['due {"id":1}', "err out of memory"], streamed=True), "err no such agent"])
    got: list[Any] = []
    with pytest.raises(WazuhError, match="out of memory"):
        await collect(db.rows("agent 001 package get"), got)
    assert got == [{"id": 1}]
    with pytest.raises(WazuhError, match="no such agent"):
        await db.query("agent 009 package get")
    assert (db.statistics().in_use, db.statistics().requests, db.statistics().given_up) == (0, 2, 0)


async def test_rows_cut_off(db: WazuhDB, database: FakeDaemon) -> None:
    database.set_answer([Frames(['due {"id":1}', 'due {"id":2}'], streamed=True)])
    database.set_oddities(close_after=1)
    got: list[Any] = []
    with pytest.raises(trio.BrokenResourceError):
        await collect(db.rows("agent 001 package get"), got)
    assert got == [{"id": 1}, {"id": 2}]


async def test_several_rows_in_one_frame(db: WazuhDB, database: FakeDaemon) -> None:
    database.set_answer([Frames(['due [{"id":1},{"id":2}]', 'ok [{"id":3}]'], streamed=True)])
    assert [row["id"] async for row in db.rows("agent 001 hotfix get")] == [1, 2, 3]


async def test_unexpected_stream_is_an_error_and_stays_among_itself(db: WazuhDB, database: FakeDaemon) -> None:
    database.set_answer([Frames(['due {"id":1}', "ok"]), "ok 2"])
    with pytest.raises(AnswerInvalid, match=r"use rows\(\)"):
        await db.query("agent 001 something new")
    assert await db.query("next") == 2


async def test_cut_answer_says_so(db: WazuhDB, model: WazuhDBModel) -> None:
    model.packages[2] = [{"name": "x" * 100} for _ in range(1000)]
    with pytest.raises(AnswerCut, match="65536"):
        await db.query("agent 002 sql SELECT * FROM sys_programs")
    model.packages[2] = [{"name": "\u00e9" * 40_000}]
    with pytest.raises(AnswerCut):
        await db.query("agent 002 sql SELECT * FROM sys_programs")
    assert len(await db.query("agent 002 sql SELECT length(name) FROM sys_programs")) == 1


@pytest.mark.parametrize("answer", ["maybe", "", "OK x", b"\xff\xfe", "due {broken"])
async def test_answers_that_are_none(db: WazuhDB, database: FakeDaemon, answer: Answer) -> None:
    database.set_answer([answer])
    with pytest.raises(WazuhError):
        await db.query("global get-all-agents")


async def test_refused_queries(db: WazuhDB, database: FakeDaemon) -> None:
    for query in ("", " \n", "global sql\0", 5):
        with pytest.raises(WazuhInternalError) as caught:
            await db.query(query)  # type: ignore[arg-type]
        assert caught.value.code == 1012
    long = "agent 1 package get" + " " * 65536
    with pytest.raises(PayloadTooLarge):
        await db.query(long)
    with pytest.raises(PayloadTooLarge):
        db.rows(long)
    with pytest.raises(WazuhInternalError, match="no place for the last id"):
        db.pages("agent 001 package get")
    with pytest.raises(WazuhInternalError, match="no place for the last id"):
        next_page("global something", 5)
    assert database.requests == []


async def test_queries_in_order_on_one_connection(db: WazuhDB, database: FakeDaemon) -> None:
    async with db.session() as session:
        assert await session.query("global find-group default") == [{"id": 1}]
        assert len(await session.query("global get-all-agents")) == 35
        assert (await session.query({"version": 1, "command": "getstats", "parameters": {}}))["name"] == "wazuh-db"
        with pytest.raises(WazuhError, match="Invalid DB query actor"):
            await session.query("wrong one")
        assert await session.query("global find-group web", type=list[dict[str, int]]) == [{"id": 2}]
        with pytest.raises(WazuhInternalError, match="connection of their own"):
            await session.query("agent 001 package get")
    assert database.connections == 1
    assert db.statistics().idle == 1


async def test_session_does_not_outlive_a_stream(db: WazuhDB, database: FakeDaemon) -> None:
    database.set_answer([Frames(['due {"id":1}', "ok"]), "ok"])
    async with db.session() as session:
        with pytest.raises(AnswerInvalid):
            await session.query("agent 001 something new")
        with pytest.raises(trio.ClosedResourceError):
            await session.query("next")
    assert db.statistics().idle == 0


async def test_session_after_a_cancelled_query(
    db: WazuhDB, database: FakeDaemon, autojump_clock: trio.testing.MockClock
) -> None:
    database.set_oddities(answer_delay=10)
    async with db.session() as session:
        with trio.move_on_after(1):
            await session.query("global find-group default")
        with pytest.raises(trio.ClosedResourceError):
            await session.query("global find-group web")
    database.set_oddities(answer_delay=0)
    assert await db.query("global find-group web") == [{"id": 2}]


async def test_restarted_daemon_is_asked_again(db: WazuhDB, database: FakeDaemon) -> None:
    await db.query("global find-group default")
    await database.close_connections()
    assert await db.query("global find-group default") == [{"id": 1}]
    await database.close_connections()
    async with db.session() as session:
        # In memory the end is seen by the request itself; over a socket the session would have begun on a fresh one.
        with pytest.raises(trio.BrokenResourceError):
            await session.query("global find-group default")


async def test_real_socket(model: WazuhDBModel, tmp_path: Path) -> None:
    async with (
        open_fake_daemon("wazuh-db", model, home=tmp_path, oddities=Oddities(piece_bytes=3, trailing_nul=True)),
        open_wazuh_db(home=tmp_path) as db,
    ):
        assert await db.query("global get-all-agents") == [{"id": number} for number in range(1, 36)]
        assert len([row async for row in db.rows("agent 001 package get")]) == 600


async def test_query_that_ends_in_a_newline(db: WazuhDB) -> None:
    assert await db.query("global find-group default\n") == [{"id": 1}]
    assert await db.query("global insert-agent-group x\n") is None
