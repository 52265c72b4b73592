"""What the whole daemon does when time passes, on the mock clock: limits, ends of tokens, batches, shutdown."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.e2e.in_memory import logged_in, timed
from wazuh_comms_trio.config.models import Batcher, Limits, Shutdown, Timeouts
from wazuh_comms_trio.testing.agent.client import AgentClient, stateful_event, stateless_event, token_expiry
from wazuh_comms_trio.testing.agent.http import ExchangeFailed, Reply, ReplyDecoder, exchange, request_head
from wazuh_comms_trio.testing.node.daemon import daemon_config, open_daemon
from wazuh_comms_trio.testing.streams import MemoryStream

EVENT = stateful_event("a1", "fim", "create", {"file": {"path": "/etc/passwd"}})
NEWS = stateless_event("logcollector", "file", {"event": {"original": "hello"}})


# --- long polls


async def test_a_poll_ends_after_300_seconds_give_or_take_a_tenth(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent = await logged_in(daemon)
        seconds = []
        for _ in range(5):
            reply, took = await timed(agent.poll)
            assert (reply.status, reply.json()["code"]) == (408, 408)
            seconds.append(took)
            await agent.authenticate()
        assert all(269.9 <= took <= 330.1 for took in seconds)
        assert len({round(took) for took in seconds}) > 1  # spread: a fleet doesn't come back in one wave


async def test_a_poll_ends_with_its_token(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent = await logged_in(daemon)
        assert agent.token is not None
        await trio.sleep(token_expiry(agent.token) - daemon.clock() - 100)
        reply, took = await timed(agent.poll)
        assert reply.status == 408
        assert 95 <= took <= 100.1
        reply, took = await timed(agent.poll)
        assert (reply.status, reply.json()["code"], took < 0.1) == (403, 2707, True)


async def test_a_token_is_good_until_its_end_and_no_second_more(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent = await logged_in(daemon)
        assert agent.token is not None
        await trio.sleep(token_expiry(agent.token) - daemon.clock() - 1)
        assert (await agent.post_stateless([NEWS])).status == 204
        await trio.sleep(1)
        reply = await agent.post_stateless([NEWS])
        assert (reply.status, reply.json()["code"]) == (403, 2707)


async def test_a_removed_agents_poll_is_refused_while_it_is_parked(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon, trio.open_nursery() as nursery:
        agent = await logged_in(daemon)

        async def poll() -> None:
            reply, took = await timed(agent.poll)
            assert (reply.status, reply.json()["code"]) == (403, 2706)
            assert took < 5

        nursery.start_soon(poll)
        await wait_all_tasks_blocked()
        await daemon.backends.agents.remove(agent.uuid)


# --- events


async def test_alone_an_event_does_not_wait_for_a_batch(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent = await logged_in(daemon)
        reply, took = await timed(lambda: agent.post_stateful([EVENT]))
        assert (reply.status, took < 0.01) == (200, True)


async def test_without_eagerness_a_batch_goes_after_wait_time(autojump_clock: MockClock) -> None:
    async with open_daemon(daemon_config(batcher=Batcher(eager=False, wait_time=0.15))) as daemon:
        agent = await logged_in(daemon)
        reply, took = await timed(lambda: agent.post_stateful([EVENT]))
        assert reply.status == 200
        assert 0.14 <= took <= 0.2


async def test_a_hung_index_is_a_503_just_before_the_limit(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent = await logged_in(daemon)
        daemon.backends.events.faults.hang()
        reply, took = await timed(lambda: agent.post_stateful([EVENT]))
        assert reply.status == 503
        assert 29 <= took < 30
        daemon.backends.events.faults.release()
        reply = await agent.post_stateful([EVENT])
        assert reply.status == 200


async def test_a_hung_index_holds_up_every_request_no_longer_than_its_own_limit(autojump_clock: MockClock) -> None:
    """However many wait, and whatever the batcher is doing."""
    async with open_daemon() as daemon, trio.open_nursery() as nursery:
        agents = [await logged_in(daemon) for _ in range(40)]
        daemon.backends.events.faults.hang()

        async def post(agent: AgentClient) -> None:
            reply, took = await timed(lambda: agent.post_stateful([EVENT] * 20))
            assert reply.status == 503
            assert 29 <= took < 30

        for agent in agents:
            nursery.start_soon(post, agent)


async def test_a_slow_registry_and_a_hung_index_share_the_limit(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent = await logged_in(daemon)
        daemon.backends.agents.faults.delay = 2
        daemon.backends.events.faults.hang()
        reply, took = await timed(lambda: agent.post_stateful([EVENT]))
        assert reply.status == 503
        assert 29 <= took < 30


async def test_who_left_while_the_registry_was_slow_is_not_written_over_what_came_later(
    autojump_clock: MockClock,
) -> None:
    """An agent gives up after a second, and its next try goes to a registry that answers at once."""
    async with open_daemon() as daemon:
        agent = await logged_in(daemon)
        daemon.backends.agents.faults.delay = 3
        with trio.move_on_after(1) as limit:
            await agent.post_stateful([EVENT])
        assert limit.cancelled_caught
        daemon.backends.agents.faults.delay = 0
        newer = stateful_event("a1", "fim", "update", {"file": {"path": "/etc/shadow"}})
        assert (await agent.post_stateful([newer])).status == 200
        await trio.sleep(10)
        (document,) = daemon.backends.events.documents.values()
        assert json.loads(document.body)["file"]["path"] == "/etc/shadow"


async def test_a_hung_engine_is_a_503_just_before_the_limit(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent = await logged_in(daemon)
        daemon.backends.engine.faults.hang()
        reply, took = await timed(lambda: agent.post_stateless([NEWS]))
        assert (reply.status, reply.json()["code"]) == (503, 2800)
        assert 9 <= took < 10


async def test_a_hung_registry_is_a_503_within_the_limit_of_authentication(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent = await daemon.enrol_agent()
        daemon.backends.agents.faults.hang()
        reply, took = await timed(agent.authenticate)
        assert reply.status == 503
        assert 19 <= took < 20


# --- slow peers


async def raw(daemon: Any, data: bytes) -> tuple[trio.SSLStream[Any], ReplyDecoder]:
    stream = await daemon.connect()
    await stream.send_all(data)
    return stream, ReplyDecoder()


async def test_a_connection_that_says_nothing_is_closed_after_the_head_timeout(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        stream = await daemon.listener.connect()  # not even a handshake
        began = trio.current_time()
        assert await stream.receive_some() == b""
        assert 9.5 <= trio.current_time() - began <= 10.5


async def drip(stream: trio.abc.Stream, data: bytes, seconds: float) -> Reply:
    """Sends a byte at a time, until there is a reply."""
    decoder = ReplyDecoder()

    async with trio.open_nursery() as nursery:

        async def send() -> None:
            for position in range(len(data)):
                try:
                    await stream.send_all(data[position : position + 1])
                except trio.BrokenResourceError:
                    return
                await trio.sleep(seconds)

        nursery.start_soon(send)
        while decoder.reply is None:
            decoder.feed(await stream.receive_some(65536))
        nursery.cancel_scope.cancel()
    return decoder.reply


async def test_a_head_of_a_byte_a_second_is_408(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        stream = await daemon.connect()
        began = trio.current_time()
        reply = await drip(stream, request_head("GET", "/api/v1/commands", [("Host", "localhost")]), 1)
        assert reply.status == 408
        assert 9.5 <= trio.current_time() - began <= 10.5


async def post_head(agent: AgentClient, length: int) -> bytes:
    headers = [("Host", "h"), ("Authorization", f"Bearer {agent.token}"), ("Content-Length", str(length))]
    return request_head("POST", "/api/v1/events/stateful", headers)


async def test_a_body_that_stands_still_is_408(autojump_clock: MockClock) -> None:
    limits = Limits(body_timeout=1000)
    async with open_daemon(daemon_config(limits=limits)) as daemon:
        agent = await logged_in(daemon)
        stream = await daemon.connect()
        began = trio.current_time()
        reply = await exchange(stream, await post_head(agent, 1000), [agent.metadata])
        assert (reply.status, reply.json()["code"]) == (408, 408)
        assert 29.5 <= trio.current_time() - began <= 30.5


async def test_a_body_of_a_byte_a_second_is_408_when_its_time_is_up(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent = await logged_in(daemon)
        stream = await daemon.connect()
        began = trio.current_time()
        await stream.send_all(await post_head(agent, 1000))
        reply = await drip(stream, agent.metadata * 3, 1)
        assert reply.status == 408
        assert 15 <= trio.current_time() - began <= 16  # 15 s and a thousandth of a second's worth of bytes


async def test_a_large_body_may_take_its_time(autojump_clock: MockClock) -> None:
    """1 MiB at 64 KiB/s and a second more: the limit grows with the size."""
    async with open_daemon() as daemon:
        agent = await logged_in(daemon)
        event = stateless_event("logcollector", "file", {"text": "x" * 1000})
        body = agent.metadata + event * (1024 * 1024 // len(event))
        stream = await daemon.connect()
        headers = [("Host", "h"), ("Authorization", f"Bearer {agent.token}"), ("Content-Length", str(len(body)))]
        await stream.send_all(request_head("POST", "/api/v1/events/stateless", headers))
        for start in range(0, len(body), 65536):
            await trio.sleep(1)
            await stream.send_all(body[start : start + 65536])
        assert (await exchange(stream, b"")).status == 204


async def test_a_peer_that_does_not_read_is_given_up(autojump_clock: MockClock) -> None:
    limits = Limits(send_timeout=30)
    async with open_daemon(daemon_config(limits=limits)) as daemon:
        agent = await logged_in(daemon)
        daemon.backends.files.contents["default.conf"] = b"x" * 4_000_000
        stream = await daemon.connect()
        headers = [("Host", "h"), ("Authorization", f"Bearer {agent.token}")]
        await stream.send_all(request_head("GET", "/api/v1/files?file_name=default.conf", headers))
        await trio.sleep(40)
        with pytest.raises((trio.BrokenResourceError, ExchangeFailed)):
            await exchange(stream, b"")


# --- the end


async def test_stop_answers_parked_polls_at_once(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon, trio.open_nursery() as nursery:
        replies = []

        async def poll(agent: AgentClient) -> None:
            replies.append(await timed(agent.poll))

        for _ in range(50):
            nursery.start_soon(poll, await logged_in(daemon))
        await wait_all_tasks_blocked()
        assert daemon.worker.services.commands.parked == 50
        began = trio.current_time()
        daemon.stop.request()
        await daemon.ended.wait()
        assert trio.current_time() - began < 1
        await wait_all_tasks_blocked()
        assert {reply.status for reply, _ in replies} == {408}
        assert len(replies) == 50


async def test_stop_lets_requests_finish_and_takes_no_more(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon, trio.open_nursery() as nursery:
        agent = await logged_in(daemon)
        daemon.backends.events.faults.delay = 3

        async def post() -> None:
            reply, took = await timed(lambda: agent.post_stateful([EVENT]))
            assert (reply.status, round(took)) == (200, 3)

        nursery.start_soon(post)
        await wait_all_tasks_blocked()
        daemon.stop.request()
        await wait_all_tasks_blocked()
        with pytest.raises(ExchangeFailed):
            await agent.alive()
        await daemon.ended.wait()
        assert json.loads(await daemon.backends.events.get("wazuh-states-fim", f"{agent.uuid}_a1") or b"null")


async def fails_to_post(agent: AgentClient) -> None:
    with pytest.raises(ExchangeFailed):
        await agent.post_stateful([EVENT])


async def test_stop_ends_although_a_backend_hangs(autojump_clock: MockClock) -> None:
    async with open_daemon(daemon_config(shutdown=Shutdown(grace=10))) as daemon, trio.open_nursery() as nursery:
        agent = await logged_in(daemon)
        daemon.backends.events.faults.hang()
        nursery.start_soon(fails_to_post, agent)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        daemon.stop.request()
        await daemon.ended.wait()
        assert 10 <= trio.current_time() - began <= 16


async def test_a_second_request_to_stop_hurries(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon, trio.open_nursery() as nursery:
        agent = await logged_in(daemon)
        daemon.backends.events.faults.hang()
        nursery.start_soon(fails_to_post, agent)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        daemon.stop.request()
        await trio.sleep(1)
        daemon.stop.hurry()
        await daemon.ended.wait()
        assert trio.current_time() - began < 2


async def test_stop_while_a_connection_says_nothing(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        silent = await daemon.listener.connect()
        half = await daemon.connect()
        await half.send_all(b"GET /api/v1/ HTTP/1.1\r\nHo")
        await wait_all_tasks_blocked()
        began = trio.current_time()
        daemon.stop.request()
        await daemon.ended.wait()
        assert trio.current_time() - began < 1
        assert isinstance(silent, MemoryStream)
        assert await silent.receive_some() == b""


# --- a fleet of sleeping laptops


async def test_a_command_for_a_peer_that_sleeps_is_pending_again_and_reaches_it_at_its_next_poll(
    autojump_clock: MockClock,
) -> None:
    async with open_daemon(daemon_config(timeouts=Timeouts(commands=300))) as daemon:
        agent = await logged_in(daemon)
        asleep = await daemon.connect()
        headers = [("Host", "h"), ("Authorization", f"Bearer {agent.token}")]
        await asleep.send_all(request_head("GET", "/api/v1/commands", headers))
        await wait_all_tasks_blocked()
        assert isinstance(asleep.transport_stream, MemoryStream)
        asleep.transport_stream.fall_silent()
        command = {
            "document_id": "c1",
            "target": {"type": "agent", "id": agent.uuid},
            "action": {"name": "restart", "version": "5.0.0", "args": {}},
            "timeout": 600,
        }
        reply, took = await timed(lambda: daemon.post_commands([command]))
        assert (reply.status, reply.json()) == (200, {"commands": []})
        assert took <= 2.1
        await trio.sleep(60)
        assert (await daemon.backends.commands.get("c1")).status == "pending"
        reply, took = await timed(agent.poll)
        assert [command["document_id"] for command in reply.json()["commands"]] == ["c1"]
        assert took < 1
        await wait_all_tasks_blocked()
        assert (await daemon.backends.commands.get("c1")).status == "sent"
