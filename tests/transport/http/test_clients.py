"""Every HTTP call over both clients, plain and trio, against each release's fakes. One suite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio

from tests.transport.peers import descriptors
from wazuh_comms_trio.errors import AnswerInvalid, NotInRelease, WazuhError, WazuhInternalError
from wazuh_comms_trio.testing import (
    EngineModel,
    FakeReply,
    FakeRequest,
    HTTPConduct,
    InventoryModel,
    Oddities,
    RemotedAdminModel,
    ScannerModel,
    WazuhDBHTTPModel,
    open_fake_http,
)
from wazuh_comms_trio.transport import (
    AgentIDGroups,
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
    db_agents_groups,
    db_agents_summary,
    db_agents_sync,
    db_all_agents,
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
    release_of,
    remoted_metrics,
    scan_agent,
    scanner_offset,
    scanner_status,
    service_status,
    update_scanner,
)

T = TypeVar("T")
OLD = ["4.13.0", "4.14.2", "5.0.0-beta1", "5.0.0-beta4"]
ALL = [*OLD, "5.0.0"]

AGENTS: dict[int, dict[str, Any]] = {
    1: {"name": "a", "connection_status": "active", "version": "Wazuh v4.14.2", "os_name": "Ubuntu"},
    2: {"name": "b", "connection_status": "disconnected", "version": "Wazuh v4.14.2", "os_name": "Debian"},
    3: {"name": "c", "connection_status": "active", "version": "Wazuh v5.0.0", "os_name": "Ubuntu"},
}
GROUPS = {1: ["default", "web"], 2: ["default"], 3: []}


class Client:
    """Either client, asked in the same way."""

    def __init__(self, call: Callable[[HTTPCall[Any]], Awaitable[Any]], send: Callable[..., Awaitable[Any]]) -> None:
        self.call, self.send = call, send


Open = Callable[..., Any]


@pytest.fixture(params=["plain", "trio"])
def opener(request: pytest.FixtureRequest) -> Open:
    @asynccontextmanager
    async def plain(service: str, *, limit: float = 10, **named: Any) -> AsyncIterator[Client]:
        with HTTPClient(service, timeout=limit, **named) as client:

            async def call(one: HTTPCall[Any]) -> Any:
                return await trio.to_thread.run_sync(client.call, one)

            async def send(one: HTTPRequest, *, repeatable: bool = False) -> Any:
                return await trio.to_thread.run_sync(lambda: client.send(one, repeatable=repeatable))

            yield Client(call, send)

    @asynccontextmanager
    async def with_trio(service: str, *, limit: float = 10, **named: Any) -> AsyncIterator[Client]:
        async with open_http(service, request_timeout=limit, **named) as pool:
            yield Client(pool.call, pool.send)

    return plain if request.param == "plain" else with_trio


def database(release: str) -> WazuhDBHTTPModel:
    return WazuhDBHTTPModel(release, {one: dict(row) for one, row in AGENTS.items()}, dict(GROUPS))


@pytest.mark.parametrize("release", ALL)
async def test_wazuh_db_in_every_release(opener: Open, home: Path, release: str) -> None:
    model = database(release)
    async with (
        open_fake_http("wdb-http", model, release=release, home=home) as daemon,
        opener("wdb-http", home=home, release=release) as db,
    ):
        assert await db.call(db_agent_groups("001")) == ["default", "web"]
        assert await db.call(db_agent_groups(77)) == []
        summary = await db.call(db_agents_summary([1, "002"]))
        assert summary.to_dict() == {
            "agents_by_status": {"active": 1, "disconnected": 1},
            "agents_by_os": {"Ubuntu": 1, "Debian": 1},
            "agents_by_groups": {"default": 2, "web": 1},
        }
        assert (await db.call(db_agents_summary([]))).status == {}, "nobody is counted"
        assert (await db.call(db_agents_summary())).status == {"active": 2, "disconnected": 1}
        model.unsynced = {"syncreq": [{"id": 1}], "syncreq_status": []}
        assert await db.call(db_agents_sync()) == {"syncreq": [{"id": 1}]}
        assert await db.call(db_agents_sync()) == {}
        await db.call(db_set_agents_sync({"syncreq_keepalive": [{"id": 1}]}))
        assert model.received == [{"syncreq_keepalive": [{"id": 1}]}]
        if release == "5.0.0":
            assert [one["name"] for one in await db.call(db_all_agents())] == ["a", "b", "c"]
            for gone in (db_agent_ids(), db_agents_groups(), db_group_agents("web"), db_restart_info()):
                with pytest.raises(NotInRelease, match=r"Error 1012 .*5\.0\.0"):
                    await db.call(gone)
        else:
            assert await db.call(db_agent_ids()) == [1, 2, 3]
            assert await db.call(db_agents_groups()) == [
                AgentIDGroups("001", ["default", "web"]),
                AgentIDGroups("002", ["default"]),
            ]
            assert await db.call(db_group_agents("default")) == [1, 2]
            assert await db.call(db_group_agents("nobody")) == []
            assert await db.call(db_restart_info([1, 2])) == [{"id": "001", "version": "Wazuh v4.14.2"}]
            assert [one["id"] for one in await db.call(db_restart_info(["001"], negate=True))] == ["003"]
            assert [one["id"] for one in await db.call(db_restart_info())] == ["001", "003"]
            with pytest.raises(NotInRelease):
                await db.call(db_all_agents())
        assert not any("transfer-encoding" in call.headers for call in daemon.calls)
        assert all("content-length" in call.headers for call in daemon.calls if call.method == "POST")
        assert {call.headers["host"] for call in daemon.calls} == {"localhost"}
        one_each = release == "5.0.0"
        assert (daemon.connections == len(daemon.calls)) is one_each


async def test_the_engine(opener: Open, home: Path) -> None:
    model = EngineModel(metrics={"events": 5})
    for release in ("5.0.0-beta2", "5.0.0-beta3", "5.0.0"):
        model.release = release
        async with (
            open_fake_http("engine", model, release=release, home=home),
            opener("engine", home=home, release=release) as engine,
        ):
            assert await engine.call(engine_metrics()) == {"events": 5}
            if release == "5.0.0-beta2":
                with pytest.raises(NotInRelease):
                    await engine.call(engine_status())
            else:
                assert (await engine.call(engine_status()))["ready"] is True


async def test_other_routes_and_events_of_the_engine(opener: Open, home: Path) -> None:
    model = EngineModel(metrics={"b": 1, "a": 2}, limit=100)
    async with (
        open_fake_http("engine", model, release="5.0.0-beta2", home=home),
        open_fake_http("engine-events", model, release="5.0.0-beta2", home=home),
        opener("engine", home=home, release="5.0.0-beta2") as engine,
        opener("engine-events", home=home, release="5.0.0-beta2") as events,
    ):
        assert await engine.call(engine_request("/metrics/list")) == ["a", "b"]
        with pytest.raises(RouteMissing):
            await engine.call(engine_request("/content/ioc/state", {}))
        await events.call(engine_events(b"H {}\nE {}\n"))
        assert model.batches == [b"H {}\nE {}\n"]
        for batch, status, text in ((b"garbage", 400, "invalid batch"), (b"H " + b"x" * 200, 413, "too large")):
            with pytest.raises(HTTPStatusError, match=text) as caught:
                await events.call(engine_events(batch))
            assert (caught.value.code, caught.value.status) == (2019, status)
    for call in (engine_request("/metrics/get"), engine_events(b"H {}")):
        with pytest.raises(NotInRelease):
            call.prepare(release_of("4.14.2"))


async def test_the_vulnerability_detector(opener: Open, home: Path) -> None:
    name = "vulnerability-detector"
    async with (
        open_fake_http(name, ScannerModel("5.0.0-beta3"), release="5.0.0-beta3", home=home),
        opener(name, home=home, release="5.0.0-beta3") as scanner,
    ):
        assert (await scanner.call(scanner_status()))["available"] is True
        for call in (scanner_offset(), scan_agent(1), update_scanner("feed"), service_status(name)):
            with pytest.raises(NotInRelease):
                await scanner.call(call)
    model = ScannerModel(offset=7)
    async with (
        open_fake_http(name, model, home=home) as daemon,
        opener(name, home=home, release="5.0.0") as scanner,
    ):
        assert await scanner.call(scanner_offset()) == 7
        assert await scanner.call(service_status(name)) == {"status": "ok"}
        await scanner.call(scan_agent("001"))
        assert model.scans == ["001"]
        for word, again in (("feed_not_ready", True), ("vd_not_initialized", False)):
            model.refusal = word
            with pytest.raises(HTTPStatusError) as caught:
                await scanner.call(scan_agent("001"))
            assert (caught.value.code, caught.value.status) == (2024, 503)
            assert (caught.value.word, caught.value.retryable) == (word, again)
        await scanner.call(update_scanner("feed", 0))
        assert model.offset == 0
        with pytest.raises(HTTPStatusError) as caught:
            await scanner.call(update_scanner("other", -1))
        assert caught.value.status == 404
        assert not isinstance(caught.value, RouteMissing)
        model.running = True
        with pytest.raises(HTTPStatusError, match="409"):
            await scanner.call(update_scanner("feed"))
        assert [call.body for call in daemon.calls if call.target == "/ondemand"] == [
            b'{"topic": "feed", "offset": 0}',
            b'{"topic": "other", "offset": -1}',
            b'{"topic": "feed"}',
        ]


async def test_inventory_sync(opener: Open, home: Path) -> None:
    model = InventoryModel()
    async with (
        open_fake_http("inventory-sync", model, home=home),
        opener("inventory-sync", home=home, release="5.0.0") as inventory,
    ):
        assert await inventory.call(inventory_stateful("001", b"\0flat")) == {"status": "ok"}
        assert await inventory.call(inventory_stateful(1, b"\0flat")) == {"status": "ok", "noop": True}
        assert await inventory.call(inventory_metrics()) == {"messages": 2}
        assert await inventory.call(service_status("inventory-sync")) == {"status": "ok"}
        assert await inventory.call(delete_inventory(2)) == {"status": "ok"}
        assert model.deleted == ["002"]
        model.conflict = {"error": "version_mismatch", "current_version": 5}
        with pytest.raises(HTTPStatusError) as caught:
            await inventory.call(inventory_stateful(1, b"x"))
        assert (caught.value.code, caught.value.status, caught.value.word) == (1014, 409, "version_mismatch")
        assert caught.value.fields["current_version"] == 5
        assert not caught.value.retryable
        model.loading = 30
        with pytest.raises(HTTPStatusError) as caught:
            await inventory.call(inventory_stateful(1, b"x"))
        assert (caught.value.retryable, caught.value.retry_after) == (True, 30)


async def test_remoteds_metrics(opener: Open, home: Path) -> None:
    metric = {"name": "x", "type": "counter", "value": 1}
    async with (
        open_fake_http("remoted-admin", RemotedAdminModel([metric]), home=home),
        opener("remoted-admin", home=home, release="5.0.0") as remoted,
    ):
        assert (await remoted.call(remoted_metrics()))["metrics"] == [metric]
        assert await remoted.call(service_status("remoted-admin")) == {"status": "ok", "module": "remoted_module"}


async def test_the_socket_may_have_its_later_name(opener: Open, home: Path) -> None:
    place = home / "queue/sockets/inventory-sync-http.sock"
    async with (
        open_fake_http("inventory-sync", InventoryModel(), path=place),
        opener("inventory-sync", home=home, release="5.0.0") as inventory,
    ):
        assert await inventory.call(inventory_metrics()) == {"messages": 0}


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
