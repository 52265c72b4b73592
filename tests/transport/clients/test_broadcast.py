"""Commands to one agent, to several and to all: what is sent, in which order, and who is reported as not reached."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from wazuh_comms_trio.errors import MessageInvalid, WazuhInternalError
from wazuh_comms_trio.testing import ArMessage, ExecMessage, FakeQueue, open_fake_queue
from wazuh_comms_trio.transport import (
    AR_QUEUE,
    EXECQ_QUEUE,
    BroadcastReport,
    NotReached,
    WazuhAsyncQueue,
    broadcast,
    create_active_response,
    create_script_command,
    force_reconnect,
    restart_agents,
    restart_syscheck,
    send_active_response,
    send_command,
)

THOUSANDS = [f"{number:03}" for number in range(1, 3001)]


@pytest.fixture
async def ar(tmp_path: Path) -> AsyncIterator[FakeQueue]:
    async with open_fake_queue("ar", home=tmp_path) as queue:
        yield queue


@pytest.fixture
async def queue(ar: FakeQueue, tmp_path: Path) -> AsyncIterator[WazuhAsyncQueue]:
    async with await WazuhAsyncQueue.from_path(str(tmp_path / AR_QUEUE)) as queue:
        yield queue


async def received(ar: FakeQueue, count: int) -> list[ArMessage]:
    await ar.wait_datagrams(count)
    assert ar.dropped == []
    assert all(isinstance(message, ArMessage) for message in ar.messages)
    return [message for message in ar.messages if isinstance(message, ArMessage)]


async def test_active_response_to_one_agent(queue: WazuhAsyncQueue, ar: FakeQueue) -> None:
    report = await send_active_response(queue, "001", "firewall-drop", ["-", "10.0.0.7"], alert={"rule": {"id": "5"}})
    assert report == BroadcastReport(1)
    assert report.complete
    (message,) = await received(ar, 1)
    assert (message.flags, message.agent_id, message.active_response) == ("NNS", "001", True)
    assert json.loads(message.message) == {
        "version": 1,
        "origin": {"module": "framework"},
        "command": "firewall-drop",
        "parameters": {"extra_args": ["-", "10.0.0.7"], "alert": {"rule": {"id": "5"}}},
    }


async def test_custom_scripts(queue: WazuhAsyncQueue, ar: FakeQueue) -> None:
    await send_active_response(queue, "001", "cleanup.sh", ["a b"], custom=True)
    await send_command(queue, "001", create_script_command("cleanup.sh", "-x", "y"))
    as_json, as_text = await received(ar, 2)
    assert json.loads(as_json.message)["command"] == "!cleanup.sh"
    assert json.loads(as_json.message)["parameters"]["extra_args"] == ["a b"]
    assert as_text.message == "!cleanup.sh -x y"


async def test_to_all_agents_is_one_datagram(queue: WazuhAsyncQueue, ar: FakeQueue) -> None:
    assert (await send_active_response(queue, "all", "x")).sent == 1
    await restart_agents(queue, "all")
    await restart_syscheck(queue, "all")
    await force_reconnect(queue, "all")
    messages = await received(ar, 4)
    assert [message.to_all for message in messages] == [True] * 4
    assert [message.flags for message in messages] == ["ANN", "ANN", "A!N", "A!N"]
    restart, tail = messages[1].message.split("} - ")  # agents of 4.2 and newer act on nothing but the JSON form
    assert json.loads(restart + "}") == {
        "version": 1,
        "origin": {"module": "framework"},
        "command": "restart-wazuh0",
        "parameters": {"extra_args": [], "alert": {}},
    }
    assert tail == "null (from_the_server) (no_rule_id)"
    assert [message.message for message in messages[2:]] == ["syscheck restart", "force_reconnect"]


@pytest.mark.parametrize("wrong", ["", None, "1", "(null)", 1])
async def test_no_id_makes_it_a_message_to_all(queue: WazuhAsyncQueue, ar: FakeQueue, wrong: str) -> None:
    for ids in ([wrong], ["001", wrong]):
        with pytest.raises(MessageInvalid, match="1012"):
            await broadcast(queue, ids, "force_reconnect")
    assert (await broadcast(queue, [], "force_reconnect")) == BroadcastReport(0)
    assert (await broadcast(queue, ["002"], "force_reconnect")).complete
    assert [message.agent_id for message in await received(ar, 1)] == ["002"]


async def test_orders_to_several(queue: WazuhAsyncQueue, ar: FakeQueue) -> None:
    assert (await restart_agents(queue, ["001", "002"], legacy=True)).sent == 2
    assert (await restart_syscheck(queue, ("003",))).sent == 1
    assert (await force_reconnect(queue, iter(["004"]))).sent == 1
    messages = await received(ar, 4)
    assert [(message.flags, message.agent_id) for message in messages] == [
        ("NNS", "001"),
        ("NNS", "002"),
        ("N!S", "003"),
        ("N!S", "004"),
    ]
    assert messages[0].message == "restart-ossec0 - null (from_the_server) (no_rule_id)"


async def test_thousands_in_order_through_a_small_queue(queue: WazuhAsyncQueue, ar: FakeQueue) -> None:
    report = await send_command(queue, THOUSANDS, create_active_response("x"))
    assert report == BroadcastReport(len(THOUSANDS))
    assert [message.agent_id for message in await received(ar, len(THOUSANDS))] == THOUSANDS


async def test_others_run_meanwhile(queue: WazuhAsyncQueue, ar: FakeQueue) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await send_command(queue, THOUSANDS, "!x")
        nursery.cancel_scope.cancel()
    assert turns > 40


async def test_who_was_not_reached_in_time(
    queue: WazuhAsyncQueue, ar: FakeQueue, autojump_clock: trio.testing.MockClock
) -> None:
    ar.pause()
    report = await restart_agents(queue, THOUSANDS[:100], send_timeout=5)
    assert trio.current_time() == pytest.approx(5)
    assert 0 < report.sent < 100
    assert not report.complete
    assert [one.agent_id for one in report.not_reached] == THOUSANDS[report.sent : 100]
    assert {one.reason for one in report.not_reached} == {"the queue stayed full until the deadline"}
    ar.resume()
    reached = await received(ar, report.sent)
    assert [message.agent_id for message in reached] == THOUSANDS[: report.sent]
    # The queue is as good as before, and those who were missed can be asked again.
    again = await restart_agents(queue, [one.agent_id for one in report.not_reached])
    assert again.complete


async def test_no_time_at_all(queue: WazuhAsyncQueue, ar: FakeQueue) -> None:
    ar.pause()
    report = await restart_agents(queue, ["001", "002"], send_timeout=0)
    assert report.sent + len(report.not_reached) == 2


async def test_reader_that_ends_is_reported(queue: WazuhAsyncQueue, ar: FakeQueue) -> None:
    ar.pause()
    reports = []

    async def send() -> None:
        reports.append(await send_command(queue, THOUSANDS[:100], "!x"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        ar.close()
    (report,) = reports
    assert 0 < report.sent < 100
    assert report.not_reached[0].agent_id == THOUSANDS[report.sent]
    assert "reader is gone" in report.not_reached[0].reason
    assert len(report.not_reached) == 100 - report.sent


async def test_queue_closed_by_us_is_reported(queue: WazuhAsyncQueue) -> None:
    await queue.aclose()
    report = await send_command(queue, "all", "!x")
    assert report.sent == 0
    assert report.not_reached[0].agent_id == "all"


async def test_what_the_system_refuses_is_reported(queue: WazuhAsyncQueue, ar: FakeQueue) -> None:
    assert queue.socket is not None
    queue.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # as a system may have limited it
    report = await send_command(queue, ["001", "002"], "!script " + "x" * 30_000)
    assert report.sent == 0
    assert [one.agent_id for one in report.not_reached] == ["001", "002"]
    assert "longer than the send buffer holds" in report.not_reached[0].reason


async def test_cancelled_from_outside(queue: WazuhAsyncQueue, ar: FakeQueue) -> None:
    ar.pause()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_command, queue, THOUSANDS, "!x")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    ar.resume()
    await send_command(queue, "999", "!last")
    while not ar.messages or ar.messages[-1].message != "!last":
        await ar.wait_datagrams(len(ar.datagrams) + 1)
    assert ar.dropped == [], "no datagram went out in part"
    ids = [message.agent_id for message in ar.messages if isinstance(message, ArMessage)]
    assert ids[:-1] == THOUSANDS[: len(ids) - 1]


async def test_broadcasts_of_two_tasks_each_keep_their_order(queue: WazuhAsyncQueue, ar: FakeQueue) -> None:
    async with trio.open_nursery() as nursery:
        for name in ("!a", "!b"):
            nursery.start_soon(send_command, queue, THOUSANDS[:500], name)
    messages = await received(ar, 1000)
    for name in ("!a", "!b"):
        assert [one.agent_id for one in messages if one.message == name] == THOUSANDS[:500]


# --- the server itself ------------------------------------------------------------------------------------------------


async def test_agent_000_is_asked_through_execd(queue: WazuhAsyncQueue, ar: FakeQueue, tmp_path: Path) -> None:
    async with (
        open_fake_queue("execq", home=tmp_path) as execd,
        await WazuhAsyncQueue.from_path(str(tmp_path / EXECQ_QUEUE)) as execq,
    ):
        report = await send_active_response(queue, ["001", "000", "002"], "restart-wazuh", execq=execq, send_timeout=5)
        assert report == BroadcastReport(3)
        await execd.wait_datagrams(1)
        (message,) = execd.messages
        assert isinstance(message, ExecMessage)
        assert message.command == "restart-wazuh"
        assert [one.agent_id for one in await received(ar, 2)] == ["001", "002"]
        assert (await send_active_response(queue, "000", "x", execq=execq)).sent == 1
        with pytest.raises(WazuhInternalError, match="version 1 messages only"):
            await send_command(queue, "000", "!x", execq=execq)
        execd.close()
        report = await send_active_response(queue, ["000", "003"], "x", execq=execq)
        assert (report.sent, [one.agent_id for one in report.not_reached]) == (1, ["000"])


async def test_agent_000_takes_no_orders(queue: WazuhAsyncQueue, ar: FakeQueue) -> None:
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: restart_agents(queue, "000"),
        lambda: restart_syscheck(queue, ["001", "000"]),
        lambda: force_reconnect(queue, "000"),
        lambda: send_active_response(queue, "000", "x"),
    ]
    for call in calls:
        with pytest.raises(WazuhInternalError, match="000 is the server itself"):
            await call()
    assert ar.datagrams == []


# --- what is refused --------------------------------------------------------------------------------------------------


async def test_everything_is_checked_before_the_first_datagram(queue: WazuhAsyncQueue, ar: FakeQueue) -> None:
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: send_command(queue, ["001", "2"], "!x"),
        lambda: send_command(queue, ["001", "(null)"], "!x"),
        lambda: send_command(queue, ["001", 2], "!x"),  # type: ignore[list-item]
        lambda: send_command(queue, "", "!x"),
        lambda: send_command(queue, [], "!x"),
        lambda: send_command(queue, "001", "!x\nA!N (null) y"),
        lambda: send_command(queue, "001", "!x\0"),
        lambda: send_command(queue, "001", ""),
        lambda: send_command(queue, ["001", "1" * 70_000], "!x"),
        lambda: send_command(queue, "001", "!" + "x" * 65_600),
        lambda: broadcast(queue, ["001"], "no such order"),
        lambda: send_active_response(queue, "001", "a b"),
        lambda: send_active_response(queue, "001", "../x", custom=True),
        lambda: send_active_response(queue, "001", ""),
        lambda: send_active_response(queue, "001", "x", "argument"),
        lambda: send_active_response(queue, "001", "x", [5]),  # type: ignore[list-item]
        lambda: send_active_response(queue, "001", "x", ["a\0"]),
        lambda: send_active_response(queue, "001", "x", alert={"a": {1, 2}}),
    ]
    for call in calls:
        with pytest.raises(WazuhInternalError) as caught:
            await call()
        assert caught.value.code == 1012
    assert ar.datagrams == []


@pytest.mark.parametrize(
    ("script", "arguments"), [("a b", ()), ("", ()), ("x", ("a b",)), ("x", ("",)), ("x", ("a\n",)), ("/bin/x", ())]
)
def test_script_commands_that_would_be_read_as_something_else(script: str, arguments: tuple[str, ...]) -> None:
    with pytest.raises(WazuhInternalError):
        create_script_command(script, *arguments)


def test_an_active_response_is_one_line_of_json() -> None:
    message = create_active_response(
        "x", ["a b\u00e9"], alert={"log": "a\nb"}, origin={"module": "mine", "name": "node"}
    )
    assert "\n" not in message
    assert json.loads(message)["parameters"] == {"extra_args": ["a b\u00e9"], "alert": {"log": "a\nb"}}
    assert json.loads(message)["origin"] == {"module": "mine", "name": "node"}
    assert create_script_command("!x") == "!x"
    assert json.loads(create_active_response("!x", custom=True))["command"] == "!x"


def test_reports_add_up() -> None:
    report = BroadcastReport(1, (NotReached("002", "why"),)) + BroadcastReport(3)
    assert report == BroadcastReport(4, (NotReached("002", "why"),))
