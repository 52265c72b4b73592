"""A subclass's ``MAX_MSG_SIZE`` counts on every queue, whatever it is sent by."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from wazuh_comms_trio.errors import MessageInvalid
from wazuh_comms_trio.transport import WazuhAsyncQueue, WazuhQueue, send_command
from wazuh_comms_trio.wire.agent_command import AR_TYPE

LIMIT = 60
HEAD = "(msg_to_agent) [] NNS 001 "
FITS, TOO_LONG = "!" + "x" * (LIMIT - len(HEAD) - 1), "!" + "x" * (LIMIT - len(HEAD))


class Short(WazuhQueue):
    MAX_MSG_SIZE = LIMIT


class AsyncShort(WazuhAsyncQueue):
    MAX_MSG_SIZE = LIMIT


class Long(WazuhQueue):
    MAX_MSG_SIZE = 100_000


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "ar"))
        sock.setblocking(False)
        yield sock


def received(reader: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(reader.recv(70_000))
        except BlockingIOError:
            return found


def test_plain(reader: socket.socket, tmp_path: Path) -> None:
    with Short(tmp_path / "ar") as queue:
        queue.send_msg_to_agent(FITS, "001", AR_TYPE)
        for agent_id in ("001", "1000", None):
            with pytest.raises(MessageInvalid, match=r"6. bytes, at most 60 are taken"):
                queue.send_msg_to_agent(TOO_LONG, agent_id, AR_TYPE)
        with pytest.raises(MessageInvalid, match="61 bytes, at most 60 are taken"):
            queue.send_msg_to_agent("!" + "x" * LIMIT, "000", AR_TYPE)  # bare, as execd reads it
    assert received(reader) == [f"{HEAD}{FITS}".encode()]


async def test_on_trio(reader: socket.socket, tmp_path: Path) -> None:
    async with await AsyncShort.from_path(tmp_path / "ar") as queue:
        await queue.send_msg_to_agent(FITS, "001", AR_TYPE)
        with pytest.raises(MessageInvalid, match="61 bytes, at most 60 are taken"):
            await queue.send_msg_to_agent(TOO_LONG, "001", AR_TYPE)
        with pytest.raises(MessageInvalid, match="61 bytes, at most 60 are taken"):
            await send_command(queue, ["002", "001", "003"], TOO_LONG)
        assert (await send_command(queue, ["002"], FITS)).sent == 1
    assert len(received(reader)) == 2, "of what was refused nothing was sent, to nobody"


def test_what_nobody_set_limits_nothing(reader: socket.socket, tmp_path: Path) -> None:
    """The framework's 6400 is the least send buffer; a higher one doesn't move what reaches an agent."""
    message = "!" + "x" * 20_000
    with WazuhQueue(tmp_path / "ar") as queue, Long(tmp_path / "ar") as long:
        queue.send_msg_to_agent(message, "001", AR_TYPE)
        long.send_msg_to_agent(message, "001", AR_TYPE)
        with pytest.raises(MessageInvalid, match="at most 65349 reach an agent"):
            long.send_msg_to_agent("!" + "x" * 65_400, "001", AR_TYPE)
    assert [len(one) for one in received(reader)] == [20_001 + len(HEAD)] * 2
