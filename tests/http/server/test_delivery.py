"""Commands reach their agent or go back: whatever the network and the agent do, an offer has exactly one fate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from socket import IPPROTO_TCP, SO_LINGER, SO_RCVBUF, SOL_SOCKET, TCP_INFO
from struct import pack

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.http.server.listener import (
    COMMAND,
    FakeOffer,
    Fakes,
    Server,
    app_of,
    problem,
    read_reply,
    request_bytes,
    serving,
    serving_tcp,
    until,
)
from wazuh_comms_trio.api.agent_api.commands import cancel_when_gone
from wazuh_comms_trio.api.problems import describe
from wazuh_comms_trio.backends.interfaces import Action, Command, Target
from wazuh_comms_trio.config.models import Limits
from wazuh_comms_trio.errors import TokenInvalid
from wazuh_comms_trio.http.server.connection import Connection, serve_connection
from wazuh_comms_trio.http.server.delivery import (
    EXTENSION,
    DeliveryConfirmation,
    unread_bytes,
)
from wazuh_comms_trio.http.server.hypercorn_protocol import Message, Scope
from wazuh_comms_trio.http.server.listener_context import ListenerContext, Receive, Send
from wazuh_comms_trio.http.server.replies import send_reply
from wazuh_comms_trio.testing.streams import MemoryStream, memory_connection

POLL = request_bytes("GET", "/api/v1/commands")


@asynccontextmanager
async def polling(*, send_timeout: float = 30) -> AsyncIterator[tuple[Server, MemoryStream, FakeOffer]]:
    """A poll for which there is something, on a connection that is the test's to break."""
    offer = FakeOffer()
    fakes = Fakes()
    fakes.commands.offers.append(offer)
    async with serving(fakes, limits=Limits(send_timeout=send_timeout)) as server:
        stream = await server.listener.connect()
        await stream.send_all(POLL)
        yield server, stream, offer


async def settled(offer: FakeOffer) -> list[str]:
    await offer.settled.wait()
    await trio.sleep(100)  # nothing is to follow
    return offer.fate


async def test_acknowledged_is_confirmed(autojump_clock: MockClock) -> None:
    async with polling() as (_, stream, offer):
        assert (await read_reply(stream)).json()["commands"][0]["document_id"] == "c1"
        assert await settled(offer) == ["confirmed"]


async def test_confirmed_without_being_read(autojump_clock: MockClock) -> None:
    """What counts is the other side's acknowledgement, not its program."""
    async with polling() as (_, _, offer):
        assert await settled(offer) == ["confirmed"]


async def test_late_acknowledgement_is_confirmed(autojump_clock: MockClock) -> None:
    async with polling() as (_, stream, offer):
        stream.fall_silent()
        await trio.sleep(29)
        assert offer.fate == []
        stream.wake_up()
        assert await settled(offer) == ["confirmed"]


async def test_no_acknowledgement_is_released(autojump_clock: MockClock) -> None:
    async with polling() as (_, stream, offer):
        stream.fall_silent()
        await trio.sleep(29.5)
        assert offer.fate == []
        await trio.sleep(1)
        assert offer.fate == ["released"]
        stream.wake_up()
        assert await settled(offer) == ["released"]
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()  # it will come by another poll


async def test_a_reset_without_acknowledgement_is_released(autojump_clock: MockClock) -> None:
    async with polling() as (_, stream, offer):
        stream.fall_silent()
        await trio.sleep(1)
        stream.reset()
        await trio.sleep(1)
        assert offer.fate == ["released"]


async def test_a_reset_after_acknowledgement_is_confirmed(autojump_clock: MockClock) -> None:
    async with polling() as (_, stream, offer):
        await wait_all_tasks_blocked()
        stream.reset()
        assert await settled(offer) == ["confirmed"]


async def test_an_agent_that_left_before_the_answer_gets_nothing(autojump_clock: MockClock) -> None:
    """Its end is there when the command is, so that the answer meets a closed socket."""
    offer = FakeOffer()
    fakes = Fakes()
    async with serving(fakes) as server:
        stream = await server.listener.connect()
        await stream.send_all(POLL)
        await wait_all_tasks_blocked()
        assert fakes.commands.parked == 1
        stream.close()
        await wait_all_tasks_blocked()
        fakes.commands.offers.append(offer)
        fakes.commands.closing.set()
        await trio.sleep(1)
    assert fakes.commands.cancelled == 1
    assert offer.fate == []


@pytest.mark.parametrize("how", ["end", "reset"])
async def test_a_parked_poll_ends_when_its_agent_leaves(autojump_clock: MockClock, how: str) -> None:
    async with serving() as server:
        stream = await server.listener.connect()
        await stream.send_all(POLL)
        await wait_all_tasks_blocked()
        assert server.fakes.commands.parked == 1
        if how == "reset":
            stream.reset()
        else:
            await stream.send_eof()
        await wait_all_tasks_blocked()
        assert (server.fakes.commands.parked, server.fakes.commands.cancelled) == (0, 1)


async def test_what_a_parked_agent_sends_is_dropped(autojump_clock: MockClock) -> None:
    """A little of it. Who goes on and on counts as gone."""
    async with serving() as server:
        stream = await server.listener.connect()
        await stream.send_all(POLL + POLL)
        await wait_all_tasks_blocked()
        assert server.fakes.commands.parked == 1
        await stream.send_all(POLL)
        await wait_all_tasks_blocked()
        assert server.fakes.commands.parked == 1
        await stream.send_all(b"x" * 70_000)
        await wait_all_tasks_blocked()
        assert server.fakes.commands.parked == 0


async def test_a_poll_may_have_a_body(autojump_clock: MockClock) -> None:
    async with serving() as server:
        reply = await server.request("GET", "/api/v1/commands", b"{}")
        assert problem(reply) == (408, 408)


async def test_a_poll_whose_agent_is_removed_is_403(autojump_clock: MockClock) -> None:
    fakes = Fakes()
    fakes.commands.error = TokenInvalid()
    async with serving(fakes) as server:
        assert problem(await server.request("GET", "/api/v1/commands")) == (403, 2706)


async def test_a_stream_that_cant_count_is_confirmed_by_its_end(autojump_clock: MockClock) -> None:
    for ends in (True, False):
        fakes = Fakes()
        fakes.commands.offers.append(offer := FakeOffer())
        client, server = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                serve_connection, server, ListenerContext(app_of(fakes), Limits(send_timeout=5), describe)
            )
            await client.send_all(POLL)
            assert (await read_reply(client)).status == 200
            if ends:
                await client.aclose()
            assert await settled(offer) == ["confirmed" if ends else "released"]


async def test_an_end_behind_the_reply_takes_no_delivery_back() -> None:
    """Whoever watches for the peer's leaving may see it before the delivery is looked at."""
    fates: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        confirmation: DeliveryConfirmation = scope["extensions"][EXTENSION]
        confirmation.expect()
        await send_reply(send, 200, b"{}")
        assert (await receive())["type"] == "http.disconnect"
        fates.append(await confirmation.confirmed())

    client, server = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, server, ListenerContext(app, Limits(send_timeout=5), describe))
        await client.send_all(POLL)
        assert (await read_reply(client)).status == 200
        await client.aclose()
    assert fates == [True]


async def test_who_watches_reads_nothing_once_there_is_a_delivery() -> None:
    """Also where it hasn't run yet: the agent may have its commands by then, and have closed."""

    async def receive() -> Message:
        raise AssertionError

    polling, watching = trio.CancelScope(), trio.CancelScope()
    watching.cancel()
    await cancel_when_gone(receive, polling, watching)
    assert not polling.cancel_called


# --- real sockets: what the kernel says


@asynccontextmanager
async def real_poll(fakes: Fakes, limits: Limits) -> AsyncIterator[trio.SocketStream]:
    """Over a connection whose client's buffer is small."""
    async with serving_tcp(fakes, limits=limits) as address:
        sock = trio.socket.socket()
        sock.setsockopt(SOL_SOCKET, SO_RCVBUF, 4096)
        await sock.connect(address)
        async with trio.SocketStream(sock) as stream:
            await stream.send_all(POLL)
            yield stream


@pytest.mark.real_clock
@pytest.mark.parametrize("ending", ["reads and shuts down", "doesn't read", "reads half and resets"])
async def test_over_tcp(ending: str) -> None:
    """The answer is larger than the buffers between, so that it is acknowledged only to a reader."""
    large = Command("c", Target("agent", "a"), Action("restart", args={"x": "y" * 30_000_000}))
    offer = FakeOffer(commands=[COMMAND, large])
    fakes = Fakes()
    fakes.commands.offers.append(offer)
    async with real_poll(fakes, Limits(send_timeout=0.5)) as stream:
        if ending == "reads and shuts down":
            await read_reply_of_any_size(stream)
            stream.socket.shutdown(2)
        elif ending == "reads half and resets":
            await stream.receive_some(1000)
            stream.setsockopt(SOL_SOCKET, SO_LINGER, pack("ii", 1, 0))
            stream.socket.close()
        await until(lambda: offer.fate)
    assert offer.fate == ["confirmed" if ending == "reads and shuts down" else "released"]


async def read_reply_of_any_size(stream: trio.abc.ReceiveStream) -> None:
    data = await stream.receive_some(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    missing = length - len(body)
    while missing:
        piece = await stream.receive_some(65536)
        assert piece, "it ended early"
        missing -= len(piece)


@pytest.mark.real_clock
@pytest.mark.parametrize("how", ["it took too long", "it is cancelled"])
async def test_what_is_taken_back_never_arrives(how: str) -> None:
    """Though our kernel has all of it: an agent that reads on would have the command twice."""
    offer = FakeOffer(commands=[Command("c", Target("agent", "a"), Action("restart", args={"x": "y" * 60_000}))])
    fakes = Fakes()
    fakes.commands.offers.append(offer)
    timeout = 0.2 if how == "it took too long" else 60
    sock = trio.socket.socket()
    sock.setsockopt(SOL_SOCKET, SO_RCVBUF, 4096)
    async with trio.SocketStream(sock) as stream:
        async with serving_tcp(fakes, limits=Limits(send_timeout=timeout)) as address:
            await sock.connect(address)
            await stream.send_all(POLL)
            await until(lambda: unread_bytes(sock) > 0)
            if how == "it took too long":
                await until(lambda: offer.fate)
        assert offer.fate == ["released"]
        with pytest.raises(trio.BrokenResourceError):
            await read_reply_of_any_size(stream)


@pytest.mark.parametrize("arrives", [True, False])
async def test_who_is_cancelled_before_it_could_ask_takes_nothing_back_that_arrived(
    arrives: bool, autojump_clock: MockClock
) -> None:
    """Between the reply and the first look a nursery ends."""
    fakes = Fakes()
    fakes.commands.offers.append(offer := FakeOffer())
    client, transport = memory_connection()
    context = ListenerContext(app_of(fakes), Limits(send_timeout=5), describe)
    await client.send_all(POLL)
    if not arrives:
        client.fall_silent()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, transport, context)
        if arrives:
            assert (await client.receive_some()).endswith(b"}")
        else:
            await wait_all_tasks_blocked()
            assert transport.unacknowledged_bytes
        assert not offer.fate
        nursery.cancel_scope.cancel()
    assert offer.fate == ["confirmed" if arrives else "released"]


async def test_what_has_arrived_by_the_time_it_is_given_up_is_confirmed(autojump_clock: MockClock) -> None:
    """Between two looks."""
    client, transport = memory_connection()
    connection = Connection(transport, ListenerContext(never_called, Limits(send_timeout=5), describe))
    connection.http = FinishedReply()  # type: ignore[assignment]
    client.fall_silent()
    await connection.send({"type": "http.response.body", "body": b"reply"})
    with trio.move_on_after(1):
        await connection.confirmed()
    client.wake_up()
    assert connection.give_up()
    client.fall_silent()
    await transport.send_all(b"more")
    assert not connection.give_up()
    client.wake_up()
    assert await client.receive_some() == b"reply"
    with pytest.raises(trio.BrokenResourceError):
        await client.receive_some()


@pytest.mark.real_clock
async def test_an_agent_that_closed_before_the_answer_over_tcp(
    pair: tuple[trio.SocketStream, trio.SocketStream],
) -> None:
    """Its FIN and the command cross: it looks like an end in order, but what was sent is answered with a reset."""

    async def never_called(*_: object) -> None:
        raise AssertionError

    client, server = pair
    connection = Connection(server, ListenerContext(never_called, Limits(send_timeout=5), describe))
    connection.http = FinishedReply()  # type: ignore[assignment]
    await client.aclose()
    await until(lambda: has_ended(server))
    await server.send_all(b"x" * 1000)
    assert await connection.confirmed() is False


class FinishedReply:
    finished = True

    def __init__(self) -> None:
        self.outgoing: list[bytes] = []

    async def write(self, message: Message) -> None:
        self.outgoing.append(message["body"])


async def never_called(scope: object, receive: object, send: object) -> None:
    raise AssertionError


def has_ended(stream: trio.SocketStream) -> bool:
    """Has the peer's FIN arrived?"""
    close_wait = 8
    return bool(stream.getsockopt(IPPROTO_TCP, TCP_INFO, 1)[0] == close_wait)


async def test_what_is_confirmed_stays_so_for_who_is_cancelled(
    pair: tuple[trio.SocketStream, trio.SocketStream],
) -> None:
    """The end of TLS is still to be sent then."""
    connection = Connection(pair[1], ListenerContext(never_called, Limits(send_timeout=5), describe))
    connection.http = FinishedReply()  # type: ignore[assignment]
    connection.expect()
    confirmed = False
    with trio.CancelScope() as scope:
        scope.cancel()
        confirmed = await connection.confirmed()
    assert confirmed
