"""What goes wrong in the API that agents use today, one by one, and doesn't here."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.conftest import Certificates
from tests.http.server.listener import Fakes, problem, read_reply, read_to_end, request_bytes, serving
from wazuh_comms_trio.config.models import Limits, Ssl
from wazuh_comms_trio.config.tls import server_context
from wazuh_comms_trio.errors import FileIsFolder, FileNameHasFolders

LIMITS = Limits()


async def test_folders_are_answered_with_an_error_that_has_a_body() -> None:
    """They got 200 with a length and no body, on which a client waits for ever."""
    fakes = Fakes()
    async with serving(fakes) as server:
        for error, code in ((FileIsFolder(), 2704), (FileNameHasFolders(), 2705)):
            fakes.files.error = error
            reply = await server.request("GET", "/api/v1/files?file_name=folder")
            assert problem(reply) == (400, code)
            assert reply.header("content-length") == str(len(reply.body))


@pytest.mark.parametrize("tls", [True, False])
async def test_silent_connections_are_closed(autojump_clock: MockClock, certificates: Certificates, tls: bool) -> None:
    context = server_context(Ssl(certificates.key, certificates.cert)) if tls else None
    async with serving(ssl_context=context) as server:
        streams = [await server.connect() for _ in range(50)]
        began = trio.current_time()
        for stream in streams:
            await read_to_end(stream)
        assert trio.current_time() - began <= max(LIMITS.handshake_timeout, LIMITS.head_timeout)


@pytest.mark.parametrize("part", ["head", "body"])
async def test_one_byte_a_second_is_not_for_ever(autojump_clock: MockClock, part: str) -> None:
    request = request_bytes("POST", "/api/v1/events/stateful", b"x" * 1000)
    at_once = 0 if part == "head" else len(request) - 1000
    async with serving() as server:
        stream = await server.connect()
        await stream.send_all(request[:at_once])
        began = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def drip() -> None:
                for byte in request[at_once:]:
                    await stream.send_all(bytes([byte]))
                    await trio.sleep(1)

            nursery.start_soon(drip)
            assert problem(await read_reply(stream)) == (408, 408)
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began <= 16


async def test_stopping_doesnt_wait_for_parked_polls_nor_for_silent_connections(autojump_clock: MockClock) -> None:
    """It took half a minute."""
    async with serving(grace=10) as server:
        parked = [await server.connect() for _ in range(20)]
        for stream in parked:
            await stream.send_all(request_bytes("GET", "/api/v1/commands"))
        silent = [await server.connect() for _ in range(20)]
        await wait_all_tasks_blocked()
        assert server.fakes.commands.parked == 20
        began = trio.current_time()
        server.stop.set()
        server.fakes.commands.closing.set()
        for stream in parked:
            assert problem(await read_reply(stream)) == (408, 408)
        for stream in silent:
            assert await read_to_end(stream) == b""
        await server.stopped.wait()
        assert trio.current_time() - began < 2


async def test_one_parked_poll_holds_up_nobody(autojump_clock: MockClock) -> None:
    async with serving() as server:
        stream = await server.connect()
        await stream.send_all(request_bytes("GET", "/api/v1/commands"))
        await wait_all_tasks_blocked()
        began = trio.current_time()
        for _ in range(20):
            assert (await server.request("POST", "/api/v1/events/stateful", b"x")).status == 200
        assert trio.current_time() == began
        assert server.fakes.commands.parked == 1
