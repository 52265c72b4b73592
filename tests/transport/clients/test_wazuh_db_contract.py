"""What a query answers is the same for trio programs and for plain ones: one suite over both clients."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from wazuh_comms_trio.errors import (
    AnswerCut,
    AnswerInvalid,
    MessageInvalid,
    NotSynchronized,
    PayloadTooLarge,
    PeerClosed,
    SocketTimeout,
    WazuhError,
    WazuhException,
    WazuhInternalError,
)
from wazuh_comms_trio.testing import FakeDaemon, Frames, WazuhDBModel, open_fake_daemon
from wazuh_comms_trio.transport import WazuhDBClient, WazuhSocket, open_wazuh_db


class Trio:
    """The trio client, one for each call."""

    def __init__(self, home: Path, **options: Any) -> None:
        self.home, self.options = home, options

    async def query(self, query: Any, **options: Any) -> Any:
        async with open_wazuh_db(home=self.home, **self.options) as db:
            return await db.query(query, **options)

    async def pages(self, query: Any, **options: Any) -> list[Any]:
        async with open_wazuh_db(home=self.home, **self.options) as db:
            return [page async for page in db.pages(query, **options)]

    async def rows(self, query: Any) -> list[Any]:
        async with open_wazuh_db(home=self.home, **self.options) as db:
            return [row async for row in db.rows(query)]


class Plain:
    """The blocking client, one for each call, in a thread, as the daemon is a task of this one."""

    def __init__(self, home: Path, **options: Any) -> None:
        self.home, self.options = home, options

    async def _with(self, work: Callable[[WazuhDBClient], Any]) -> Any:
        def run() -> Any:
            with WazuhDBClient(home=self.home, **self.options) as db:
                return work(db)

        return await trio.to_thread.run_sync(run)

    async def query(self, query: Any, **options: Any) -> Any:
        return await self._with(lambda db: db.query(query, **options))

    async def pages(self, query: Any, **options: Any) -> Any:
        return await self._with(lambda db: list(db.pages(query, **options)))

    async def rows(self, query: Any) -> Any:
        return await self._with(lambda db: list(db.rows(query)))


@pytest.fixture
async def daemon(home: Path) -> AsyncIterator[FakeDaemon]:
    model = WazuhDBModel(page_rows=10)
    for number in range(1, 36):
        model.add_agent(number, f"agent-{number}", connection_status="active" if number % 2 else "disconnected")
    model.packages[1] = [{"name": f"package-{number}"} for number in range(600)]
    model.packages[3] = []
    async with open_fake_daemon("wazuh-db", model, home=home) as daemon:
        yield daemon


Client = type[Trio] | type[Plain]


@pytest.fixture(params=[Trio, Plain])
def client(request: pytest.FixtureRequest) -> Client:
    kind: Client = request.param
    return kind


async def test_one_answer(home: Path, daemon: FakeDaemon, client: Client) -> None:
    db = client(home)
    assert await db.query("global insert-agent-group new") is None
    assert await db.query("global find-group default") == [{"id": 1}]
    assert await db.query("global find-group default", type=list[dict[str, int]]) == [{"id": 1}]
    assert (await db.query({"command": "getstats", "parameters": {}}))["name"] == "wazuh-db"
    assert await db.query(" \nglobal find-group default\n") == [{"id": 1}]


@pytest.mark.parametrize(
    ("query", "pages", "rows"),
    [
        ("global get-all-agents", 4, 35),
        ("  global get-all-agents", 4, 35),
        ("global get-all-agents last_id 20", 2, 15),
        ("global get-all-agents last_id {last_id}", 4, 35),
        ("global get-group-agents default", 4, 35),
        ("global get-agents-by-connection-status 0 active", 2, 18),
    ],
)
async def test_pages(home: Path, daemon: FakeDaemon, client: Client, query: str, pages: int, rows: int) -> None:
    found = await client(home).pages(query)
    assert (len(found), sum(len(page) for page in found)) == (pages, rows)
    assert await client(home).query(query) == [row for page in found for row in page]


async def test_streamed_rows(home: Path, daemon: FakeDaemon, client: Client) -> None:
    db = client(home)
    rows = await db.rows("agent 001 package get")
    assert (len(rows), rows[0], rows[-1]) == (600, {"name": "package-0"}, {"name": "package-599"})
    assert await db.query("agent 001 package get") == rows
    assert await db.query("agent 003 package get") == await db.rows("agent 003 package get") == []
    with pytest.raises(NotSynchronized):
        await db.query("agent 002 package get")


ERRORS: list[tuple[Any, Any, type[WazuhException]]] = [
    ("x", "err nothing", WazuhError),
    ("x", 'ok [{"a":1},' + "x" * 65524, AnswerCut),
    ("x", "what", AnswerInvalid),
    ("x", 'due [{"id":1}]', AnswerInvalid),
    ("global get-all-agents", 'due [{"id":0}]', AnswerInvalid),
    ("global get-all-agents", 'due [{"x":0}]', AnswerInvalid),
    ("agent 001 package get", 'ok {"status":"WHO KNOWS"}', AnswerInvalid),
]


@pytest.mark.parametrize(("query", "answer", "kind"), ERRORS)
async def test_answers_that_are_errors(
    home: Path, daemon: FakeDaemon, client: Client, query: str, answer: str, kind: type[WazuhException]
) -> None:
    daemon.set_answer([answer, answer])
    with pytest.raises(kind, match="Error 1014") as caught:
        await client(home).query(query)
    assert isinstance(caught.value, WazuhError)


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("", MessageInvalid),
        (" ", MessageInvalid),
        ("a\0b", MessageInvalid),
        (5, MessageInvalid),
        ("x" * 65537, PayloadTooLarge),
        ("\ud800", MessageInvalid),
        ({"version": 1}, MessageInvalid),
    ],
)
async def test_refused_before_anything_is_sent(
    home: Path, daemon: FakeDaemon, client: Client, query: Any, kind: type[WazuhInternalError]
) -> None:
    with pytest.raises(kind, match="Error 1012"):
        await client(home).query(query)
    if not isinstance(query, dict):
        for ask in (client(home).pages, client(home).rows):
            with pytest.raises(kind, match="Error 1012"):
                await ask(query)
    assert daemon.requests == []


async def test_pages_by_another_key(home: Path, daemon: FakeDaemon, client: Client) -> None:
    daemon.set_answer(['due [{"hash":"aa"},{"hash":"bb"}]', 'ok [{"hash":"cc"}]'] * 2)
    query = "global get-distinct-groups {last_id}"
    assert len(await client(home).pages(query, last_id=lambda page: page[-1]["hash"])) == 2
    assert daemon.requests[-1] == b"global get-distinct-groups bb"
    with pytest.raises(MessageInvalid, match="1012"):
        await client(home).pages(query, last_id=lambda page: page[-1]["hash"] + " x")


async def test_text_that_is_not_utf_8(home: Path, daemon: FakeDaemon, client: Client) -> None:
    daemon.set_answer([b'ok [{"name":"caf\xe9"}]'] * 2)
    assert await client(home).query("x") == [{"name": "caf\ufffd"}]
    with pytest.raises(AnswerInvalid, match="isn't UTF-8"):
        await client(home, text_errors="strict").query("x")


# --- the plain one's own connection -----------------------------------------------------------------------------------


async def in_thread(work: Callable[[], Any]) -> Any:
    return await trio.to_thread.run_sync(work)


async def test_it_keeps_its_connection_and_makes_a_new_one(home: Path, daemon: FakeDaemon) -> None:
    with WazuhDBClient(home=home) as db:
        assert "not connected" in repr(db)
        for _ in range(3):
            await in_thread(lambda: db.query("global find-group default"))
        assert (daemon.connections, "not connected" in repr(db)) == (1, False)
        await daemon.close_connections()
        assert await in_thread(lambda: db.query("global find-group default")) == [{"id": 1}]
        assert daemon.connections == 2
        db.close()
        assert await in_thread(lambda: db.query("global find-group default")) == [{"id": 1}]


async def test_a_late_answer_reaches_nobody(home: Path, daemon: FakeDaemon) -> None:
    daemon.set_oddities(answer_delay=0.05)
    with WazuhDBClient(home=home, timeout=0.02) as db:
        with pytest.raises(SocketTimeout):
            await in_thread(lambda: db.query("global find-group default"))
        await daemon.wait_closed()
        daemon.set_oddities(answer_delay=0)
        db.timeout = 5
        assert await in_thread(lambda: db.query("global insert-agent-group x")) is None
        assert daemon.connections == 2


async def test_the_time_is_for_all_pages(home: Path) -> None:
    async def endless(request: bytes) -> str:
        await trio.sleep(0.005)
        return f'due [{{"id":{int(request.split()[-1]) + 1}}}]'

    async with open_fake_daemon("wazuh-db", endless, home=home) as daemon:
        with WazuhDBClient(home=home, timeout=0.1) as db, pytest.raises(SocketTimeout):
            await in_thread(lambda: db.query("global get-all-agents"))
        assert 2 < len(daemon.requests) < 100


async def test_rows_left_early(home: Path, daemon: FakeDaemon) -> None:
    with WazuhDBClient(home=home) as db:
        rows = db.rows("agent 001 package get")
        assert await in_thread(lambda: next(rows)) == {"name": "package-0"}
        await in_thread(rows.close)
        await daemon.wait_closed()
        assert await in_thread(lambda: db.query("global find-group default")) == [{"id": 1}]


async def test_a_stream_that_was_not_asked_for_is_not_the_next_answer(home: Path, daemon: FakeDaemon) -> None:
    daemon.set_answer([Frames(['due {"a":1}', 'due {"a":2}', "ok"]), "ok [1]"])
    with WazuhDBClient(home=home) as db:
        with pytest.raises(AnswerInvalid, match="more follows"):
            await in_thread(lambda: db.query("agent 1 unknown get"))
        assert await in_thread(lambda: db.query("x")) == [1]


async def test_it_waits_for_a_daemon_that_ends(home: Path, daemon: FakeDaemon) -> None:
    daemon.set_oddities(close_without_answer=True)
    with WazuhDBClient(home=home) as db, pytest.raises(PeerClosed):
        await in_thread(lambda: db.query("x"))
    nowhere = WazuhDBClient(home=home / "nowhere")
    with pytest.raises(WazuhInternalError, match=r"Error 1013 .*also tried"):
        nowhere.query("x")


async def test_a_second_thread_is_refused_and_disturbs_nobody(home: Path) -> None:
    go_on = trio.Event()

    async def slow(request: bytes) -> str:
        await go_on.wait()
        return f'ok "{request.decode()}"'

    answers: list[Any] = []

    async with open_fake_daemon("wazuh-db", slow, home=home) as daemon:
        with WazuhDBClient(home=home) as db:

            async def first() -> None:
                answers.append(await in_thread(lambda: db.query("global x 1")))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(first)
                await daemon.wait_requests(1)
                with pytest.raises(WazuhInternalError, match="another thread is using this client"):
                    await in_thread(lambda: db.query("global x 2"))
                go_on.set()
            answers.append(await in_thread(lambda: db.query("global x 3")))
            assert (answers, daemon.connections) == (["global x 1", "global x 3"], 1)


async def test_a_query_amid_a_query_of_the_same_thread(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a signal's handler may do: neither gets the other's answer."""

    def echo(request: bytes) -> str:
        return f'ok "{request.decode()}"'

    async with open_fake_daemon("wazuh-db", echo, home=home):
        with WazuhDBClient(home=home, timeout=5) as db:
            inner: list[Any] = []
            receive = WazuhSocket.receive

            def interrupted(sock: WazuhSocket) -> bytes:
                if not inner:
                    inner.append(None)
                    inner.append(db.query("global x 2"))
                return receive(sock)

            monkeypatch.setattr(WazuhSocket, "receive", interrupted)
            with pytest.raises(WazuhException, match="Error 1014"):
                await in_thread(lambda: db.query("global x 1"))
            assert inner == [None, "global x 2"]
            assert await in_thread(lambda: db.query("global x 3")) == "global x 3"
