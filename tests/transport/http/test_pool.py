"""What holds for the trio pool alone: turns, cancellation, closing, in-memory streams; and time in the plain client."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import trio

from tests.transport.peers import listening
from wazuh_comms_trio.testing import EngineModel, FakeReply, FakeRequest, Oddities, WazuhDBHTTPModel, open_fake_http
from wazuh_comms_trio.transport import (
    EngineHTTPClient,
    HTTPClient,
    HTTPConnectError,
    HTTPTimeout,
    ModulesdHTTPClient,
    NotInRelease,
    TransportClosed,
    VdHTTPClient,
    WazuhDBHTTPClient,
    engine_status,
    get_wdb_http_client,
    open_http,
)


async def test_no_more_than_so_many_at_a_time(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_fake_http("engine", EngineModel(), oddities=Oddities(answer_delay=1)) as daemon,
        open_http("engine", release="5.0.0", size=2, connect=daemon.connect) as engine,
        trio.open_nursery() as nursery,
    ):
        for _ in range(6):
            nursery.start_soon(engine.call, engine_status())
        await trio.testing.wait_all_tasks_blocked()
        seen = engine.statistics()
        assert (seen.in_use, seen.tasks_waiting, seen.connects) == (2, 4, 2)
        assert "2 in use" in repr(engine)
    assert trio.current_time() == pytest.approx(3.0)
    assert daemon.connections == 2


async def test_cancelled_the_connection_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_fake_http("engine", EngineModel(metrics={"late": 1}), oddities=Oddities(answer_delay=5)) as daemon,
        open_http("engine", release="5.0.0", size=1, connect=daemon.connect) as engine,
    ):
        with trio.move_on_after(1) as scope:
            await engine.call(engine_status())
        assert scope.cancelled_caught
        daemon.set_oddities(answer_delay=0)
        assert (await engine.call(engine_status()))["ready"]
        assert engine.statistics().connects == 2


async def test_the_limit_of_a_request_and_the_callers_own(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_fake_http("engine", EngineModel(), oddities=Oddities(silent=True)) as daemon,
        open_http("engine", release="5.0.0", request_timeout=3, connect=daemon.connect) as engine,
    ):
        with pytest.raises(HTTPTimeout, match=r"Error 2020 .*within 3 s"):
            await engine.call(engine_status())
        with pytest.raises(trio.TooSlowError), trio.fail_after(1):
            await engine.call(engine_status())


async def test_an_idle_connection_grows_old(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_fake_http("engine", EngineModel()) as daemon,
        open_http("engine", release="5.0.0", idle_timeout=4, connect=daemon.connect) as engine,
    ):
        for pause, connections in ((0, 1), (3, 1), (5, 2)):
            await trio.sleep(pause)
            await engine.call(engine_status())
            assert daemon.connections == connections


async def test_leaving_the_block_ends_requests(home: Path) -> None:
    failures: list[TransportClosed] = []
    async with (
        open_fake_http("engine", EngineModel(), home=home, oddities=Oddities(silent=True)) as daemon,
        trio.open_nursery() as nursery,
    ):
        async with open_http("engine", home=home, release="5.0.0") as engine:

            async def ask() -> None:
                with pytest.raises(TransportClosed) as caught:
                    await engine.call(engine_status())
                failures.append(caught.value)

            nursery.start_soon(ask)
            await daemon.wait_requests(1)
        with pytest.raises(TransportClosed):
            await engine.call(engine_status())
    assert len(failures) == 1


def test_a_peer_that_drips_cant_stretch_the_time(home: Path) -> None:
    with listening(home / "queue/sockets/analysis") as server:

        def drip() -> None:
            peer = server.accept()
            try:
                for one in b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 900:
                    peer.send(bytes([one]))
                    time.sleep(0.005)
            except OSError:
                pass

        thread = threading.Thread(target=drip)
        thread.start()
        with HTTPClient("engine", home=home, release="5.0.0", timeout=0.2) as engine:
            begin = time.monotonic()
            with pytest.raises(HTTPTimeout):
                engine.call(engine_status())
            assert time.monotonic() - begin < 2
        thread.join()


# --- the framework's names ---


async def test_wazuh_db_by_the_frameworks_name(home: Path) -> None:
    model = WazuhDBHTTPModel("4.14.2", {1: {"connection_status": "active", "version": "v"}}, {1: ["default"]})
    async with (
        open_fake_http("wdb-http", model, release="4.14.2", home=home),
        get_wdb_http_client(home=home, release="4.14.2") as client,
    ):
        assert await client.get_agents_ids() == [1]
        assert await client.get_agent_groups("001") == ["default"]
        assert [one.id for one in await client.get_agents_groups()] == ["001"]
        assert await client.get_group_agents("default") == [1]
        assert (await client.get_agents_summary([1])).status == {"active": 1}
        assert (await client.get_agents_summary()).status == {}
        assert await client.get_agents_sync() == {}
        await client.set_agents_sync({"syncreq": []})
        assert await client.get_agents_restart_info([1]) == [{"id": "001", "version": "v"}]
        with pytest.raises(NotInRelease):
            await client.get_all_agents()


async def test_connecting_is_tried_again(home: Path, autojump_clock: trio.testing.MockClock) -> None:
    client = WazuhDBHTTPClient(retries=3, home=home, release="5.0.0")
    with pytest.raises(HTTPConnectError, match="Error 2013"):
        await client.get_all_agents()
    assert trio.current_time() == pytest.approx(0.05 + 0.1 + 0.2)
    async with open_fake_http("wdb-http", WazuhDBHTTPModel(), home=home):
        assert await client.get_all_agents() == []
        await client.close()
        assert await client.get_all_agents() == []
        await client.close()


async def test_the_plain_ones_by_the_frameworks_names(home: Path) -> None:
    def status(request: FakeRequest) -> FakeReply:
        return FakeReply(200, {"asked": request.target})

    def ask() -> list[object]:
        with (
            EngineHTTPClient(home=home, release="5.0.0") as engine,
            VdHTTPClient(home=home, release="5.0.0") as scanner,
        ):
            found = [engine.get_metrics_dump(), engine.get_status(), scanner.get_status()]
        older = ModulesdHTTPClient(timeout=5, home=home, release="5.0.0-beta3")
        found.append(older.get_status())
        older.close()
        return found

    async with (
        open_fake_http("engine", status, home=home),
        open_fake_http("vulnerability-detector", status, home=home),
        open_fake_http("vulnerability-detector", status, home=home, release="5.0.0-beta3"),
    ):
        assert await trio.to_thread.run_sync(ask) == [
            {"asked": "/metrics/dump"},
            {"asked": "/status"},
            {"asked": "/vulnerability-detector/status"},
            {"asked": "/vulnerability-detector/status"},
        ]
