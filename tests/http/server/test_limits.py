"""Every time limit of a connection, on the mock clock, and what a peer gets that runs into it."""

from __future__ import annotations

import ssl

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.conftest import Certificates
from tests.http.server.listener import (
    AUTHORIZED,
    SHORT_LIMITS,
    Fakes,
    problem,
    read_reply,
    read_to_end,
    request_bytes,
    serving,
)
from wazuh_comms_trio.config.models import Ssl, Timeouts
from wazuh_comms_trio.config.tls import server_context
from wazuh_comms_trio.errors import BackendUnavailable, EngineTimeout

STATEFUL = b"POST /api/v1/events/stateful HTTP/1.1\r\nHost: localhost\r\n" + AUTHORIZED + b"\r\n"


async def test_silence_before_tls_is_closed_without_a_word(
    autojump_clock: MockClock, certificates: Certificates
) -> None:
    context = server_context(Ssl(certificates.key, certificates.cert))
    async with serving(limits=SHORT_LIMITS, ssl_context=context) as server:
        stream = await server.connect()
        began = trio.current_time()
        assert await read_to_end(stream) == b""
        assert trio.current_time() - began == pytest.approx(SHORT_LIMITS.handshake_timeout)


async def test_silence_after_tls_is_408(autojump_clock: MockClock, certificates: Certificates) -> None:
    context = server_context(Ssl(certificates.key, certificates.cert))
    client_context = ssl.create_default_context(cafile=str(certificates.ca))
    async with serving(limits=SHORT_LIMITS, ssl_context=context) as server:
        stream = trio.SSLStream(await server.connect(), client_context, server_hostname="localhost")
        await stream.do_handshake()
        began = trio.current_time()
        assert problem(await read_reply(stream)) == (408, 408)
        assert trio.current_time() - began == pytest.approx(SHORT_LIMITS.head_timeout)
        await stream.aclose()


async def test_a_head_of_one_byte_a_second_is_408(autojump_clock: MockClock) -> None:
    async with serving(limits=SHORT_LIMITS) as server:
        stream = await server.connect()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip, stream, request_bytes("GET", "/api/v1/"), 1.0)
            assert problem(await read_reply(stream)) == (408, 408)
            assert trio.current_time() - began == pytest.approx(SHORT_LIMITS.head_timeout)
            nursery.cancel_scope.cancel()


async def drip(stream: trio.abc.SendStream, data: bytes, interval: float, size: int = 1) -> None:
    for start in range(0, len(data), size):
        await stream.send_all(data[start : start + size])
        await trio.sleep(interval)


@pytest.mark.parametrize(
    ("size", "interval", "declared", "expected"),
    [
        (0, 1, 50, 7.0),  # stands still
        (1, 1, 50, 10.1),  # moves, but each byte gives 10 ms of the second that it takes
        (1, 1, 1000, 10.1),
        (10, 6.9, 100_000, 10.1),
    ],
)
async def test_a_slow_declared_body_is_408(
    autojump_clock: MockClock, size: int, interval: float, declared: int, expected: float
) -> None:
    async with serving(limits=SHORT_LIMITS) as server:
        stream = await server.connect()
        await stream.send_all(STATEFUL + b"Content-Length: %d\r\n\r\n" % declared)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            if size:
                nursery.start_soon(drip, stream, b"x" * (declared - 1), interval, size)
            assert problem(await read_reply(stream)) == (408, 408)
            assert trio.current_time() - began == pytest.approx(expected)
            nursery.cancel_scope.cancel()
    assert server.fakes.stateful.bodies == []


async def test_chunks_are_given_time_by_what_has_arrived(autojump_clock: MockClock) -> None:
    async with serving(limits=SHORT_LIMITS) as server:
        stream = await server.connect()
        await stream.send_all(STATEFUL + b"Transfer-Encoding: chunked\r\n\r\n")
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            # 1 byte/s against 100 bytes/s: each byte buys 10 ms.
            nursery.start_soon(drip, stream, b"1\r\nx\r\n" * 100, 1.0, 6)
            assert problem(await read_reply(stream)) == (408, 408)
            assert trio.current_time() - began == pytest.approx(10.11, abs=0.02)
            nursery.cancel_scope.cancel()


async def test_a_burst_is_no_credit(autojump_clock: MockClock) -> None:
    """What came fast at first buys no slowness afterwards: the rate holds over any ``body_timeout``."""
    async with serving(limits=SHORT_LIMITS) as server:
        stream = await server.connect()
        await stream.send_all(STATEFUL + b"Content-Length: 100000\r\n\r\n" + b"x" * 50_000)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip, stream, b"x" * 40_000, 1.0, 10)
            assert problem(await read_reply(stream)) == (408, 408)
            assert trio.current_time() - began == pytest.approx(10 / 0.9, abs=0.5)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("method", "path", "size"),
    [
        ("GET", "/api/v1/commands", 4097),
        ("GET", "/api/v1/files?file_name=x", 4097),
        ("POST", "/api/v1/authentication", 8193),
        ("POST", "/api/v1/events/stateful", 100_001),
    ],
)
async def test_bodies_that_have_no_business_there_are_413_at_the_head(
    autojump_clock: MockClock, method: str, path: str, size: int
) -> None:
    async with serving(limits=SHORT_LIMITS) as server:
        stream = await server.connect()
        head = STATEFUL.replace(b"POST /api/v1/events/stateful", f"{method} {path}".encode())
        await stream.send_all(head + b"Content-Length: %d\r\n\r\n" % size)
        began = trio.current_time()
        assert problem(await read_reply(stream)) == (413, 413)
        assert trio.current_time() == began


async def test_a_get_with_endless_chunks_is_413(autojump_clock: MockClock) -> None:
    async with serving(limits=SHORT_LIMITS) as server:
        stream = await server.connect()
        head = STATEFUL.replace(b"POST /api/v1/events/stateful", b"GET /api/v1/commands")
        await stream.send_all(head + b"Transfer-Encoding: chunked\r\n\r\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip, stream, (b"400\r\n" + b"x" * 1024 + b"\r\n") * 5, 0.1, 1031)
            assert problem(await read_reply(stream)) == (413, 413)


async def test_room_is_made_for_those_who_wait(autojump_clock: MockClock) -> None:
    """First the oldest without a head, then bodies behind the rate, then polls; and nobody in the first seconds."""
    answered: list[int] = []

    def answer_oldest(count: int) -> int:
        answered.append(count)
        return 0

    async with serving(limits=attrs.evolve(SHORT_LIMITS, head_timeout=100, stall_timeout=100)) as server:
        context = server.context
        context.answer_oldest = answer_oldest
        silent = [await server.connect() for _ in range(3)]
        slow, good = await server.connect(), await server.connect()
        for stream in (slow, good):
            await stream.send_all(STATEFUL + b"Content-Length: 5000\r\n\r\n")
        await wait_all_tasks_blocked()
        assert context.make_room(2) == 0
        assert answered == [2]
        await trio.sleep(5)
        await good.send_all(b"x" * 1000)
        await wait_all_tasks_blocked()
        assert context.make_room(2) == 2
        assert [await read_to_end(stream) for stream in silent[:2]] == [b"", b""]
        assert context.make_room(2) == 1
        assert await read_to_end(silent[2]) == b""
        assert context.make_room(2) == 1
        assert problem(await read_reply(slow)) == (408, 408)
        await good.send_all(b"x" * 4000)
        assert (await read_reply(good)).status == 200
        assert answered == [2]


async def test_a_body_at_the_slowest_rate_is_taken(autojump_clock: MockClock) -> None:
    body = b"x" * 5000
    async with serving(limits=SHORT_LIMITS) as server:
        stream = await server.connect()
        await stream.send_all(STATEFUL + b"Content-Length: 5000\r\n\r\n")
        await drip(stream, body, 1.0, 100)
        assert (await read_reply(stream)).status == 200
    assert server.fakes.stateful.bodies == [body]


async def test_a_slow_engine_doesnt_use_up_the_senders_time(autojump_clock: MockClock) -> None:
    """The body's clock runs only while it is waited for; what the service takes is the service's."""
    fakes = Fakes()
    fakes.stateless.gate = gate = trio.Event()
    async with serving(fakes, limits=SHORT_LIMITS) as server:
        stream = await server.connect()
        body = b"x" * 1000
        await stream.send_all(request_bytes("POST", "/api/v1/events/stateless", body))
        await trio.sleep(1000)
        gate.set()
        assert (await read_reply(stream)).status == 204
    assert fakes.stateless.bodies == [body]


async def test_backpressure_reaches_the_sender(autojump_clock: MockClock) -> None:
    """While nobody takes the body, no more than the connection's buffers is taken from its sender."""
    fakes = Fakes()
    fakes.stateless.gate = gate = trio.Event()
    async with serving(fakes, buffer_bytes=10_000) as server:
        stream = await server.connect()
        body = b"x" * 1_000_000
        head = request_bytes("POST", "/api/v1/events/stateless", b"", token=None).replace(
            b"Content-Length: 0", AUTHORIZED + b"\r\nContent-Length: 1000000"
        )
        await stream.send_all(head)
        sent = 0
        with trio.move_on_after(5):
            while sent < len(body):
                await stream.send_all(body[sent : sent + 1000])
                sent += 1000
        assert 9_000 <= sent <= 80_000
        gate.set()
        # the piece that was cut off went partly
        await stream.aclose()


async def test_a_peer_that_doesnt_read_is_dropped(autojump_clock: MockClock) -> None:
    fakes = Fakes()
    fakes.files.files[b"big"] = b"x" * 1_000_000
    async with serving(fakes, limits=SHORT_LIMITS, buffer_bytes=1000) as server:
        stream = await server.connect()
        await stream.send_all(request_bytes("GET", "/api/v1/files?file_name=big"))
        await trio.sleep(SHORT_LIMITS.send_timeout + 0.1)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")


async def test_a_peer_that_reads_slowly_is_not(autojump_clock: MockClock) -> None:
    """What it reads gives time back, by ``body_rate``."""
    fakes = Fakes()
    fakes.files.files[b"big"] = content = b"x" * 1_000_000
    async with serving(fakes, limits=SHORT_LIMITS, buffer_bytes=1000) as server:
        stream = await server.connect()
        await stream.send_all(request_bytes("GET", "/api/v1/files?file_name=big"))
        data = b""
        while piece := await stream.receive_some(1000):
            data += piece
            await trio.sleep(0.05)
        assert trio.current_time() > 10 * SHORT_LIMITS.send_timeout
    assert data.endswith(b"\r\n\r\n" + content)


async def test_a_peer_that_reads_below_the_least_rate_is_dropped(autojump_clock: MockClock) -> None:
    fakes = Fakes()
    fakes.files.files[b"big"] = content = b"x" * 1_000_000
    limits = attrs.evolve(SHORT_LIMITS, body_rate=65536)
    async with serving(fakes, limits=limits, buffer_bytes=1000) as server:
        stream = await server.connect()
        await stream.send_all(request_bytes("GET", "/api/v1/files?file_name=big"))
        data = b""
        while piece := await stream.receive_some(1000):
            data += piece
            await trio.sleep(0.05)
        # It read 20 kB/s: each second of that gives back less than a third.
        assert limits.send_timeout < trio.current_time() < 2 * limits.send_timeout
    assert len(data) < len(content) / 5


# --- routes' limits

TIMEOUTS = Timeouts(authentication=2, commands=300, stateless=3, stateful=4, files=5, scan=6)


@pytest.mark.parametrize(
    ("request_", "seconds", "status"),
    [
        (("POST", "/api/v1/events/stateful", b"x"), 4, (408, 408)),
        (("POST", "/api/v1/events/stateless", b"x"), 3, (408, 408)),
        (("POST", "/api/v1/vulnerability/scan", b"{}"), 6, (408, 408)),
        (("GET", "/api/v1/files?file_name=default.conf", None), 4.5, (503, 503)),
    ],
)
async def test_a_route_that_takes_too_long(
    autojump_clock: MockClock, request_: tuple[str, str, bytes | None], seconds: float, status: tuple[int, int]
) -> None:
    fakes = Fakes()
    for service in (fakes.stateful, fakes.stateless, fakes.scans, fakes.files):
        service.takes = 1000
    async with serving(fakes, limits=SHORT_LIMITS, timeouts=TIMEOUTS) as server:
        began = trio.current_time()
        reply = await server.request(*request_)
        assert problem(reply) == status
        assert trio.current_time() - began == pytest.approx(seconds)


async def test_a_routes_limit_counts_from_the_last_byte(autojump_clock: MockClock) -> None:
    fakes = Fakes()
    fakes.stateful.takes = 3.9
    fakes.stateless.takes = 2.9
    async with serving(fakes, limits=SHORT_LIMITS, timeouts=TIMEOUTS) as server:
        for path, status in (("stateful", 200), ("stateless", 204)):
            stream = await server.connect()
            request = request_bytes("POST", f"/api/v1/events/{path}", b"x" * 600)
            await stream.send_all(request[:-600])
            await drip(stream, request[-600:], 1.0, 100)
            assert (await read_reply(stream)).status == status


@pytest.mark.parametrize(
    ("error", "status"),
    [(BackendUnavailable(), (503, 503)), (EngineTimeout(), (503, 2800))],
)
async def test_errors_of_services(autojump_clock: MockClock, error: Exception, status: tuple[int, int]) -> None:
    fakes = Fakes()
    fakes.stateful.error = fakes.stateless.error = fakes.scans.error = fakes.files.error = fakes.commands.error = error
    async with serving(fakes) as server:
        for path in ("events/stateful", "events/stateless", "vulnerability/scan"):
            assert problem(await server.request("POST", f"/api/v1/{path}", b"x")) == status
        for path in ("files?file_name=x", "commands"):
            assert problem(await server.request("GET", f"/api/v1/{path}")) == status


@pytest.mark.expects_errors
async def test_unexpected_errors_are_500_and_one_log_entry_each(
    autojump_clock: MockClock, unexpected_errors: list[str]
) -> None:
    fakes = Fakes()
    error = KeyError("a secret")
    fakes.stateful.error = fakes.stateless.error = fakes.scans.error = fakes.files.error = fakes.commands.error = error
    async with serving(fakes) as server:
        for method, path in (
            ("POST", "events/stateful"),
            ("POST", "events/stateless"),
            ("POST", "vulnerability/scan"),
            ("GET", "files?file_name=x"),
            ("GET", "commands"),
        ):
            reply = await server.request(method, f"/api/v1/{path}", b"x" if method == "POST" else None)
            assert problem(reply) == (500, 500)
            assert b"secret" not in reply.body
            assert len(unexpected_errors) == 1
            assert "KeyError: 'a secret'" in unexpected_errors.pop()


async def test_a_registry_that_hangs_is_503_before_the_limit(autojump_clock: MockClock) -> None:
    fakes = Fakes()

    async def hang(*args: object, wait_limit: float = 0) -> None:
        await trio.sleep_forever()

    fakes.authentication.verify = fakes.authentication.authenticate = hang  # type: ignore[method-assign, assignment]
    async with serving(fakes, timeouts=TIMEOUTS) as server:
        began = trio.current_time()
        assert problem(await server.request("GET", "/api/v1/commands")) == (503, 503)
        assert trio.current_time() - began == pytest.approx(1.8)
        body = b'{"uuid":"u","key":"k"}'
        assert problem(await server.request("POST", "/api/v1/authentication", body)) == (503, 503)
        assert trio.current_time() - began == pytest.approx(3.6)


# --- the end


async def test_a_refused_peer_that_stays_is_closed(autojump_clock: MockClock) -> None:
    async with serving(limits=SHORT_LIMITS) as server:
        stream = await server.connect()
        await stream.send_all(b"rubbish\r\n\r\n")
        assert problem(await read_reply(stream)) == (400, 400)
        await trio.sleep(2.1)
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"more")


async def test_a_refused_peer_that_goes_on_sending_is_closed(autojump_clock: MockClock) -> None:
    async with serving(limits=SHORT_LIMITS) as server:
        stream = await server.connect()
        began = trio.current_time()
        await stream.send_all(STATEFUL.replace(b"good", b"bad") + b"Content-Length: 90000\r\n\r\n")
        assert problem(await read_reply(stream)) == (403, 2706)
        with pytest.raises(trio.BrokenResourceError):
            await drip(stream, b"x" * 89_999, 1.0, 80)
        assert trio.current_time() - began == pytest.approx(10, abs=1)
