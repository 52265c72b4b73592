"""The engine: HTTP over its Unix socket. Bodies stream through, a few connections are kept."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from math import inf
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

import msgspec
import trio

from wazuh_comms_trio.backends.engine.untaken import UntakenBodies
from wazuh_comms_trio.backends.interfaces import EngineReply
from wazuh_comms_trio.backends.unreadable import DECODE_ERRORS
from wazuh_comms_trio.config.backend_models import EngineClient
from wazuh_comms_trio.errors import (
    BackendUnavailable,
    EngineRefused,
    EngineRequestError,
    EngineSchemeError,
    EngineSocketError,
    EngineTimeout,
)
from wazuh_comms_trio.foundation.backoff import Backoff
from wazuh_comms_trio.foundation.caches.refusal_cause import RefusalCause
from wazuh_comms_trio.foundation.outage_log import QUIET, OutageLog
from wazuh_comms_trio.http.client.adaptive_places import AdaptivePlaces
from wazuh_comms_trio.http.client.connecting import connect_unix
from wazuh_comms_trio.http.client.connection import HttpConnection, HttpFailure, HttpReply
from wazuh_comms_trio.http.client.pool import HttpPool

logger = logging.getLogger(__name__)

_EVENTS: Final = "/events/stateless"
_SCAN: Final = "/vulnerability/scan"

#: Connections kept for the next request, and requests at a time, of each kind, or those of one kind that take long
#: would be all that there are. More wait. How many bodies that are sent as a whole there are, and how many scans,
#: follows from how promptly the engine answers each; one that is sent as it comes waits for its agent. That may be slow
#: on purpose, and one agent has a part of those.
_KEPT: Final = 8
_AT_ONCE: Final = 128
_FIRST_AT_ONCE: Final = 32
_LEAST_AT_ONCE: Final = 8
_STREAMS: Final = 64
_STREAMS_OF_ONE_AGENT: Final = 8
_FIRST_SCANS: Final = 16
_MOST_SCANS: Final = 64
_KEEPALIVE: Final = 15.0
#: A body that is known to be this small is sent as a whole: one call, and it may be sent again.
_SMALL: Final = 64 * 1024
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 1.0
_LARGEST_REPLY: Final = 64 * 1024 * 1024
_LONGEST_REASON: Final = 500
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")

#: Seconds of a probe's request, and those after which a request that was given up says something of the engine.
_PROBE: Final = 1.5
_LONG: Final = 2.0

#: Seconds for what an engine says of a refusal of events: less than their requests have, or it would never be one.
_REASONS: Final = 1.0

#: Refusals that may end: the others of the 4xx are for good.
_PASSING: Final = frozenset({408, 429})
#: Refusals that say nothing of a body, as long as all are refused so: of our account, path, method or header.
_OF_ALL: Final = frozenset({401, 403, 404, 405, 406, 407, 410, 411, 415, 417, 421, 426, 431})
#: Answers that say that there is too much.
_OVERLOADED: Final = frozenset({429, 503})


def socket_path(address: Path) -> str:
    """The path of the engine's socket, given as a path, or one after ``unix:``. Raises ``EngineSchemeError`` for
    another scheme."""
    text = str(address)
    match = _SCHEME.match(text)
    if match is None:
        return text
    if match[1].lower() != "unix":
        raise EngineSchemeError
    return "/" + text[match.end() :].lstrip("/")


def reason_of(reply: HttpReply) -> str:
    """The engine's own words: ``error`` is a list or a string, by version."""
    try:
        answer: Any = msgspec.json.decode(reply.body)
        error = answer.get("error") if isinstance(answer, dict) else answer
        words = [str(word) for word in error] if isinstance(error, list) else [str(error)] if error else []
    except DECODE_ERRORS:
        words = [reply.body.decode("utf-8", "replace").strip()]
    return "; ".join(words)[:_LONGEST_REASON] or f"The engine answered {reply.status}"


async def _or_its_head(exchange: Awaitable[HttpReply]) -> HttpReply:
    """The answer to events, or a refusal's head where its body doesn't come as it should: that has reasons alone."""
    try:
        return await exchange
    except HttpFailure as failure:
        if 400 <= failure.status < 500:
            return HttpReply(failure.status, {}, b"")
        raise


class UnixEngine:
    """``Engine`` over a Unix socket. ``settings.retries`` are further attempts where nothing was consumed: the
    connection couldn't be made, or a kept one turned out to be closed. ``settings.timeout`` seconds are for the answer
    once the body is sent, and for each piece of it that the engine has to take."""

    keeps_refused = False

    def __init__(self, settings: EngineClient) -> None:
        self._settings = settings
        self._pool = HttpPool(
            self._connect,
            host="localhost",
            keepalive=_KEEPALIVE,
            most_idle=_KEPT,
            write_timeout=settings.timeout,
            read_timeout=settings.timeout,
            largest_reply=_LARGEST_REPLY,
        )
        self._places = AdaptivePlaces(least=_LEAST_AT_ONCE, first=_FIRST_AT_ONCE, most=_AT_ONCE)
        self._streams = AdaptivePlaces(least=_STREAMS, first=_STREAMS, most=_STREAMS)
        self._streams_of: WeakValueDictionary[str, trio.Semaphore] = WeakValueDictionary()
        self._scans = AdaptivePlaces(least=_LEAST_AT_ONCE, first=_FIRST_SCANS, most=_MOST_SCANS)
        self._outage = OutageLog(logger, f"the engine's socket {settings.api_socket_path}", clock=trio.current_time)
        #: Of requests: what fails between some that don't is one outage.
        self._failures = OutageLog(logger, "the engine", quiet=QUIET, clock=trio.current_time)
        self._silent = False  # the engine let a request go unanswered, and has answered none since
        self._untaken = UntakenBodies()
        self._refusals = RefusalCause()

    async def aclose(self) -> None:
        """Closes the connections that are kept."""
        await self._pool.aclose()

    async def send_events(self, body: AsyncIterable[bytes], *, agent_id: str, length: int | None) -> None:
        try:
            reply = await self._send_events(body, agent_id, length)
            self._check(reply, agent_id)
        except EngineTimeout:
            self._untaken.given_up(agent_id)
            raise
        except EngineRequestError:
            self._untaken.failed(agent_id)
            raise
        except EngineRefused:
            self._untaken.taken()
            raise
        self._untaken.taken()

    async def _send_events(self, body: AsyncIterable[bytes], agent_id: str, length: int | None) -> HttpReply:
        headers = [("Content-Type", "application/x-ndjson")]
        if length is not None and length <= _SMALL:
            whole = b"".join([piece async for piece in body])
            return await self._send_whole(self._places, _EVENTS, headers, whole)
        async with self._streams_of.setdefault(agent_id, trio.Semaphore(_STREAMS_OF_ONE_AGENT)):
            began = await self._streams.acquire()
            wait = _Wait()
            try:
                with self._judging(wait):
                    async with self._pool.connection() as connection:
                        connection.refusal_timeout = _REASONS
                        pieces = _Pieces(body, wait)
                        exchange = connection.exchange_stream("POST", _EVENTS, headers, pieces, length=length)
                        return await _or_its_head(exchange)
            finally:
                self._streams.release(began, answered=None)  # the agent may be what is slow

    def _check(self, reply: HttpReply, agent_id: str) -> None:
        """Raises what an answer to a body of events means, if it isn't a success."""
        if 200 <= reply.status < 300:
            self._refusals.taken([agent_id])
            self._failures.worked()
            return
        is_refusal = 400 <= reply.status < 500 and reply.status not in _PASSING
        if is_refusal and (reply.status not in _OF_ALL or self._refusals.is_its_own(agent_id)):
            self._failures.worked()
            logger.debug("the engine refused a body (%d): %s", reply.status, reason_of(reply))
            raise EngineRefused(reason_of(reply))
        self._failures.failed(f"it answers {reply.status}: {reason_of(reply)}")
        raise EngineRequestError

    async def probe(self) -> None:
        """Whether the engine's socket takes connections, and not all bodies of events are left. The engine is sent a
        request only after it left one unanswered: any answer will do."""
        try:
            stream = await connect_unix(socket_path(self._settings.api_socket_path))
        except OSError as exc:
            raise EngineSocketError from exc
        connection = HttpConnection(stream, host="localhost", write_timeout=_PROBE, read_timeout=_PROBE)
        try:
            if self._silent:
                await connection.exchange("GET", "/", [])
                self._silent = False
        except HttpFailure as failure:
            if failure.timed_out:
                raise EngineTimeout from failure
            self._silent = False
        finally:
            await connection.aclose()
        if (reason := self._untaken.reason()) is not None:
            raise BackendUnavailable(reason)

    async def scan(self, request: bytes) -> EngineReply:
        reply = await self._send_whole(self._scans, _SCAN, [("Content-Type", "application/json")], request)
        if reply.status < 500:  # others may be the scan's own
            self._failures.worked()
        return EngineReply(reply.status, reply.body, reply.headers.get("content-type", "application/json"))

    async def _send_whole(
        self, places: AdaptivePlaces, target: str, headers: list[tuple[str, str]], body: bytes
    ) -> HttpReply:
        began = await places.acquire()
        wait = _Wait()
        answered: bool | None = False
        try:
            with self._judging(wait):
                is_events = target == _EVENTS
                limit = _REASONS if is_events else inf
                exchange = self._pool.request(
                    "POST", target, headers, body, refusal_timeout=limit, was_unseen=_was_unread
                )
                reply = await (_or_its_head(exchange) if is_events else exchange)
            answered = reply.status not in _OVERLOADED
            return reply
        except trio.Cancelled:
            answered = False if wait.is_long else None
            raise
        finally:
            places.release(began, answered=answered)

    @contextmanager
    def _judging(self, wait: _Wait) -> Iterator[None]:
        """Turns the failure of a request into the engine's error, and notes whether the engine answered. So is the end
        of its time; an agent that leaves before says nothing of the engine."""
        try:
            yield
        except HttpFailure as failure:
            self._failures.failed(failure)
            if failure.timed_out:
                self._silent = True
                raise EngineTimeout from failure
            raise EngineRequestError from failure
        except trio.Cancelled:
            if not wait.is_over:
                raise
            self._failures.failed(f"no answer for {wait.seconds:.1f} s")
            self._silent = True
            raise EngineTimeout from None
        self._silent = False

    async def _connect(self) -> trio.abc.Stream:
        """A new connection. Raises ``EngineSchemeError``, ``EngineSocketError``."""
        path = socket_path(self._settings.api_socket_path)
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        for attempt in range(self._settings.retries + 1):
            if attempt:
                await trio.sleep(backoff.next_pause())
            try:
                stream = await connect_unix(path)
            except OSError as exc:
                error = exc
                continue
            self._outage.worked()
            return stream
        self._outage.failed(error.strerror or error, kind="cannot be reached")
        raise EngineSocketError from error


class _Wait:
    """Since when the engine is what is waited for, and until when that was to be."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self._began, self._deadline = trio.current_time(), trio.current_effective_deadline()

    def stop(self) -> None:
        """Something else is waited for."""
        self._began = inf

    @property
    def seconds(self) -> float:
        return trio.current_time() - self._began

    @property
    def is_long(self) -> bool:
        return self.seconds > _LONG

    @property
    def is_over(self) -> bool:
        """Whether it was given all its time; what is waited for an instant says nothing."""
        return self.is_long and trio.current_time() >= self._deadline


class _Pieces:
    """A body whose agent is waited for while its next piece is."""

    def __init__(self, body: AsyncIterable[bytes], wait: _Wait) -> None:
        self._body = aiter(body)
        self._wait = wait

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> bytes:
        self._wait.stop()
        try:
            return await anext(self._body)
        finally:
            self._wait.begin()


def _was_unread(failure: HttpFailure) -> bool:
    """Whether the engine closed without having read the whole request. A Unix socket says so: it is reset where
    something is unread, and ends in order where all was read."""
    if failure.heard or failure.timed_out:
        return False
    cause: BaseException | None = failure
    while cause is not None:
        if isinstance(cause, ConnectionResetError | BrokenPipeError):
            return True
        cause = cause.__cause__
    return False


@asynccontextmanager
async def open_engine_client(settings: EngineClient) -> AsyncIterator[UnixEngine]:
    """Closes the kept connections at the end. The engine needn't be there yet."""
    engine = UnixEngine(settings)
    try:
        yield engine
    finally:
        await engine.aclose()
