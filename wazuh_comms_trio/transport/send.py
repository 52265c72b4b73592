"""The framework's one-call functions: one request to a registered daemon over a connection of its own.

Imports trio only where it runs, so that ``wazuh_sendsync`` can be awaited under asyncio too.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from threading import Lock
from typing import Any, TypeVar

from wazuh_comms_trio.errors import NotInRelease, SendSyncError, WazuhException, WazuhInternalError
from wazuh_comms_trio.transport.blocking.socket import WazuhSocket
from wazuh_comms_trio.transport.conversation import Conversation, SchemaSource
from wazuh_comms_trio.transport.daemon import Daemon
from wazuh_comms_trio.transport.switches import ReleaseName, Target, is_known_at_once, resolve, shapes_of
from wazuh_comms_trio.wire.envelope import decode_json, decode_text
from wazuh_comms_trio.wire.wdb import parse_reply

T = TypeVar("T")


async def wazuh_sendasync(
    daemon_name: str,
    message: Any = None,
    *,
    home: str | os.PathLike[str] | None = None,
    schema: SchemaSource | None = None,
    raw: bool | None = None,
    release: ReleaseName | None = None,
    api: str | None = None,
) -> Any:
    """Send one request to a registered daemon; returns the ``data`` of its answer. Needs trio.

    ``raw``: the answer's bytes instead, an error's as well, which is what the framework returns from 4.9 on; None does
    as ``api`` says. ``release`` and ``api`` as in :func:`set_defaults`.

    ``message`` is anything that JSON can say, validated as in ``WazuhAsyncSocketJSON.request``; text is sent as it is.
    wazuh-db may answer text with its ``ok``, whose payload is then returned. Errors: the sockets' own, the daemon's own
    number, and 1014 (a ``WazuhInternalError`` and a ``WazuhError``) for anything else. Cancelled: the connection is
    closed.
    """
    from wazuh_comms_trio.transport.errors import require_trio

    require_trio("wazuh_sendasync")
    from wazuh_comms_trio.transport.aio.socket import WazuhAsyncSocket

    try:
        if raw is None:
            raw = shapes_of(api).sendasync_raw
        target = await _in_thread_if_unknown(daemon_name, release, home)
        daemon = target.daemon
        conversation = Conversation(_content(message), daemon=daemon.name, schema=schema, text_as_is=True)
        async with WazuhAsyncSocket() as sock:
            await sock.connect(daemon.places(target.home)[0])
            answer = await sock.request_raw(conversation.payload, daemon.header_format)
        if raw:
            return answer
        if isinstance(message, str) and not answer.startswith(b"{"):
            return parse_reply(answer).only().data()
        return conversation.result(answer)
    except WazuhException:
        raise
    except Exception as exc:
        raise SendSyncError(1014, f"{type(exc).__name__}: {exc}") from exc


async def wazuh_sendsync(
    daemon_name: str | None = None,
    message: Any = None,
    *,
    home: str | os.PathLike[str] | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 -- it limits the blocking socket, in the thread
    release: ReleaseName | None = None,
) -> str:
    """Send one request to a registered daemon over the plain socket, in a thread; returns the answer as text.

    ``message`` is text (or bytes) that is sent as it is, or anything that JSON can say; it is validated as in
    ``WazuhSocketJSON.request``, its answer only when it carries ``version``. An answer of wazuh-db that begins with
    ``due`` is a part of the whole: ``WazuhDBClient`` gets the rest. Works under trio and asyncio. The answer
    loses one trailing NUL. Errors: the sockets' own; anything else is 1014, a ``WazuhInternalError`` and a
    ``WazuhError``. Cancelled: the connection is closed, and the thread ends by itself.
    """
    try:
        daemon, place, _ = await _in_thread_if_unknown(daemon_name, release, home)
        conversation = Conversation(_content(message), daemon=daemon.name, text_as_is=True)
        exchange = _Exchange(daemon, daemon.places(place)[0], conversation.payload, timeout)
        answer = await _in_thread(exchange.run, exchange.abort)
        if conversation.versioned:
            conversation.check(decode_json(answer))
        return decode_text(answer)
    except WazuhException:
        raise
    except Exception as exc:
        raise SendSyncError(1014, f"{type(exc).__name__}: {exc}") from exc


class _Exchange:
    """One request and its answer, in a thread; another thread may abort it."""

    def __init__(self, daemon: Daemon, path: str, payload: bytes, timeout: float | None) -> None:
        self.daemon = daemon
        self.path = path
        self.payload = payload
        self.timeout = timeout
        self._lock = Lock()
        self._sock: WazuhSocket | None = None
        self._aborted = False

    def run(self) -> bytes:
        with WazuhSocket(self.path, timeout=self.timeout) as sock:
            with self._lock:
                self._sock = sock
                if self._aborted:
                    return b""
            try:
                sock.send(self.payload, self.daemon.header_format)
                return sock.receive(self.daemon.header_format, self.daemon.header_size)
            finally:
                with self._lock:
                    self._sock = None

    def abort(self) -> None:
        """Wake the thread, which closes its socket then."""
        with self._lock:
            self._aborted = True
            if self._sock is not None:
                with suppress(OSError):  # the peer may be quicker
                    self._sock.s.shutdown(socket.SHUT_RDWR)


async def _in_thread(run: Callable[[], T], abort: Callable[[], None] = lambda: None) -> T:
    """``run()`` in a thread, under trio or asyncio; cancelled, ``abort()`` is called and the thread left behind."""
    trio = sys.modules.get("trio")
    waiting: Awaitable[T]
    if trio is not None and trio.lowlevel.in_trio_task():
        waiting = trio.to_thread.run_sync(run, abandon_on_cancel=True)
    else:
        import asyncio

        waiting = asyncio.to_thread(run)
    finished = False
    try:
        answer = await waiting
        finished = True
        return answer
    finally:
        if not finished:
            abort()


async def _in_thread_if_unknown(
    name: str | None, release: ReleaseName | None, home: str | os.PathLike[str] | None
) -> Target:
    """The daemon and its home; in a thread where the server has to be looked at."""

    def resolve_it() -> Target:
        try:
            target = resolve(name or "", release, home)
        except NotInRelease:
            raise
        except WazuhInternalError as exc:
            raise LookupError(exc.message.partition(": ")[2]) from exc
        if target.daemon.kind != "stream":
            ways = {"http": "speaks HTTP: use open_http", "unframed": "knows no frames: use open_server"}
            raise WazuhInternalError(
                1013, f"{name} {ways.get(target.daemon.kind, 'reads datagrams and never answers')}"
            )
        return target

    return resolve_it() if is_known_at_once(release) else await _in_thread(resolve_it)


def _content(message: Any) -> Any:
    if message is None:
        raise TypeError("a message is needed")
    return message
