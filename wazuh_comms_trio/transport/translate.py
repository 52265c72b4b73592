"""Errors of the operating system as Wazuh's numbers: the one place where an ``OSError`` of a socket is translated.

===============================================  ====  ====================================================
connecting a stream: refused                     1121  :class:`WazuhInternalError`
connecting a stream: queue of connections full   1013  :class:`BacklogFull`
connecting a stream: anything else               1013  :class:`WazuhInternalError`
connecting a queue                               1010  :class:`WazuhInternalError`
sending to a queue                               1011  :class:`WazuhInternalError`, :class:`QueueTimeout`
sending to or receiving from a stream            1014  :class:`WazuhError`, :class:`SocketTimeout`
===============================================  ====  ====================================================

The ``OSError`` itself is kept as ``__cause__``.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from wazuh_comms_trio.errors import (
    BacklogFull,
    QueueTimeout,
    SocketTimeout,
    WazuhError,
    WazuhInternalError,
)

#: What the kernel says of a datagram socket whose reader has closed, or was started anew.
READER_GONE: Final = frozenset({errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTCONN, errno.EPIPE})


def reason_of(exc: OSError) -> str:
    """The operating system's own words, or ours where they would mislead."""
    if exc.errno == errno.EBADF:
        return "this socket is closed"
    return exc.strerror or str(exc) or type(exc).__name__


def connect_error(exc: OSError, path: str) -> WazuhInternalError | SocketTimeout:
    """The error for a failed connect to a stream socket."""
    if exc.errno == errno.ECONNREFUSED:
        return WazuhInternalError(1121, f"{path}: nobody listens there")
    if exc.errno == errno.EPROTOTYPE:
        return WazuhInternalError(1013, f"{path} is a datagram socket")
    if exc.errno == errno.EAGAIN:
        return BacklogFull(1013, f"{path}: the daemon's queue of new connections is full")
    if isinstance(exc, TimeoutError):
        return SocketTimeout(1014, f"{path}: no connection within the time given")
    return WazuhInternalError(1013, f"{path}: {reason_of(exc)}")


def queue_connect_error(exc: OSError, path: str) -> WazuhInternalError:
    """The error for a failed connect to a datagram socket."""
    if exc.errno == errno.ECONNREFUSED:
        return WazuhInternalError(1010, f"{path}: nobody listens there")
    if exc.errno == errno.EPROTOTYPE:
        return WazuhInternalError(1010, f"{path} is not a datagram socket")
    return WazuhInternalError(1010, f"{path}: {reason_of(exc)}")


def stream_error(exc: OSError, doing: str) -> WazuhError:
    """The error for a failed send or receive on a stream; ``doing`` says which."""
    if isinstance(exc, TimeoutError | BlockingIOError):
        return SocketTimeout(1014, f"{doing}: the time given ran out")
    return WazuhError(1014, f"{doing}: {reason_of(exc)}")


def queue_reason(exc: OSError, path: str) -> str:
    """Why a send to a datagram queue failed."""
    if isinstance(exc, TimeoutError | BlockingIOError):
        return f"{path}: the queue stayed full for the time given"
    if exc.errno in READER_GONE:
        return f"{path}: its reader is gone"
    if exc.errno == errno.EMSGSIZE:
        return f"{path}: longer than the send buffer holds"
    return f"{path}: {reason_of(exc)}"


def queue_error(exc: OSError, path: str) -> WazuhInternalError:
    """The error for a failed send to a datagram queue."""
    kind = QueueTimeout if isinstance(exc, TimeoutError | BlockingIOError) else WazuhInternalError
    return kind(1011, queue_reason(exc, path))


def timed_out() -> TimeoutError:
    """The error that the operating system would have raised."""
    return TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
