"""Every HTTP call over both clients, plain and trio, against each release's fakes. One suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.transport.http.kinds import ALL, Open, database
from wazuh_comms_trio.errors import NotInRelease
from wazuh_comms_trio.testing import (
    EngineModel,
    InventoryModel,
    RemotedAdminModel,
    ScannerModel,
    open_fake_http,
)
from wazuh_comms_trio.transport import (
    AgentIDGroups,
    HTTPStatusError,
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
    release_of,
    remoted_metrics,
    scan_agent,
    scanner_offset,
    scanner_status,
    service_status,
    update_scanner,
)


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
