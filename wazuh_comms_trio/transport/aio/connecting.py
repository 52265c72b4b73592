"""Connecting to a Unix stream socket, for the trio classes: at each place where the daemon may be, and again while its
queue of connections is full."""

from __future__ import annotations

import os
import socket
from typing import Final

import trio

from wazuh_comms_trio.errors import BacklogFull
from wazuh_comms_trio.foundation.backoff import Backoff
from wazuh_comms_trio.transport.aio.stream_io import SocketIO
from wazuh_comms_trio.transport.paths import STREAM_REFUSAL, check_path, connect_to_either
from wazuh_comms_trio.transport.translate import connect_error

#: Seconds for which a full queue of connections is waited for, unless told otherwise.
CONNECT_TIMEOUT: Final[float] = 1.0
# The pauses meanwhile: 1, 2, 4 ... 64, 64 ... ms.
_FIRST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.064


def connect_nowait(path: str | os.PathLike[str], require_owner: int | str | None = None) -> socket.socket:
    """A connected non-blocking socket. :class:`BacklogFull` when there is no room; a Unix socket never has to wait."""
    return connect_to_either(path, lambda place: _connect_nowait(place, require_owner))


def _connect_nowait(path: str | os.PathLike[str], require_owner: int | str | None) -> socket.socket:
    place = check_path(path, STREAM_REFUSAL, require_owner)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.connect(place)
    except OSError as exc:
        sock.close()
        raise connect_error(exc, place) from exc
    except BaseException:
        sock.close()
        raise
    return sock


async def connect_unix(
    path: str | os.PathLike[str], require_owner: int | str | None = None, connect_timeout: float = CONNECT_TIMEOUT
) -> SocketIO:
    """Connect to a Unix stream socket. A checkpoint; cancelled, nothing is left open.

    A full queue of connections is tried again with growing pauses, for ``connect_timeout`` seconds: then
    :class:`BacklogFull`.
    """
    await trio.lowlevel.checkpoint()
    backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
    give_up = trio.current_time() + connect_timeout
    while True:
        try:
            return SocketIO(connect_nowait(path, require_owner))
        except BacklogFull:
            pause = backoff.next_pause()
            if trio.current_time() + pause > give_up:
                raise
        await trio.sleep(pause)
