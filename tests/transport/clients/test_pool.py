"""Connection pools: who gets which connection, what happens to it afterwards, and that nothing is left behind."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from attrs import frozen

from tests.transport.clients.reach import echo, reach
from wazuh_comms_trio.errors import AnswerInvalid, PayloadTooLarge, WazuhError, WazuhException, WazuhInternalError
from wazuh_comms_trio.testing import Answer, Oddities, WazuhDBModel, open_fake_daemon
from wazuh_comms_trio.transport import Daemon, MessageInvalid, Pool, open_pool


async def test_bytes_text_and_json(where: dict[str, Any], tmp_path: Path) -> None:
    answers: list[Answer] = [
        b"\xff\0",
        "ok \u00e9\0",
        {"error": 0, "data": {"a": [1]}},
        {"error": 5, "message": "no"},
        "nothing",
    ]
    async with (
        open_fake_daemon("wazuh-db", answers, **where) as daemon,
        open_pool("wazuh-db", **reach(daemon, tmp_path)) as pool,
    ):
        assert await pool.request(b"raw") == b"\xff\0"
        assert await pool.request("text") == "ok \u00e9"
        assert await pool.request({"x": 1}) == {"a": [1]}
        with pytest.raises(WazuhException) as caught:
            await pool.request({"x": 2})
        assert (caught.value.code, caught.value.message) == (5, "no")
        with pytest.raises(AnswerInvalid):
            await pool.request({"x": 3})
        assert daemon.requests == [b"raw", b"text", b'{"x": 1}', b'{"x": 2}', b'{"x": 3}']
        assert daemon.connections == 1, "an answer that is an error doesn't spoil its connection"


async def test_answer_decoded_into_a_type() -> None:
    @frozen
    class Row:
        id: int
        name: str | None = None

    async with (
        open_fake_daemon("wazuh-db", [{"error": 0, "data": [{"id": 1}, {"id": 2, "name": "b"}]}] * 2) as daemon,
        open_pool("wazuh-db", connect=daemon.connect) as pool,
    ):
        assert await pool.request({"q": 1}, type=list[Row]) == [Row(1), Row(2, "b")]
        with pytest.raises(AnswerInvalid, match="doesn't fit its type"):
            await pool.request({"q": 1}, type=Row)


async def test_type_and_schema_are_for_mappings() -> None:
    async with open_fake_daemon("wazuh-db") as daemon, open_pool("wazuh-db", connect=daemon.connect) as pool:
        with pytest.raises(TypeError, match="mappings"):
            await pool.request("text", type=int)  # type: ignore[call-overload]
        with pytest.raises(MessageInvalid):
            await pool.request({"a": 1}, schema={"required": ["b"]})
        assert daemon.connections == 0


async def test_connection_is_reused_where_the_daemon_allows_it(where: dict[str, Any], tmp_path: Path) -> None:
    async with (
        open_fake_daemon("wazuh-db", echo, **where) as daemon,
        open_pool("wazuh-db", **reach(daemon, tmp_path)) as pool,
    ):
        for number in range(20):
            assert await pool.request(f"{number}") == f"ok {number}"
        assert daemon.connections == 1
        statistics = pool.statistics()
        assert (statistics.requests, statistics.connects, statistics.idle, statistics.in_use) == (20, 1, 1, 0)
        assert (statistics.retries, statistics.given_up) == (0, 0)
    assert daemon.open_connections == 0


@pytest.mark.parametrize("name", ["authd", "remoted", "task-manager", "analysis", "com"])
async def test_one_shot_daemons_get_a_fresh_connection(name: str) -> None:
    async with open_fake_daemon(name, echo) as daemon, open_pool(name, connect=daemon.connect) as pool:
        for number in range(3):
            assert await pool.request(f"{number}") == f"ok {number}"
        assert daemon.connections == 3
        assert pool.statistics().idle == 0


async def test_request_on_a_connection_that_the_daemon_closed_is_repeated(
    where: dict[str, Any], tmp_path: Path
) -> None:
    async with (
        open_fake_daemon("wazuh-db", echo, **where) as daemon,
        open_pool("wazuh-db", **reach(daemon, tmp_path)) as pool,
    ):
        await pool.request("one")
        await daemon.close_connections()
        await daemon.wait_closed()
        assert await pool.request("two") == "ok two"
        assert daemon.requests == [b"one", b"two"]
        assert pool.statistics().retries == 1


async def test_request_that_was_sent_is_not_repeated(where: dict[str, Any], tmp_path: Path) -> None:
    async with (
        open_fake_daemon("wazuh-db", echo, **where, oddities=Oddities(close_without_answer=True)) as daemon,
        open_pool("wazuh-db", **reach(daemon, tmp_path)) as pool,
    ):
        with pytest.raises(trio.BrokenResourceError) as caught:
            await pool.request("once only")
        assert isinstance(caught.value, WazuhError)
        assert daemon.requests == [b"once only"]
        assert pool.statistics().retries == 0
        daemon.set_oddities(close_without_answer=False)
        assert await pool.request("next") == "ok next"


async def test_repeated_once_only() -> None:
    async with open_pool("wazuh-db", connect=ended_stream) as pool:
        with pytest.raises(trio.BrokenResourceError):
            await pool.request("x")
        assert (pool.statistics().connects, pool.statistics().retries) == (2, 1)


async def ended_stream() -> trio.abc.Stream:
    """A connection that its peer has ended already."""
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.aclose()
    return ours


async def test_cancelled_request_gives_its_connection_up(where: dict[str, Any], tmp_path: Path) -> None:
    async with (
        open_fake_daemon("wazuh-db", echo, oddities=Oddities(silent=True), **where) as daemon,
        open_pool("wazuh-db", **reach(daemon, tmp_path)) as pool,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(pool.request, "cancelled")
        await daemon.wait_requests(1)
        nursery.cancel_scope.cancel()
    assert pool.statistics().given_up == 1
    assert daemon.open_connections == 0


async def test_late_answer_reaches_nobody(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_fake_daemon("wazuh-db", echo, oddities=Oddities(answer_delay=5)) as daemon,
        open_pool("wazuh-db", size=1, connect=daemon.connect) as pool,
    ):
        with pytest.raises(trio.TooSlowError), trio.fail_after(1):
            await pool.request("slow")
        daemon.set_oddities(answer_delay=0)
        assert await pool.request("next") == "ok next"
        await trio.sleep(10)
        assert await pool.request("after") == "ok after"
        assert pool.statistics().given_up == 1


async def test_cancelled_while_waiting_nothing_happened() -> None:
    async with (
        open_fake_daemon("wazuh-db", echo, oddities=Oddities(silent=True)) as daemon,
        open_pool("wazuh-db", size=1, connect=daemon.connect) as pool,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(pool.request, "first")
        await daemon.wait_requests(1)
        with trio.move_on_after(0):
            await pool.request("second")
        assert pool.statistics().tasks_waiting == 0
        assert daemon.requests == [b"first"]
        nursery.cancel_scope.cancel()


async def test_cancelled_while_connecting_leaves_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async def never() -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    async with open_pool("wazuh-db", connect=never) as pool:
        with trio.move_on_after(5):
            await pool.request("x")
        assert (pool.statistics().in_use, pool.statistics().connects) == (0, 0)


async def test_no_descriptor_leaks(tmp_path: Path) -> None:
    """Answered, cancelled before and after sending, closed by the daemon: as many descriptors as at the beginning."""
    async with (
        open_fake_daemon("wazuh-db", echo, home=tmp_path) as daemon,
        open_pool("wazuh-db", home=tmp_path, size=4) as pool,
    ):
        await pool.request("warm")
        before = len(os.listdir("/proc/self/fd"))
        for number in range(300):
            daemon.set_oddities(silent=number % 3 == 1, close_without_answer=number % 3 == 2)
            with (
                trio.move_on_after(0 if number % 2 else 0.002),
                suppress(trio.BrokenResourceError),
            ):
                await pool.request("x")
        daemon.set_oddities(silent=False, close_without_answer=False)
        await pool.request("last")
        await trio.testing.wait_all_tasks_blocked(0.01)
        # At most the connections that the pool may keep, and their other ends.
        assert len(os.listdir("/proc/self/fd")) <= before + 2 * 4


async def test_lease_keeps_order_on_one_connection(where: dict[str, Any], tmp_path: Path) -> None:
    async with (
        open_fake_daemon("wazuh-db", echo, **where) as daemon,
        open_pool("wazuh-db", **reach(daemon, tmp_path)) as pool,
    ):
        async with pool.lease() as connection:
            for number in range(3):
                assert await connection.request(b"%d" % number) == b"ok %d" % number
            assert pool.statistics().in_use == 1
        assert pool.statistics().idle == 1
        async with pool.lease(reuse=False):
            pass
        assert pool.statistics().idle == 0
        async with pool.lease(), pool.lease(fresh=True):
            assert pool.statistics().in_use == 2
        assert pool.statistics().connects == 3


async def test_lease_skips_dead_connections(tmp_path: Path) -> None:
    async with (
        open_fake_daemon("wazuh-db", echo, home=tmp_path) as daemon,
        open_pool("wazuh-db", home=tmp_path) as pool,
    ):
        await pool.request("x")
        await daemon.close_connections()
        async with pool.lease() as connection:
            assert await connection.request(b"y") == b"ok y"


async def test_lease_left_by_an_error_is_given_up() -> None:
    async def fail(pool: Pool) -> None:
        async with pool.lease() as connection:
            await connection.request(b"x")
            raise KeyError

    async with open_fake_daemon("wazuh-db", echo) as daemon, open_pool("wazuh-db", connect=daemon.connect) as pool:
        with pytest.raises(KeyError):
            await fail(pool)
        assert (pool.statistics().idle, pool.statistics().given_up, pool.statistics().in_use) == (0, 1, 0)


async def test_streamed_answer_never_becomes_the_next_one() -> None:
    model = WazuhDBModel()
    model.add_agent(1, "one")
    model.packages[1] = [{"name": "bash"}, {"name": "zsh"}]
    async with open_fake_daemon("wazuh-db", model) as daemon, open_pool("wazuh-db", connect=daemon.connect) as pool:
        assert (await pool.request("agent 1 package get")).startswith("due ")
        assert await pool.request("global find-group default") == 'ok [{"id":1}]'
        assert daemon.connections == 2


async def test_closed_with_tasks_inside() -> None:
    async with open_fake_daemon("wazuh-db", echo, oddities=Oddities(silent=True)) as daemon:
        async with trio.open_nursery() as nursery:
            failures: list[Exception] = []

            async def ask(pool: Pool) -> None:
                try:
                    await pool.request("x")
                except Exception as error:
                    failures.append(error)

            async with open_pool("wazuh-db", size=1, connect=daemon.connect) as pool:
                nursery.start_soon(ask, pool)
                nursery.start_soon(ask, pool)
                await daemon.wait_requests(1)
                await trio.testing.wait_all_tasks_blocked()
        assert [type(error).__mro__.count(trio.ClosedResourceError) for error in failures] == [1, 1]
        with pytest.raises(trio.ClosedResourceError):
            await pool.request("too late")
    assert daemon.open_connections == 0


async def test_callers_error_is_not_wrapped_into_a_group() -> None:
    with pytest.raises(KeyError):
        async with open_pool("wazuh-db"):
            raise KeyError


async def test_callers_cancellation_goes_through() -> None:
    with trio.CancelScope() as scope:
        async with open_pool("wazuh-db"):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_refused_before_a_connection_is_made(tmp_path: Path) -> None:
    async with open_pool("wazuh-db", home=tmp_path) as pool:
        with pytest.raises(PayloadTooLarge):
            await pool.request(b"x" * 65537)
        with pytest.raises(WazuhError):
            await pool.request(b"")
        assert pool.statistics().connects == 0


async def test_both_places_of_a_socket(tmp_path: Path) -> None:
    for other_release in (False, True):
        async with (
            open_fake_daemon("wazuh-db", echo, home=tmp_path, other_release=other_release),
            open_pool("wazuh-db", home=tmp_path) as pool,
        ):
            assert await pool.request("x") == "ok x"


async def test_daemon_of_ones_own(tmp_path: Path) -> None:
    mine = Daemon("mine", ("run/nowhere", "run/mine"), reusable=True)
    async with (
        open_fake_daemon("mine", echo, path=tmp_path / "run/mine") as daemon,
        open_pool(mine, home=tmp_path) as pool,
    ):
        assert await pool.request("x") == "ok x"
        assert await pool.request("y") == "ok y"
        assert daemon.connections == 1


async def test_missing_and_refused(tmp_path: Path) -> None:
    async with open_pool("authd", home=tmp_path) as pool:
        with pytest.raises(WazuhInternalError) as caught:
            await pool.request("x")
        assert caught.value.code == 1013
        path = tmp_path / "queue/sockets/auth"
        path.parent.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
        with pytest.raises(WazuhInternalError) as caught:
            await pool.request("x")
        assert caught.value.code == 1121
        assert pool.statistics().in_use == 0


async def test_misuse() -> None:
    with pytest.raises(ValueError, match="at least one"):
        async with open_pool("wazuh-db", size=0):
            pass
    with pytest.raises(ValueError, match="negative"):
        async with open_pool("wazuh-db", idle_timeout=-1):
            pass
    with pytest.raises(ValueError, match="never answers"):
        async with open_pool(Daemon("ar", ("queue/alerts/ar",), kind="datagram")):
            pass
    with pytest.raises(WazuhInternalError, match="no daemon is called"):
        async with open_pool("nobody"):
            pass


async def test_repr_tells_the_state() -> None:
    async with open_pool("wazuh-db", size=2) as pool:
        assert repr(pool) == "<Pool wazuh-db: 0 idle, 0 in use, of 2>"
    assert repr(pool) == "<Pool wazuh-db: closed>"


async def test_a_connection_that_streamed_rows_is_not_used_again() -> None:
    """wazuh-db gives it a send timeout for ever, also where the agent has none."""
    answers = ['ok {"status":"NOT_SYNCED"}', "ok []", 'ok {"status":"x"}', "ok []"]
    async with (
        open_fake_daemon("wazuh-db", answers) as daemon,
        open_pool("wazuh-db", connect=daemon.connect) as pool,
    ):
        for query, connections in (("agent 002 package get", 1), ("a", 2), ("b", 2), ("c", 2)):
            await pool.request(query)
            assert daemon.connections == connections
