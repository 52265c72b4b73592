"""Datagram queues for programs without an event loop: :class:`WazuhQueue`, :class:`WazuhAnalysisdQueue`.

The readers never answer, and drop or misread what is malformed without a word, so everything is checked before it is
sent. Imports neither trio nor anything outside the standard library. An object belongs to one thread at a time. The
twins for trio are in :mod:`.async_datagram`.
"""

from __future__ import annotations

import os
import socket as _socket
from typing import Final

from wazuh_comms_trio.errors import (
    TEXTS,
    QueueTimeout,
    SocketTimeout,
    WazuhError,
    WazuhException,
    WazuhInternalError,
)
from wazuh_comms_trio.transport.closing import ClosedAtExit
from wazuh_comms_trio.transport.paths import QUEUE_REFUSAL, check_path
from wazuh_comms_trio.transport.translate import queue_connect_error, queue_error
from wazuh_comms_trio.wire import agent_command
from wazuh_comms_trio.wire.agent_command import MAX_EXECQ_BYTES, agent_datagram
from wazuh_comms_trio.wire.event import encode_event

_NOT_SENT: Final = f"{TEXTS[1011]}: "


class BaseQueue(ClosedAtExit):
    """A connection to a daemon's datagram socket, made at once.

    ``timeout`` in seconds limits the wait for room in the queue (about 11 datagrams fit); None waits as long as it
    takes, 0 not at all. When it runs out: 1014, a ``TimeoutError`` too, and nothing was sent. ``send_buffer`` is the
    send buffer in bytes, at least ``MAX_MSG_SIZE``; None leaves it as it is unless it is smaller. ``require_owner`` is
    a user's number or name, see :func:`check_path`. 1010 for a path that is missing, refused or no datagram socket.
    """

    OS_MAXSTR: int = 6144
    #: The least send buffer, in bytes. Where a subclass says otherwise, its longest message as well.
    MAX_MSG_SIZE: int = OS_MAXSTR + 256

    path: str
    #: The operating system's socket.
    socket: _socket.socket

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        timeout: float | None = None,
        send_buffer: int | None = None,
        require_owner: int | str | None = None,
    ) -> None:
        self.socket = connect_queue(path, max(self.MAX_MSG_SIZE, send_buffer or 0), require_owner)
        self.path = os.fspath(path)
        self.socket.settimeout(timeout)

    def __repr__(self) -> str:
        state = "closed" if self.socket.fileno() == -1 else "connected"
        return f"<{type(self).__name__} {self.path}: {state}>"

    def close(self) -> None:
        """Close the socket. Doing it again does nothing."""
        self.socket.close()

    def _send(self, msg: bytes) -> None:
        """Send one datagram as it is. 1105 for what isn't bytes, 1011 when it can't be sent."""
        if not isinstance(msg, bytes):
            raise WazuhException(1105)
        try:
            self.socket.send(msg)
        except OSError as exc:
            raise queue_error(exc, self.path) from exc

    def _send_checked(self, datagram: bytes) -> None:
        """As :meth:`_send`, with the error that the public methods raise: 1014, naming the path."""
        try:
            self._send(datagram)
        except WazuhInternalError as exc:
            kind = SocketTimeout if isinstance(exc, QueueTimeout) else WazuhError
            raise kind(1014, not_sent(exc, type(self).__name__)) from exc


class WazuhQueue(BaseQueue):
    """Commands to agents through remoted's ``ar`` queue, or to this host through execd's."""

    HC_SK_RESTART: str = agent_command.HC_SK_RESTART
    HC_FORCE_RECONNECT: str = agent_command.HC_FORCE_RECONNECT
    RESTART_AGENTS: str = agent_command.RESTART_AGENTS
    RESTART_AGENTS_JSON: str = agent_command.RESTART_AGENTS_JSON
    AR_TYPE: str = agent_command.AR_TYPE

    def send_msg_to_agent(self, msg: str = "", agent_id: str | None = "", msg_type: str | None = "") -> str:
        """Send a command to one agent, or to all without an ``agent_id``; returns the confirmation text.

        Without a type only restarts, ``HC_SK_RESTART`` and ``HC_FORCE_RECONNECT`` are taken; with ``AR_TYPE`` any
        message of one line whose command is no path. ``WazuhInternalError`` 1012 for what the reader would drop or
        misread, ``WazuhError`` 1014 when it wasn't sent.
        """
        datagram, confirmation = agent_datagram(msg, agent_id, msg_type, own_limit(self.MAX_MSG_SIZE))
        self._send_checked(datagram)
        return confirmation


class WazuhAnalysisdQueue(BaseQueue):
    """Events for analysisd."""

    #: The longest event in bytes, header included. A subclass may have a lower one; above 65535 analysisd would cut.
    MAX_MSG_SIZE: int = 65535

    def send_msg(self, msg_header: str, msg: str) -> None:
        """Send ``msg_header`` and ``msg``, joined as they are, if the header has the form ``<queue char>:<location>:``.

        1012 for a header of another form or a message with a NUL, and (a ``WazuhError`` as well) above 65535 bytes,
        where analysisd would cut; ``WazuhError`` 1014 when it wasn't sent.
        """
        self._send_checked(encode_event(msg_header, msg, self.MAX_MSG_SIZE))


def own_limit(size: int) -> int:
    """The longest datagram that a queue for commands takes whose ``MAX_MSG_SIZE`` is ``size``."""
    return MAX_EXECQ_BYTES if size == BaseQueue.MAX_MSG_SIZE else size


def not_sent(exc: WazuhInternalError, name: str) -> str:
    """How the public methods tell of a failed low-level send."""
    return f"{name} socket with path {exc.message.removeprefix(_NOT_SENT)}"


def connect_queue(
    path: str | os.PathLike[str], least_send_buffer: int, require_owner: int | str | None = None
) -> _socket.socket:
    """A connected blocking datagram socket whose send buffer has at least ``least_send_buffer`` bytes."""
    place = check_path(path, QUEUE_REFUSAL, require_owner)
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    try:
        sock.connect(place)
        # The kernel sets twice what it is asked for, the other half being its own bookkeeping, and reports that.
        if sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF) < 2 * least_send_buffer:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, least_send_buffer)
    except OSError as exc:
        sock.close()
        raise queue_connect_error(exc, place) from exc
    except BaseException:
        sock.close()
        raise
    return sock
