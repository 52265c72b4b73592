"""The accept loops, and their end: first no more connections, then no more requests."""

from __future__ import annotations

import errno
import logging
import os
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from math import inf
from socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_TCP,
    SO_KEEPALIVE,
    SOL_SOCKET,
    TCP_KEEPCNT,
    TCP_KEEPIDLE,
    TCP_KEEPINTVL,
    TCP_NODELAY,
    TCP_USER_TIMEOUT,
)
from typing import Any, Final

import trio

from wazuh_comms_trio.http.server.connection import serve_connection
from wazuh_comms_trio.http.server.listener_context import Edge
from wazuh_comms_trio.http.server.socket_stream import SocketListener

__all__ = ["STOP_PATIENCE", "serve_listeners"]

logger = logging.getLogger(__name__)

#: ``accept`` has no room: it would fail again at once, so it has to wait for connections to end.
NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
NO_ROOM_WAIT: Final = 0.1
#: Descriptors that are left to stores, logs and the command socket: agents have to wait before. Of a low limit a part.
SPARE_FILES: Final = 64
SPARE_SHARE: Final = 4
#: How often that is worth a line in the log.
NO_ROOM_LOG_INTERVAL: Final = 60.0
#: At stop: for handshakes and heads that are on their way.
STOP_PATIENCE: Final = 0.5

#: A parked poll is silent for minutes. A peer that went to sleep without a word is noticed after 60 s of silence and,
#: at the latest, 40 s of unanswered probes; one that has been sent something, 40 s after that.
KEEPALIVE_IDLE_S: Final = 60
KEEPALIVE_INTERVAL_S: Final = 10
KEEPALIVE_PROBES: Final = 4
USER_TIMEOUT_MS: Final = 40_000


async def serve_listeners(
    edge: Edge,
    listeners: Sequence[trio.abc.Listener[Any]],
    *,
    stop: trio.Event,
    grace: float,
    patience: Callable[[], float] = lambda: STOP_PATIENCE,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until ``stop`` is set; then closes the listeners, gives requests in flight ``grace`` seconds, cancels
    the rest, and returns. ``patience()`` is asked then for the seconds that connections without a complete request get.
    Cancelled: the listeners are left to the caller, connections are closed.
    """
    own = [
        SocketListener(listener) if isinstance(listener, trio.SocketListener) else listener for listener in listeners
    ]
    try:
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                for listener in own:
                    prepare_socket(listener)
                    accepting.start_soon(accept_connections, listener, edge, connections)
                task_status.started()
                await stop.wait()
                accepting.cancel_scope.cancel()
            edge.lose_patience(patience())
            connections.cancel_scope.deadline = trio.current_time() + grace
            for listener in own:
                await listener.aclose()
    finally:
        for listener in own:
            if isinstance(listener, SocketListener):
                listener.close()


async def accept_connections(listener: trio.abc.Listener[Any], edge: Edge, nursery: trio.Nursery) -> None:
    """Ends when the listener is closed."""
    logged = -NO_ROOM_LOG_INTERVAL
    ceiling = ceiling_of(listener)

    def complain(reason: str | None) -> None:
        nonlocal logged
        if trio.current_time() - logged >= NO_ROOM_LOG_INTERVAL:
            logged = trio.current_time()
            logger.warning("connections have to wait: %s", reason)

    while True:
        try:
            stream = await listener.accept()
        except (trio.ClosedResourceError, trio.EndOfChannel):
            return
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            complain(error.strerror)
            with crowded(edge):
                await trio.sleep(NO_ROOM_WAIT)
        else:
            nursery.start_soon(serve_connection, stream, edge)
            # The lowest free number is what a descriptor gets: so this one's says how many are taken.
            if stream.socket.fileno() >= ceiling:
                complain(os.strerror(errno.EMFILE))
                with crowded(edge):
                    while lowest_free(listener) >= ceiling:  # noqa: ASYNC110  # nothing tells
                        await trio.sleep(NO_ROOM_WAIT)


@contextmanager
def crowded(edge: Edge) -> Iterator[None]:
    edge.crowded += 1
    try:
        yield
    finally:
        edge.crowded -= 1


def ceiling_of(listener: trio.abc.Listener[Any]) -> float:
    """The descriptor from which on an agent is one too many. Local programs, on the command socket, may take all."""
    sock = getattr(listener, "socket", None)
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if sock is None or sock.family not in (AF_INET, AF_INET6) or limit == resource.RLIM_INFINITY:
        return inf
    return limit - min(SPARE_FILES, limit // SPARE_SHARE)


def lowest_free(listener: trio.abc.Listener[Any]) -> float:
    """What the next descriptor will be."""
    try:
        descriptor = os.dup(listener.socket.fileno())  # type: ignore[attr-defined]
    except OSError:
        return inf
    os.close(descriptor)
    return descriptor


def prepare_socket(listener: trio.abc.Listener[Any]) -> None:
    """Accepted sockets inherit these from the listening one, which saves six system calls a connection."""
    sock = getattr(listener, "socket", None)
    if sock is None or sock.family not in (AF_INET, AF_INET6):
        return
    with suppress(OSError):
        sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        sock.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
        sock.setsockopt(IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
        sock.setsockopt(IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
        sock.setsockopt(IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES)
        sock.setsockopt(IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
