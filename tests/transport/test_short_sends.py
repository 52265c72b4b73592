"""A send of which the operating system takes nothing, or a part."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio

from tests.transport.peers import Listening
from wazuh_comms_trio.errors import WazuhError
from wazuh_comms_trio.transport.aio.socket import WazuhAsyncSocket
from wazuh_comms_trio.transport.aio.stream_io import SocketIO
from wazuh_comms_trio.transport.blocking.socket import WazuhSocket


class TakesNothing(socket.socket):
    """A socket whose ``send`` takes what ``takes`` says, and then nothing."""

    takes: tuple[int, ...] = ()

    def send(self, data: Any, flags: int = 0, /) -> int:
        if not self.takes:
            return 0
        count, self.takes = self.takes[0], self.takes[1:]
        return super().send(data[:count], flags)


@pytest.mark.parametrize(("takes", "reason"), [((), "not a byte"), ((3,), "only 3 of 9 bytes")])
def test_a_send_that_takes_nothing_is_no_endless_loop(server: Listening, takes: tuple[int, ...], reason: str) -> None:
    with WazuhSocket(server.path) as sock:
        sock.s = TakesNothing(fileno=sock.s.detach())
        sock.s.takes = takes
        with pytest.raises(WazuhError, match=f"Error 1014 .*{reason}"):
            sock.send(b"12345")


async def test_the_same_on_trio(server: Listening) -> None:
    async with await WazuhAsyncSocket.from_path(server.path) as sock:
        assert isinstance(sock._io, SocketIO)
        sock._io.sock = TakesNothing(fileno=sock._io.sock.detach())
        sock._io.sock.takes = (3,)
        with pytest.raises(trio.BrokenResourceError, match=r"Error 1014 .*not a byte"):
            await sock.send(b"12345")
