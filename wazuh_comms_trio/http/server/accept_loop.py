"""The accept loops, and their end: first no more connections, then no more requests."""

from __future__ import annotations

import errno
import logging
import os
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from socket import AF_INET, AF_INET6
from typing import Any, Final

import trio

from wazuh_comms_trio.http.server.connection import serve_connection
from wazuh_comms_trio.http.server.listener_context import ListenerContext
from wazuh_comms_trio.http.server.room import Room
from wazuh_comms_trio.http.server.streams.keepalive import prepare_listener
from wazuh_comms_trio.http.server.streams.socket_stream import SocketListener

__all__ = ["STOP_IDLE_TIMEOUT", "serve_listeners"]

logger = logging.getLogger(__name__)

#: ``accept`` would fail again at once with these: the listener waits until connections have ended.
DESCRIPTORS_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
DESCRIPTOR_WAIT: Final = 0.1
#: How many connections are ended in each such time, so that others get theirs.
ROOM: Final = 32
#: Descriptors kept for stores, logs and the command socket; agents wait for others. Of a low limit: a quarter.
SPARE_FILES: Final = 64
SPARE_SHARE: Final = 4
#: Seconds for which connections wait in the listener's queue while there is no room.
QUEUE_PATIENCE: Final = 10.0
#: Seconds in which those that are in the queue already are accepted.
CLOSING_WAIT: Final = 0.01
#: Seconds between two lines in the log about it.
DESCRIPTOR_LOG_INTERVAL: Final = 60.0
#: How many connections of its queue a listener still takes when it stops; the kernel resets what is left.
LAST_ACCEPTED: Final = 1024
#: Seconds that handshakes and heads under way get at stop.
STOP_IDLE_TIMEOUT: Final = 0.5


async def serve_listeners(
    context: ListenerContext,
    listeners: Sequence[trio.abc.Listener[Any]],
    *,
    stop: trio.Event,
    grace: float,
    idle_timeout: Callable[[], float] = lambda: STOP_IDLE_TIMEOUT,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until ``stop`` is set; then takes what is in the listeners' queues, closes them, gives requests in
    flight ``grace`` seconds and other connections ``idle_timeout()`` (asked then), cancels the rest, and returns.
    Cancelled: the listeners are left to the caller, connections are closed.
    """
    own = [
        SocketListener(listener) if isinstance(listener, trio.SocketListener) else listener for listener in listeners
    ]
    try:
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                for listener in own:
                    prepare_listener(getattr(listener, "socket", None))
                    accepting.start_soon(accept_connections, listener, context, connections)
                task_status.started()
                await stop.wait()
                accepting.cancel_scope.cancel()
            context.close_idle(idle_timeout())
            connections.cancel_scope.deadline = trio.current_time() + grace
            for listener in own:
                accept_last(listener, context, connections)
                await listener.aclose()
    finally:
        for listener in own:
            if isinstance(listener, SocketListener):
                listener.close()


async def accept_connections(listener: trio.abc.Listener[Any], context: ListenerContext, nursery: trio.Nursery) -> None:
    """Ends when the listener is closed."""
    logged = -DESCRIPTOR_LOG_INTERVAL
    highest = highest_descriptor(listener)
    room = Room(context)

    def warn(reason: str | None) -> None:
        nonlocal logged
        if trio.current_time() - logged >= DESCRIPTOR_LOG_INTERVAL:
            logged = trio.current_time()
            logger.warning("connections have to wait: %s", reason)

    while True:
        try:
            stream = await listener.accept()
        except (trio.ClosedResourceError, trio.EndOfChannel):
            return
        except OSError as error:
            if error.errno not in DESCRIPTORS_EXHAUSTED:
                raise
            warn(error.strerror)
            with waiting_for_descriptors(context):
                context.make_room(ROOM)
                await trio.sleep(DESCRIPTOR_WAIT)
        else:
            nursery.start_soon(serve_connection, stream, context)
            # The lowest free number is what a descriptor gets: so this one's says how many are taken.
            if stream.socket.fileno() >= highest:
                warn(os.strerror(errno.EMFILE))
                with waiting_for_descriptors(context):
                    while lowest_free(listener) >= highest:  # nothing tells
                        context.make_room(ROOM)
                        await trio.sleep(DESCRIPTOR_WAIT)
            elif lack := room.lack(accepted=True):
                warn(lack)
                with waiting_for_descriptors(context):
                    await wait_for_room(listener, context, room)


def accept_last(listener: trio.abc.Listener[Any], context: ListenerContext, nursery: trio.Nursery) -> None:
    """Takes the connections that are in the listener's queue: their peers count as connected, and have sent, when the
    kernel would reset them as the last descriptor of the listener is closed."""
    if not isinstance(listener, SocketListener):
        return
    for _ in range(LAST_ACCEPTED):
        try:
            stream = listener.accept_nowait()
        except OSError as error:
            logger.warning("connections that waited at stop are reset: %s", error.strerror)
            return
        if stream is None:
            return
        nursery.start_soon(serve_connection, stream, context)


async def wait_for_room(listener: trio.abc.Listener[Any], context: ListenerContext, room: Room) -> None:
    """Those who come wait in the listener's queue; when that lasts too long some are closed before their handshake,
    so that they try another node instead of waiting until they give up."""
    began = trio.current_time()
    while True:
        context.make_room(ROOM)
        await trio.sleep(DESCRIPTOR_WAIT)
        if not room.lack():
            return
        if trio.current_time() - began < QUEUE_PATIENCE:
            continue
        if closed := await close_waiting(listener, ROOM):
            context.refused("connections", closed)


async def close_waiting(listener: trio.abc.Listener[Any], count: int) -> int:
    """Closes up to ``count`` connections of those that are in the listener's queue; how many there were."""
    closed = 0
    try:
        with trio.move_on_after(CLOSING_WAIT):
            while closed < count:
                stream = await listener.accept()
                await trio.aclose_forcefully(stream)
                closed += 1
    except trio.ClosedResourceError:
        pass  # the accept loop finds out
    except OSError as error:
        if error.errno not in DESCRIPTORS_EXHAUSTED:
            raise
    return closed


@contextmanager
def waiting_for_descriptors(context: ListenerContext) -> Iterator[None]:
    context.out_of_descriptors += 1
    try:
        yield
    finally:
        context.out_of_descriptors -= 1


def highest_descriptor(listener: trio.abc.Listener[Any]) -> float:
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
