"""Whether a reply has arrived: what the kernel knows of bytes that were sent."""

from __future__ import annotations

import struct
from fcntl import ioctl
from socket import AF_INET, AF_INET6, IPPROTO_TCP, TCP_INFO
from termios import FIONREAD, TIOCOUTQ
from typing import Any, Final, Protocol

__all__ = ["EXTENSION", "DeliveryConfirmation", "is_reset", "unacknowledged_bytes", "unread_bytes"]

#: The ASGI extension's name in ``scope["extensions"]``.
EXTENSION: Final = "wazuh_comms.delivery"
#: The first byte of TCP_INFO when there is no connection any more.
TCP_CLOSE: Final = 7


class DeliveryConfirmation(Protocol):
    """The ASGI extension."""

    def expect(self) -> None:
        """To be called before the reply: its TLS end is held back until delivery is confirmed. A peer that has read
        the reply and closes with that end unread resets the connection, and then it can't be known what it had read.
        """
        ...

    async def confirmed(self) -> bool:
        """To be called after the last body event. True when the peer's side has acknowledged every byte or closed in
        order; false when it reset the connection, or nothing was heard of it within ``limits.send_timeout``.
        Cancelled: nothing is known.
        """
        ...


def unacknowledged_bytes(sock: Any) -> int | None:
    """Bytes sent that the peer's side hasn't acknowledged: ``SIOCOUTQ`` of a TCP socket, or what a stand-in says of
    itself; None when it can't say. They stay counted after a reset.
    """
    if (told := getattr(sock, "unacknowledged_bytes", None)) is not None:
        return int(told())
    return _ask(sock, TIOCOUTQ)


def unread_bytes(sock: Any) -> int:
    """Bytes that have arrived and weren't read: closing the socket now would be a reset. 0 for a stand-in."""
    return _ask(sock, FIONREAD) or 0


def is_reset(sock: Any) -> bool:
    """Whether a TCP connection was reset. (After an end in order its reads go on saying "end".) False for a
    stand-in."""
    if sock.fileno() < 0 or sock.family not in (AF_INET, AF_INET6):
        return False
    return int(sock.getsockopt(IPPROTO_TCP, TCP_INFO, 1)[0]) == TCP_CLOSE


def _ask(sock: Any, question: int) -> int | None:
    if (descriptor := sock.fileno()) < 0:
        return None
    (answer,) = struct.unpack("i", ioctl(descriptor, question, b"\0\0\0\0"))
    return int(answer)
