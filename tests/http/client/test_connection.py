"""One connection, and peers that don't take the whole of a request."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import pytest
import trio

from wazuh_comms_trio.http.client.connection import HttpConnection, HttpFailure, HttpReply

REFUSAL = b'HTTP/1.1 413 Too Large\r\nContent-Length: 20\r\n\r\n{"err'


class Deaf(trio.abc.Stream):
    """A peer that reads nothing of a request, but says something, and then nothing more, or the end."""

    def __init__(self, said: bytes, *, ends: bool) -> None:
        self._said = said
        self._ends = ends

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.sleep(0.1)
        said, self._said = self._said, b""
        if not said and not self._ends:
            await trio.sleep_forever()
        return said

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def pieces() -> AsyncIterator[bytes]:
    yield b"{}"
    await trio.sleep_forever()


@pytest.mark.parametrize("refusal_timeout", [0.2, math.inf])
@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("said", [REFUSAL, b""])
@pytest.mark.parametrize("streams", [True, False])
async def test_what_came_of_an_answer_to_what_wasnt_sent(
    streams: bool, said: bytes, ends: bool, refusal_timeout: float, autojump_clock: trio.abc.Clock
) -> None:
    """Why it wasn't is less than what the peer said of it."""
    connection = HttpConnection(Deaf(said, ends=ends), host="x")
    connection.refusal_timeout = refusal_timeout

    async def post() -> HttpReply:
        if streams:
            return await connection.exchange_stream("POST", "/", [], pieces(), length=None)
        return await connection.exchange("POST", "/", [], b"{}")

    with pytest.raises(HttpFailure, match="broke while sending") as caught:
        await post()
    assert (caught.value.status, caught.value.heard) == ((413, True) if said else (0, False))
    assert not connection.reusable
