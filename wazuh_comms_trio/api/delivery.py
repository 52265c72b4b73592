"""Has the peer got it? What the kernel knows of bytes that were sent."""

from __future__ import annotations

import struct
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import Any, Final, Protocol

__all__ = ["EXTENSION", "Delivery", "unacknowledged_bytes"]

#: The ASGI extension's name in ``scope["extensions"]``.
EXTENSION: Final = "wazuh_comms.delivery"


class Delivery(Protocol):
    """The ASGI extension."""

    async def confirmed(self) -> bool:
        """To be called after the last body event. True when the peer's side has acknowledged every byte or closed in
        order; false when it reset the connection, or nothing was heard of it within ``limits.send_timeout``.
        Cancelled: nothing is known.
        """
        ...


def unacknowledged_bytes(sock: Any) -> int:
    """Bytes sent that the peer's side hasn't acknowledged: ``SIOCOUTQ`` of a TCP socket, or what a stand-in says of
    itself. A Unix socket's are those that the peer hasn't read.
    """
    if (told := getattr(sock, "unacknowledged_bytes", None)) is not None:
        return int(told())
    (unacknowledged,) = struct.unpack("i", ioctl(sock.fileno(), TIOCOUTQ, b"\0\0\0\0"))
    return int(unacknowledged)
