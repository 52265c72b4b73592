"""On real sockets: what the kernel has a say in."""

from __future__ import annotations

import errno
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.conftest import Certificates
from tests.http.server.listener import Fakes, app_of, read_reply, request_bytes, serving_tcp
from wazuh_comms_trio.api.problems import describe
from wazuh_comms_trio.config.models import Limits, Ssl
from wazuh_comms_trio.config.tls import server_context
from wazuh_comms_trio.http.server.accept_loop import DESCRIPTOR_WAIT, accept_connections
from wazuh_comms_trio.http.server.listener_context import ListenerContext
from wazuh_comms_trio.testing.agent.http import ReplyDecoder
from wazuh_comms_trio.testing.streams import MemoryListener

LIMITS = Limits()


def tls(certificates: Certificates) -> ssl.SSLContext:
    return server_context(Ssl(certificates.key, certificates.cert))


class Agent:
    """Blocking, as agents are: connect, handshake, write everything, read the reply, shut down. Nagle's algorithm is
    on."""

    def __init__(self, port: int) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE
        self.port = port

    def exchange(self, request: bytes) -> bytes:
        decoder = ReplyDecoder()
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=30) as raw,
            self.context.wrap_socket(raw) as stream,
        ):
            stream.sendall(request)
            data = b""
            while decoder.reply is None:
                data += (piece := stream.recv(65536))
                decoder.feed(piece)
            with suppress(OSError):
                raw.shutdown(socket.SHUT_RDWR)
        return data

    def fastest(self, request: bytes, times: int) -> float:
        """Seconds."""
        durations = []
        for _ in range(times):
            began = time.perf_counter()
            self.exchange(request)
            durations.append(time.perf_counter() - began)
        return min(durations)


async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    return await trio.to_thread.run_sync(partial(function, *args))


@pytest.mark.real_clock
async def test_nagle_and_delayed_acknowledgement_dont_wait_for_each_other(certificates: Certificates) -> None:
    """Without the cure each of these takes 40 ms and more, on however fast a machine."""
    async with serving_tcp(Fakes(), ssl_context=tls(certificates)) as (_, port):
        request = request_bytes("POST", "/api/v1/events/stateful", b"x" * 100)
        assert await in_thread(Agent(port).fastest, request, 20) < 0.030


@pytest.mark.real_clock
@pytest.mark.parametrize("status", [403, 404, 405, 413])
async def test_a_refusal_reaches_an_agent_that_writes_first(certificates: Certificates, status: int) -> None:
    """Every time, over TLS, with bodies that are larger than all buffers between."""
    body = b"x" * 1_900_000
    limits = Limits(body_bytes=1_800_000 if status == 413 else LIMITS.body_bytes)
    path = {404: "/api/v1/nothing", 405: "/api/v1/commands"}.get(status, "/api/v1/events/stateful")
    request = request_bytes("POST", path, body, token=b"bad" if status == 403 else b"good")
    async with serving_tcp(Fakes(), limits=limits, ssl_context=tls(certificates)) as (_, port):
        for _ in range(3):
            data = await in_thread(Agent(port).exchange, request)
            assert data.startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.real_clock
async def test_many_at_once(certificates: Certificates) -> None:
    fakes = Fakes()
    async with serving_tcp(fakes, ssl_context=tls(certificates)) as (_, port), trio.open_nursery() as nursery:
        agent = Agent(port)
        for number in range(40):
            request = request_bytes("POST", "/api/v1/events/stateful", b"%d" % number)
            nursery.start_soon(in_thread, agent.exchange, request)
    assert sorted(fakes.stateful.bodies, key=int) == [b"%d" % number for number in range(40)]


@pytest.mark.real_clock
async def test_a_pipelined_request_doesnt_cost_the_first_its_reply(certificates: Certificates) -> None:
    async with serving_tcp(Fakes()) as (_, port):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(request_bytes("POST", "/api/v1/events/stateful", b"first"))
        await stream.send_all(request_bytes("POST", "/api/v1/events/stateful", b"second" * 1000))
        assert (await read_reply(stream)).status == 200
        await stream.aclose()


# --- accepting


class Full(trio.abc.Listener[trio.abc.Stream]):
    """A listener for which there are no descriptors left, for a while."""

    def __init__(self, number: int, times: int, then: MemoryListener) -> None:
        self.number = number
        self.left = times
        self.asked = 0
        self.then = then

    async def accept(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        if self.left:
            self.left -= 1
            raise OSError(self.number, "Too many open files")
        return await self.then.accept()

    async def aclose(self) -> None:
        await self.then.aclose()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_accepting_waits_for_descriptors(
    number: int, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten times a second, without spinning, and with one line in the log."""
    memory = MemoryListener()
    listener = Full(number, 50, memory)
    client = await memory.connect()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept_connections, listener, ListenerContext(app_of(Fakes()), LIMITS, describe), nursery)
        began = trio.current_time()
        await client.send_all(request_bytes("GET", "/api/v1/"))
        assert (await read_reply(client)).status == 200
        assert trio.current_time() - began == pytest.approx(50 * DESCRIPTOR_WAIT)
        assert listener.asked == 52
        nursery.cancel_scope.cancel()
    assert [record.levelname for record in caplog.records if record.levelname != "DEBUG"] == ["WARNING"]


async def test_other_errors_of_accept_come_out(autojump_clock: MockClock) -> None:
    listener = Full(errno.EBADF, 1, MemoryListener())
    async with trio.open_nursery() as nursery:
        with pytest.raises(OSError, match="open files"):
            await accept_connections(listener, ListenerContext(app_of(Fakes()), LIMITS, describe), nursery)
