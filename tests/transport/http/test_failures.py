"""What can go wrong over HTTP, over both clients: numbers, limits, repeats. One suite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.transport.http.kinds import Open, database
from tests.transport.peers import descriptors
from wazuh_comms_trio.errors import AnswerInvalid, NotInRelease, WazuhError, WazuhInternalError
from wazuh_comms_trio.testing import (
    EngineModel,
    FakeReply,
    FakeRequest,
    HTTPConduct,
    Oddities,
    ScannerModel,
    open_fake_http,
)
from wazuh_comms_trio.transport import (
    HTTPAnswerInvalid,
    HTTPCall,
    HTTPClient,
    HTTPConnectError,
    HTTPFailed,
    HTTPRequest,
    HTTPStatusError,
    HTTPTimeout,
    RouteMissing,
    db_agent_groups,
    db_agent_ids,
    db_agents_summary,
    db_agents_sync,
    db_group_agents,
    db_restart_info,
    db_set_agents_sync,
    delete_inventory,
    engine_events,
    engine_metrics,
    engine_request,
    engine_status,
    inventory_metrics,
    inventory_stateful,
    open_http,
    remoted_metrics,
    scan_agent,
    scanner_offset,
    scanner_status,
    update_scanner,
)

# --- what can go wrong -----------------------------------------------------------------------------------------------


def answering(*replies: FakeReply) -> Callable[[FakeRequest], FakeReply]:
    rest = iter(replies)
    return lambda request: next(rest)


@contextmanager
def raises(kind: type[Exception], code: int, match: str | None = None) -> Iterator[pytest.ExceptionInfo[Any]]:
    with pytest.raises(kind, match=match) as caught:
        yield caught
    assert caught.value.code == code  # type: ignore[attr-defined]
    assert isinstance(caught.value, WazuhError)
    assert isinstance(caught.value, WazuhInternalError)


SERVICES = [
    ("wdb-http", db_agents_sync(), 2012, 2013, 2013, 2013, 2013),
    ("engine", engine_status(), 2019, 2020, 2021, 2013, 2022),
    ("vulnerability-detector", scanner_status(), 2024, 2025, 2026, 2013, 2027),
    ("inventory-sync", inventory_metrics(), 1014, 1014, 1013, 1014, 1014),
    ("remoted-admin", remoted_metrics(), 1014, 1014, 1013, 1014, 1014),
]


@pytest.mark.parametrize(("service", "call", "status", "late", "connect", "failed", "not_json"), SERVICES)
async def test_the_number_of_each_failure(
    opener: Open,
    home: Path,
    service: str,
    call: HTTPCall[Any],
    status: int,
    late: int,
    connect: int,
    failed: int,
    not_json: int,
) -> None:
    async with opener(service, home=home, release="5.0.0") as client:
        with raises(HTTPConnectError, connect, "No such file"):
            await client.call(call)
    replies = answering(FakeReply(500, "broken"), FakeReply(200, "{no json"), FakeReply(200, "[[5]]"), FakeReply(404))
    async with (
        open_fake_http(service, replies, home=home) as daemon,
        opener(service, home=home, release="5.0.0") as client,
    ):
        with raises(HTTPStatusError, status, "500 broken") as caught:
            await client.call(call)
        assert (caught.value.status, caught.value.body, caught.value.word) == (500, b"broken", None)
        assert not caught.value.retryable
        for _ in range(2):
            with raises(HTTPAnswerInvalid, not_json) as caught:
                await client.call(call)
            assert isinstance(caught.value, AnswerInvalid)
            assert isinstance(caught.value, ValueError)
        with raises(RouteMissing, status):
            await client.call(call)
        daemon.set_oddities(close_without_answer=True)
        daemon.respond = lambda request: FakeReply(200, {})
        with raises(HTTPFailed, failed) as caught:
            await client.call(call)
        assert caught.value.sent
    async with (
        open_fake_http(service, lambda request: FakeReply(200, {}), home=home, oddities=Oddities(deaf=True)),
        opener(service, home=home, release="5.0.0", limit=0.05) as client,
    ):
        with raises(HTTPTimeout, late) as caught:
            await client.call(call)
        assert isinstance(caught.value, TimeoutError)


async def test_nobody_listens(opener: Open, home: Path) -> None:
    async with open_fake_http("engine", EngineModel(), home=home) as daemon:
        await daemon.crash()
        async with opener("engine", home=home, release="5.0.0") as engine:
            with raises(HTTPConnectError, 2021, "nobody listens"):
                await engine.call(engine_status())


@pytest.mark.parametrize("cut", [1, 20, 60])
async def test_an_answer_that_is_cut(opener: Open, home: Path, cut: int) -> None:
    cut_answer = Oddities(cut_after=cut)
    async with (
        open_fake_http("engine", EngineModel(metrics={"x": "y" * 100}), home=home, oddities=cut_answer),
        opener("engine", home=home, release="5.0.0") as engine,
    ):
        with raises(HTTPFailed, 2013):
            await engine.call(engine_metrics())


@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize("chunked", [True, False])
async def test_an_answer_in_pieces(opener: Open, home: Path, pieces: int, chunked: bool) -> None:
    metrics = {"x": "y" * 50}
    async with (
        open_fake_http(
            "engine",
            EngineModel(metrics=metrics),
            home=home,
            conduct=HTTPConduct(chunked=chunked),
            oddities=Oddities(piece_bytes=pieces),
        ) as daemon,
        opener("engine", home=home, release="5.0.0") as engine,
    ):
        assert [await engine.call(engine_metrics()) for _ in range(3)] == [metrics] * 3
        assert daemon.connections == 1


async def test_garbage_is_no_http(opener: Open, home: Path) -> None:
    async with (
        open_fake_http("engine", lambda request: FakeReply(-5, "x"), home=home),
        opener("engine", home=home, release="5.0.0") as engine,
    ):
        with raises(HTTPFailed, 2013):
            await engine.call(engine_status())


async def test_an_answer_above_the_limit(opener: Open, home: Path) -> None:
    big = {"x": "y" * 5000}
    for chunked in (True, False):
        async with (
            open_fake_http("engine", EngineModel(metrics=big), home=home, conduct=HTTPConduct(chunked=chunked)),
            opener("engine", home=home, release="5.0.0", max_answer_bytes=4000) as engine,
        ):
            with raises(HTTPFailed, 2013):
                await engine.call(engine_metrics())


async def test_a_kept_connection_that_was_closed(opener: Open, home: Path) -> None:
    """What may be repeated is; what may not never travels on a kept connection."""
    model = database("4.14.2")
    async with (
        open_fake_http("wdb-http", model, release="4.14.2", home=home) as daemon,
        opener("wdb-http", home=home, release="4.14.2") as db,
    ):
        assert await db.call(db_agent_ids()) == [1, 2, 3]
        assert await db.call(db_agent_ids()) == [1, 2, 3]
        assert daemon.connections == 1
        await daemon.close_connections()
        assert await db.call(db_agent_ids()) == [1, 2, 3]
        assert daemon.connections == 2
        await db.call(db_agents_sync())
        assert daemon.connections == 3


async def test_what_changes_state_is_asked_once(opener: Open, home: Path) -> None:
    """wazuh-db marks as told what it answers, even when the answer is lost."""
    model = database("4.14.2")
    model.unsynced = {"syncreq": [{"id": 1}]}
    async with (
        open_fake_http("wdb-http", model, release="4.14.2", home=home, oddities=Oddities(cut_after=0)) as daemon,
        opener("wdb-http", home=home, release="4.14.2") as db,
    ):
        await trio.testing.wait_all_tasks_blocked()
        with raises(HTTPFailed, 2013) as caught:
            await db.call(db_agents_sync())
        assert caught.value.sent
        assert len(daemon.calls) == 1
        assert model.unsynced == {}


async def test_the_limits_of_5(opener: Open, home: Path) -> None:
    async with (
        open_fake_http("wdb-http", database("5.0.0"), home=home),
        opener("wdb-http", home=home, release="5.0.0") as db,
    ):

        async def status(*request: Any) -> int:
            answer = await db.send(HTTPRequest(*request))
            return int(answer.status)

        assert await status("GET", "/v1/agents/" + "x" * 3000) == 414
        assert await status("GET", "/v1/agents/all", tuple((f"x-{n}", "y") for n in range(40))) == 431
        assert await status("POST", "/v1/agents/summary", (), b"1," * 40_000) == 413
        assert await status("POST", "/v1/agents/summary", (("Transfer-Encoding", "chunked"),), None) == 411
        assert await status("DELETE", "/v1/agents/all") == 405
        assert await status("GET", "/v1/agents/ids") == 404


@pytest.mark.parametrize(
    "make",
    [
        lambda: db_agent_groups("1"),
        lambda: db_agent_groups(-1),
        lambda: db_agent_groups("001/../ids"),
        lambda: db_group_agents("../x"),
        lambda: db_group_agents("a b"),
        lambda: db_group_agents(".."),
        lambda: db_agents_summary("256"),
        lambda: db_agents_summary(["x"]),
        lambda: db_restart_info(["1 2"]),
        lambda: db_set_agents_sync({"other": []}),
        lambda: scan_agent("x"),
        lambda: update_scanner(""),
        lambda: update_scanner("t", 5),  # type: ignore[arg-type]
        lambda: inventory_stateful("001\r\nX: y", b"x"),
        lambda: inventory_stateful(1, "x"),  # type: ignore[arg-type]
        lambda: delete_inventory(True),
        lambda: engine_request("/_internal/x"),
        lambda: engine_events(b""),
        lambda: engine_events("H"),  # type: ignore[arg-type]
    ],
)
def test_what_no_call_can_be_made_of(make: Callable[[], Any]) -> None:
    with pytest.raises(WazuhInternalError, match="Error 1012"):
        make()


async def test_another_services_call(opener: Open, home: Path) -> None:
    async with opener("engine", home=home, release="5.0.0") as engine:
        with pytest.raises(ValueError, match="none for engine"):
            await engine.call(remoted_metrics())


async def test_what_is_no_http_service(home: Path) -> None:
    with pytest.raises(ValueError, match="doesn't speak HTTP"):
        HTTPClient("wazuh-db", home=home, release="5.0.0")
    with pytest.raises(NotInRelease):
        HTTPClient("wdb-http", home=home, release="4.9.0")
    with pytest.raises(ValueError, match="doesn't speak HTTP"):
        async with open_http("wazuh-db", home=home, release="5.0.0"):
            pass


async def test_the_release_is_found_out(opener: Open, home: Path) -> None:
    async with (
        open_fake_http("vulnerability-detector", ScannerModel(offset=3), home=home),
        opener("vulnerability-detector", home=home) as scanner,
    ):
        assert await scanner.call(scanner_offset()) == 3


async def test_nothing_stays_open(opener: Open, home: Path) -> None:
    async with open_fake_http("wdb-http", database("4.14.2"), release="4.14.2", home=home) as daemon:
        async with opener("wdb-http", home=home, release="4.14.2") as db:
            await db.call(db_agent_ids())
        await daemon.wait_closed()
        before = descriptors()
        for _ in range(3):
            async with opener("wdb-http", home=home, release="4.14.2") as db:
                await db.call(db_agent_ids())
            await daemon.wait_closed()
        assert descriptors() == before
