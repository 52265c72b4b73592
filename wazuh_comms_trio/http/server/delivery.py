"""Whether a reply has arrived: what the kernel knows of bytes that were sent."""

from __future__ import annotations

import struct
from fcntl import ioctl
from socket import AF_INET, AF_INET6, IPPROTO_TCP, TCP_INFO
from termios import FIONREAD, TIOCOUTQ
from typing import Any, Final, Protocol

__all__ = ["EXTENSION", "DeliveryConfirmation", "has_left", "is_reset", "unacknowledged_bytes", "unread_bytes"]

#: The ASGI extension's name in ``scope["extensions"]``.
EXTENSION: Final = "wazuh_comms.delivery"
#: The first byte of TCP_INFO when there is no connection any more.
TCP_CLOSE: Final = 7
#: ... and when the peer has closed its side.
TCP_CLOSE_WAIT: Final = 8


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

    def give_up(self) -> bool:
        """To be called where delivery wasn't confirmed, before it is taken back: resets the connection, so that what
        the kernel still holds of the reply never arrives. True where all of it had arrived by now; then it is left.
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
    """Whether a TCP connection was reset. (After an end in order its reads go on saying "end".)"""
    return _state(sock) == TCP_CLOSE


def has_left(sock: Any) -> bool:
    """Whether a TCP connection was reset or the peer has closed its side, whatever of its bytes wasn't read yet. In any
    thread. False once we have closed the connection ourselves."""
    try:
        return _state(sock) in (TCP_CLOSE, TCP_CLOSE_WAIT)
    except OSError:
        return True


def _state(sock: Any) -> int:
    """The state of a TCP connection, or what a stand-in says of itself; 0 where nobody can say, and once we have closed
    it. Raises ``OSError`` of a socket that is closed meanwhile."""
    if (told := getattr(sock, "tcp_state", None)) is not None:
        return int(told())
    if sock.fileno() < 0 or sock.family not in (AF_INET, AF_INET6):
        return 0
    return int(sock.getsockopt(IPPROTO_TCP, TCP_INFO, 1)[0])


def _ask(sock: Any, question: int) -> int | None:
    if (descriptor := sock.fileno()) < 0:
        return None
    (answer,) = struct.unpack("i", ioctl(descriptor, question, b"\0\0\0\0"))
    return int(answer)
