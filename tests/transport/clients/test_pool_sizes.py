"""How many connections a pool has and for how long, which tasks wait, and a daemon's full backlog."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.transport.clients.reach import echo, reach
from wazuh_comms_trio.errors import BacklogFull
from wazuh_comms_trio.testing import Oddities, open_fake_daemon
from wazuh_comms_trio.transport import open_pool


async def test_no_more_connections_than_its_size(where: dict[str, Any], tmp_path: Path) -> None:
    async with (
        open_fake_daemon("wazuh-db", echo, **where) as daemon,
        open_pool("wazuh-db", size=3, **reach(daemon, tmp_path)) as pool,
    ):
        answers = []

        async def ask(number: int) -> None:
            answers.append(await pool.request(f"{number}"))

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(ask, number)
        assert sorted(answers) == sorted(f"ok {number}" for number in range(50))
        assert daemon.connections == 3


async def test_waiting_tasks_are_served_in_order(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_fake_daemon("wazuh-db", echo, oddities=Oddities(answer_delay=1)) as daemon,
        open_pool("wazuh-db", size=2, connect=daemon.connect) as pool,
        trio.open_nursery() as nursery,
    ):
        for number in range(20):
            nursery.start_soon(pool.request, f"{number:02}")
            await trio.testing.wait_all_tasks_blocked()
        await daemon.wait_answers(20)
        # Two at a time: pairs may swap, nobody overtakes a pair.
        came = [int(request) for request in daemon.requests]
        assert [sorted(came[i : i + 2]) for i in range(0, 20, 2)] == [[i, i + 1] for i in range(0, 20, 2)]


async def test_idle_connections_expire(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_fake_daemon("wazuh-db", echo) as daemon,
        open_pool("wazuh-db", idle_timeout=10, connect=daemon.connect) as pool,
    ):
        await pool.request("one")
        await trio.sleep(9.9)
        assert daemon.open_connections == 1
        await pool.request("two")  # begins the ten seconds anew
        await trio.sleep(9.9)
        assert daemon.open_connections == 1
        await daemon.wait_closed()
        assert trio.current_time() == pytest.approx(9.9 + 10)
        assert (pool.statistics().expired, pool.statistics().idle) == (1, 0)
        assert await pool.request("three") == "ok three"
        assert daemon.connections == 2


async def test_only_those_idle_too_long_expire(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_fake_daemon("wazuh-db", echo, oddities=Oddities(answer_delay=1)) as daemon,
        open_pool("wazuh-db", idle_timeout=10, connect=daemon.connect) as pool,
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.request, "one")
            nursery.start_soon(pool.request, "two")
        for _ in range(5):
            await trio.sleep(4)
            await pool.request("again")  # the one used last, so that the other ends
        assert (daemon.open_connections, pool.statistics().expired) == (1, 1)


async def test_dead_idle_connections_do_not_exceed_the_size(where: dict[str, Any], tmp_path: Path) -> None:
    async with (
        open_fake_daemon("wazuh-db", echo, **where) as daemon,
        open_pool("wazuh-db", size=3, **reach(daemon, tmp_path)) as pool,
    ):
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(pool.request, f"{number}")
        await daemon.close_connections()
        for number in range(5):
            assert await pool.request(f"{number}") == f"ok {number}"
        statistics = pool.statistics()
        assert statistics.idle + statistics.in_use <= 3
        assert await pool.request("x") == "ok x"


async def test_fresh_leases_do_not_exceed_the_size() -> None:
    async with (
        open_fake_daemon("wazuh-db", echo) as daemon,
        open_pool("wazuh-db", size=3, connect=daemon.connect) as pool,
    ):

        async def ask(number: int) -> None:
            async with pool.lease(fresh=bool(number % 2)) as connection:
                statistics = pool.statistics()
                assert statistics.idle + statistics.in_use <= 3
                await connection.request(b"x")

        for _ in range(10):
            async with trio.open_nursery() as nursery:
                for number in range(6):
                    nursery.start_soon(ask, number)
        await daemon.wait_connections(pool.statistics().connects)
        await trio.testing.wait_all_tasks_blocked()
        assert daemon.open_connections <= 3


async def test_full_backlog_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    oddities = Oddities(accepting=False, backlog=0)
    async with open_fake_daemon("authd", echo, oddities=oddities) as daemon, trio.open_nursery() as nursery:
        blocking = await daemon.connect()
        async with open_pool("authd", connect=daemon.connect) as pool:

            async def open_later() -> None:
                await trio.sleep(2)
                daemon.set_oddities(accepting=True)
                await blocking.aclose()

            nursery.start_soon(open_later)
            assert await pool.request("x") == "ok x"
            assert trio.current_time() >= 2
            assert pool.statistics().backlog_waits > 5


async def test_backlog_that_stays_full_is_an_error(autojump_clock: trio.testing.MockClock) -> None:
    oddities = Oddities(accepting=False, backlog=0)
    async with open_fake_daemon("authd", echo, oddities=oddities) as daemon:
        blocking = await daemon.connect()
        async with open_pool("authd", connect=daemon.connect, connect_timeout=3) as pool:
            begin = trio.current_time()
            with pytest.raises(BacklogFull) as caught:
                await pool.request("x")
            assert caught.value.code == 1013
            assert 2.5 < trio.current_time() - begin <= 3
        await blocking.aclose()


async def test_full_backlog_of_a_real_socket(tmp_path: Path) -> None:
    oddities = Oddities(accepting=False, backlog=0)
    async with (
        open_fake_daemon("authd", echo, home=tmp_path, oddities=oddities) as daemon,
        open_pool("authd", home=tmp_path) as pool,
        trio.open_nursery() as nursery,
    ):
        blocking = await daemon.connect()
        answers = []

        async def ask() -> None:
            answers.append(await pool.request("x"))

        nursery.start_soon(ask)
        # The pool finds the backlog full and pauses; only then there is room.
        await trio.testing.wait_all_tasks_blocked()
        await blocking.aclose()
        daemon.set_oddities(accepting=True)
        await daemon.wait_answers(1)
        await trio.testing.wait_all_tasks_blocked()
    assert answers == ["ok x"]
