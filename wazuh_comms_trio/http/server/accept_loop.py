"""The accept loops, and their end: first no more connections, then no more requests."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from math import inf
from typing import Any, Final

import trio

from wazuh_comms_trio.foundation.outage_log import LogInterval
from wazuh_comms_trio.http.server.connection import serve_connection
from wazuh_comms_trio.http.server.crowd import Crowd, Pace, Turns, has_waited
from wazuh_comms_trio.http.server.listener_context import ListenerContext
from wazuh_comms_trio.http.server.room import Room, highest_descriptor, lowest_free
from wazuh_comms_trio.http.server.streams.client_hello import is_check, peek
from wazuh_comms_trio.http.server.streams.keepalive import prepare_listener
from wazuh_comms_trio.http.server.streams.socket_stream import SocketListener

__all__ = ["STOP_IDLE_TIMEOUT", "serve_listeners"]

logger = logging.getLogger(__name__)

#: ``accept`` would fail again at once with these: the listener waits until connections have ended.
DESCRIPTORS_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
DESCRIPTOR_WAIT: Final = 0.1
#: How many connections are ended in each such time, so that others get theirs; of those that ask for nothing this part
#: of what a process may have, if that is more, up to so many.
ROOM: Final = 32
ROOM_SHARE: Final = 20
MOST_ROOM: Final = 256
#: Seconds in which connections that were closed are gone.
ENDING_WAIT: Final = 0.005
#: Seconds for which connections wait in the listener's queue while there is no room.
QUEUE_TIMEOUT: Final = 10.0
#: Up to this part of it is left away, so that those that came at once don't come again at once.
QUEUE_SPREAD: Final = 0.7
#: Seconds in which those that are in the queue already are accepted.
CLOSING_WAIT: Final = 0.01
#: Seconds between two lines in the log about it.
DESCRIPTOR_LOG_INTERVAL: Final = 60.0
#: How many connections of its queue a listener still takes when it stops; the kernel resets what is left.
LAST_ACCEPTED: Final = 1024
#: How many wait at most, of those that come faster than they are begun, beside the kernel's queue; of a low limit of
#: descriptors a part.
CROWD: Final = 4096
CROWD_SHARE: Final = 8
#: The kernel's queue, which other workers may share, and what it is while more come than are taken in. The former is
#: what ``daemon.bound_sockets`` asks for; the kernel has a limit of its own.
BACKLOG: Final = 4096
SHORT_BACKLOG: Final = 64
#: Taking one in and closing it takes 14 µs, and there is this share of the processor for it.
TAKING_SECONDS: Final = 14e-6
TAKING_SHARE: Final = 0.15
TAKEN_AT_LEAST: Final = 2
#: Seconds between two looks at who has come, gone, or waited for too long; turns of the event loop are often shorter.
LOOK_PAUSE: Final = 0.004
#: Seconds in the kernel's queue that make no difference, and from which on not all that come are begun at once.
JUST_NOW: Final = 0.05
LATE: Final = 0.02
#: Seconds between two looks while none is begun, since the application has no room for what it may ask for, or
#: something is urgent.
PAUSE: Final = 0.01
HOLD_PAUSE: Final = 0.001
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
                    restore_backlog(listener)
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
    """Accepts and begins connections; ends when the listener is closed."""
    shortage, pace = Shortage(listener, context), Pace(context.capacity)
    crowding = listener if isinstance(listener, SocketListener) and context.ssl_context is not None else None
    while True:
        if context.before_accepting is not None:
            await context.before_accepting()
        try:
            stream = await listener.accept()
        except (trio.ClosedResourceError, trio.EndOfChannel):
            return
        except OSError as error:
            if error.errno not in DESCRIPTORS_EXHAUSTED:
                raise
            shortage.warn(error.strerror)
            await shortage.wait_a_little()
            continue
        if crowding is not None and not pace.may_begin(0, context.undecided):
            with suppress(trio.ClosedResourceError), context.giving_way.crowded():
                await serve_crowd(crowding, context, nursery, shortage, pace, stream.socket)
            continue
        pace.begun()
        nursery.start_soon(serve_connection, stream, context)
        if shortage.of_descriptors(stream.socket):
            while shortage.lasts():  # nothing tells
                await shortage.wait_a_little()
        elif missing := shortage.room.shortage(accepted=True):
            shortage.warn(missing)
            await wait_for_room(listener, context, shortage)
        elif crowding is not None and is_crowded(crowding, stream.socket):
            with suppress(trio.ClosedResourceError), context.giving_way.crowded():
                await serve_crowd(crowding, context, nursery, shortage, pace)


def is_crowded(listener: SocketListener, sock: Any) -> bool:
    """Whether more come than are served: the last ones were there already when they were asked for, or ``sock``, which
    was accepted just now, had to wait, so that turns of the event loop are long."""
    return listener.is_pressed or has_waited(sock) > LATE


class Shortage:
    """A shortage of descriptors, of memory or of a limit's connections: whether there is one, and how its end is waited
    for."""

    def __init__(self, listener: trio.abc.Listener[Any], context: ListenerContext) -> None:
        self.room = Room(context)
        self.highest = highest_descriptor(listener)
        self._listener = listener
        self._context = context
        self._batch = ROOM if self.highest == inf else int(min(MOST_ROOM, max(ROOM, self.highest // ROOM_SHARE)))
        self._ended = -inf
        self._log_interval = LogInterval(DESCRIPTOR_LOG_INTERVAL, trio.current_time)

    def of_descriptors(self, sock: Any) -> bool:
        """Whether ``sock``, the last one that was accepted, has one of the last descriptors. A descriptor gets the
        lowest free number, so that this one's says how many are taken."""
        if sock.fileno() < self.highest:
            return False
        self.warn(os.strerror(errno.EMFILE))
        return True

    def warn(self, reason: str | None) -> None:
        if self._log_interval.is_over():
            logger.warning("connections have to wait: %s", reason)

    def lasts(self) -> bool:
        """Whether the next connection would have one of the last descriptors."""
        return lowest_free(self._listener) >= self.highest

    def end_idle(self) -> bool:
        """Ends connections that ask for nothing, if there are such; not more than once while they end."""
        if trio.current_time() - self._ended < ENDING_WAIT:
            return True
        if not self._context.end_idle(self._batch):
            return False
        self._ended = trio.current_time()
        return True

    async def wait_a_little(self) -> None:
        """Waits while nothing is accepted; some connections are ended, so that others get their room. Nobody else's
        while there are enough that ask for nothing: they soon do, or may be ended."""
        ended = self.end_idle()
        if ended and not self.room.shortage():
            await trio.sleep(ENDING_WAIT)
            return
        with waiting_for_descriptors(self._context):
            if not ended and self._context.idle < ROOM:
                self._context.make_room(ROOM)
            await self._context.giving_way.sleep(DESCRIPTOR_WAIT)


async def serve_crowd(
    listener: SocketListener,
    context: ListenerContext,
    nursery: trio.Nursery,
    shortage: Shortage,
    pace: Pace,
    first: Any | None = None,
) -> None:
    """Serves while more connections come than are begun: see ``crowd.py``. ``first`` was accepted already. A turn of
    the event loop begins a few of them while turns are short, so that what is under way waits for little, and lets
    those go on that gave way to what is urgent. What a turn takes in is bounded by its share of the processor; what
    comes beyond that the kernel refuses for a while, which costs nothing here. While descriptors are short none is
    taken in, but those that were have theirs.

    Cancelled, or when the listener is closed: who waits is begun with, as those in the listener's own queue are.
    """
    crowd = Crowd(int(min(CROWD, shortage.highest // CROWD_SHARE)), QUEUE_TIMEOUT, QUEUE_SPREAD)
    if first is not None:
        join(crowd, first)
    shortened = False
    worked, turned = time.process_time(), time.thread_time()
    turns, giving_way = Turns(), context.giving_way
    looked = heard = trio.current_time()
    is_full = False
    try:
        while True:
            now = trio.current_time()
            holds = giving_way.holds(now)
            most = 0 if giving_way.waiting else turns.begins(time.thread_time() - turned, holds=holds)
            if giving_way.waiting:
                giving_way.go_on(holds=holds)
            if not crowd or now - looked >= LOOK_PAUSE:
                cpu = time.process_time()
                # By the event loop or, while that paused, by all of this process.
                used = min(cpu - worked, now - looked)
                is_full = is_full and shortage.lasts()
                if not is_full:
                    count = TAKEN_AT_LEAST + int(used * TAKING_SHARE / TAKING_SECONDS)
                    is_full = take_in(listener, crowd, shortage, count)
                if crowd.has_checks:
                    giving_way.check_comes(now)
                worked, looked = cpu, now
                waiting, allowed = listener.queue()
                if waiting > SHORT_BACKLOG and allowed > SHORT_BACKLOG:
                    listener.socket.listen(SHORT_BACKLOG)
                    shortened = True
                if now - heard >= PAUSE:
                    crowd.hear(now)
                    heard = now
                late = crowd.take_too_late(now, early=not pace.may_begin(0, context.undecided))
                if late and crowd.has_ebbed(now):
                    late = begin_late(late, listener, context, nursery, pace)
                for sock in late:
                    sock.close()
                if late:
                    context.refused("connections that waited too long", len(late))
                if missing := shortage.room.shortage(accepted=True):
                    shortage.warn(missing)
                if missing or (is_full and not crowd):
                    await shortage.wait_a_little()
                    continue
                if is_full:
                    shortage.end_idle()
                if not crowd and not waiting:
                    return
            begun = 0
            while begun < max(1, most):
                may_begin = begun < most and pace.may_begin(begun, context.undecided)
                sock = crowd.next(now) if may_begin else crowd.next_check(now)
                if sock is None:
                    break
                pace.begun()
                begun += 1
                nursery.start_soon(serve_connection, listener.stream(sock), context)
            turned = time.thread_time()
            if begun or not crowd or (not most and not holds):
                await trio.lowlevel.checkpoint()
            elif is_full and not holds:
                with waiting_for_descriptors(context):
                    await trio.sleep(PAUSE)
            else:
                await trio.sleep(HOLD_PAUSE if holds else PAUSE)
    finally:
        for sock in crowd.take_all():
            nursery.start_soon(serve_connection, listener.stream(sock), context)
        if shortened:
            with suppress(OSError):  # it may be closed
                listener.socket.listen(BACKLOG)


def begin_late(
    late: list[Any], listener: SocketListener, context: ListenerContext, nursery: trio.Nursery, pace: Pace
) -> list[Any]:
    """Begins with those of a wave that is over which it is worth for: who is left has to be closed."""
    begun = 0
    while begun < len(late) and pace.may_begin_late(begun, context.undecided):
        nursery.start_soon(serve_connection, listener.stream(late[begun]), context)
        begun += 1
    return late[begun:]


def restore_backlog(listener: trio.abc.Listener[Any]) -> None:
    """Makes the listener's queue long again: a worker that was killed while it served a crowd left it short, and others
    have the same socket."""
    if isinstance(listener, SocketListener) and listener.queue()[1] == SHORT_BACKLOG:
        listener.socket.listen(BACKLOG)


def take_in(listener: SocketListener, crowd: Crowd, shortage: Shortage, most: int) -> bool:
    """Takes up to ``most`` connections of the listener's queue into the crowd. Returns whether no descriptor is left
    for more."""
    waited = inf
    for _ in range(most):
        try:
            sock = listener.take_nowait()
        except OSError as error:
            if error.errno not in DESCRIPTORS_EXHAUSTED:
                raise
            shortage.warn(error.strerror)
            return True
        if sock is None:
            return False
        waited = join(crowd, sock, waited)
        if shortage.of_descriptors(sock):
            return True
    return False


def join(crowd: Crowd, sock: Any, before: float = inf) -> float:
    """How long it was in the kernel's queue, seconds: one behind another that had just come (``before``) has, too."""
    waited = has_waited(sock) if before > JUST_NOW else before
    if data := peek(sock):
        crowd.add(sock, trio.current_time() - waited, check=is_check(data))
    else:
        crowd.add_silent(sock, trio.current_time() - waited)
    return waited


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


async def wait_for_room(listener: trio.abc.Listener[Any], context: ListenerContext, shortage: Shortage) -> None:
    """Accepts nothing until there is room: connections wait in the listener's queue; when that lasts too long some are
    closed before their handshake, so that their agents try another node instead of waiting until they give up."""
    began = trio.current_time()
    while True:
        await shortage.wait_a_little()
        if not shortage.room.shortage():
            return
        if trio.current_time() - began < QUEUE_TIMEOUT:
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
