"""The indexer's client: requests to whichever node is well, over few connections that are kept."""

from __future__ import annotations

import contextlib
import gzip
import logging
import random
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec
import trio
from attrs import evolve, frozen

from wazuh_comms_trio.backends.opensearch.client.credentials import (
    AccessError,
    Account,
    Connect,
    make_connector,
    read_account,
)
from wazuh_comms_trio.backends.opensearch.client.error_details import describe
from wazuh_comms_trio.backends.opensearch.client.hosts import Host, Hosts, Overtaken, is_change, kind_of
from wazuh_comms_trio.backends.opensearch.client.queries import encode_json
from wazuh_comms_trio.backends.opensearch.client.slices import NotSliced, cut_list, lenient
from wazuh_comms_trio.backends.unreadable import DECODE_ERRORS, UnreadableLog, describe_decode_error
from wazuh_comms_trio.config.backend_models import Indexer
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.outage_log import OutageLog
from wazuh_comms_trio.http.client.adaptive_places import AdaptivePlaces
from wazuh_comms_trio.http.client.connection import HttpFailure, HttpReply
from wazuh_comms_trio.http.client.pool import HttpPool
from wazuh_comms_trio.metrics.refusal_log import RefusalLog

logger = logging.getLogger(__name__)

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"

#: Compressing more than this is left to a thread: it takes a millisecond and more.
_GZIP_IN_THREAD: Final = 512 * 1024
_GZIP_LEVEL: Final = 1
_PROBE_TIMEOUT: Final = 2.0
#: Bulk calls at a time, however slow the indexer is.
_LEAST_BULK: Final = 4
#: Seconds until a refused account is tried again: a check costs the indexer a quarter of one, and some lock an account.
_REFUSAL_REST: Final = 1.0
#: Answers of a node that can't do anything now; another one perhaps can.
_UNREADY: Final = frozenset({502, 503, 504})


class IndexerUnavailable(BackendUnavailable):
    """Raised where the indexer can't do it now. ``detail`` says what was seen, for the log and the operator; agents
    aren't told. ``reply`` is the answer, if there was one; ``sent`` whether the request may have been applied."""

    def __init__(
        self, detail: str, *, code: int | None = None, reply: HttpReply | None = None, sent: bool = False
    ) -> None:
        super().__init__(code=code)
        self.detail = detail
        self.reply = reply
        self.sent = sent

    def __str__(self) -> str:
        return self.detail


class ReplyTooLarge(IndexerUnavailable):
    """The answer has more bytes than the caller wants at once: there is something to ask for in smaller portions."""


@frozen
class _Call:
    """One request, as it is sent to one node or another."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    body: bytes | None
    repeatable: bool
    read_timeout: float
    largest_reply: int | None = None
    kind: str = ""  # of those that are as slow
    patient: bool = False  # its answer, or its whole time, is waited for


#: Without a coding: who isn't told takes any for welcome (RFC 9110, 12.5.3), a proxy between for instance.
_ACCEPT: Final = (("Accept", JSON), ("Accept-Encoding", "identity"))
#: What a node that failed is asked before it is trusted with a request.
_PROBE: Final = _Call("GET", "/", _ACCEPT, None, True, _PROBE_TIMEOUT)


def _with(account: Account, call: _Call) -> _Call:
    if account.authorization is None:
        return call
    return evolve(call, headers=[*call.headers, ("Authorization", account.authorization)])


def path(*parts: str) -> str:
    """An absolute path of these segments, each escaped."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


class OpenSearchClient:
    """Use as an async context manager; leaving it closes the connections. ``connect`` and ``rng`` are for tests.

    Of ``settings.client.max_connections`` a half is for bulk calls of events, which find their places themselves
    (``bulk_places``), so that what hangs there holds up nothing else; more requests than places wait in order."""

    def __init__(self, settings: Indexer, *, connect: Connect | None = None, rng: random.Random | None = None) -> None:
        self.hosts = Hosts([(host.host, host.port) for host in settings.hosts], rng or random.Random())
        self._settings = settings
        self._limits = settings.client
        self._connect = make_connector(settings.ssl) if connect is None else connect
        self._account: Account = read_account(settings)
        self.unreadable = UnreadableLog()
        self.failures: RefusalLog = RefusalLog(logger, clock=trio.current_time)  # of parts of calls
        self._account_outage = OutageLog(logger, "indexer account", clock=trio.current_time)
        self._secrets_outage = OutageLog(logger, "indexer credentials", clock=trio.current_time)
        self._refusal: HttpReply | None = None
        self._refused_until = 0.0
        self._outages = {host: OutageLog(logger, f"indexer {host}", clock=trio.current_time) for host in self.hosts.all}
        self._pools = {host: self._pool_of(host) for host in self.hosts.all}
        half = self._limits.max_connections // 2
        self.bulk_places = AdaptivePlaces(least=min(_LEAST_BULK, half), first=half, most=half)
        self._places = trio.Semaphore(self._limits.max_connections - half)
        self._busy = 0

    async def __aenter__(self) -> OpenSearchClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for pool in self._pools.values():
            await pool.aclose()

    def statistics(self) -> Mapping[str, int]:
        idle = sum(pool.idle for pool in self._pools.values())
        return {"busy": self._busy, "idle": idle, "waiting": self._places.statistics().tasks_waiting}

    # --- requests ---

    async def request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = JSON,
        repeatable: bool = True,
        has_place: bool = False,
        is_probe: bool = False,
        largest_reply: int | None = None,
    ) -> HttpReply:
        """Sends a request; returns the answer, whatever its status. ``repeatable``: may be sent to another node when
        one fails after it may have seen it. ``has_place``: one of ``bulk_places`` is held, and it is waited for, as
        changes are, since their order counts. ``is_probe``: needs none. ``largest_reply``: bytes. Raises
        ``IndexerUnavailable`` when no node answers, ``ReplyTooLarge``. Cancelled: may have been applied."""
        if query:
            target = f"{target}?{urlencode(query)}"
        headers = [*_ACCEPT]
        if body is not None:
            headers.append(("Content-Type", content_type))
            if 0 < self._limits.gzip_bytes <= len(body):
                body = await _compress(body)
                headers.append(("Content-Encoding", "gzip"))
        limit, kind = self._limits.read_timeout, "in order" if has_place else kind_of(method, target)
        patient = has_place or is_change(method, target)
        call = _Call(method, target, headers, body, repeatable, limit, largest_reply, kind, patient)
        async with contextlib.nullcontext() if has_place or is_probe else self._places:
            self._busy += 1
            try:
                return await self._on_some_host(call)
            finally:
                self._busy -= 1

    async def json(
        self, method: str, target: str, body: Any = None, *, query: Mapping[str, str] | None = None, type: Any = Any
    ) -> Any:
        """As ``request`` with JSON both ways; an answer that is no success is ``IndexerUnavailable`` with the reply."""
        encoded = None if body is None else encode_json(body)
        reply = await self.request(method, target, encoded, query=query)
        return decode(reply, type)

    async def _on_some_host(self, call: _Call) -> HttpReply:
        if trio.current_time() < self._refused_until and not self._reload_account(self._account):
            raise IndexerUnavailable("the indexer refuses our account", reply=self._refusal)
        tried: list[Host] = []
        unready: HttpReply | None = None
        last: IndexerUnavailable | None = None
        while (host := self.hosts.choose(trio.current_time(), tried)) is not None:
            tried.append(host)
            try:
                if host.failures:
                    await self._exchange(host, _PROBE)
            except HttpFailure as failure:
                last = IndexerUnavailable(f"{host}: {failure}", sent=failure.sent)
                continue
            try:
                reply = await self._ask(host, call)
            except HttpFailure as failure:
                if failure.too_large:
                    raise ReplyTooLarge(f"{host}: {failure}", sent=True) from failure
                last = IndexerUnavailable(f"{host}: {failure}", sent=failure.sent)
                if failure.sent and not call.repeatable:
                    raise last from failure
                if isinstance(failure, Overtaken):  # once more, anywhere, and with all the time there is
                    tried.remove(host)
                    call = evolve(call, patient=True)
                continue
            if reply.status not in _UNREADY or not call.repeatable:
                return reply
            unready = reply
        if unready is not None:
            return unready
        raise last or IndexerUnavailable("no node of the indexer answers")

    async def _ask(self, host: Host, call: _Call) -> HttpReply:
        """Sends one request to one node. Raises ``Overtaken`` where its answer seems to be lost."""
        exchange = partial(self._exchange, host, call)
        try:
            return await self.hosts.slow.ask(host, call.kind, exchange, patient=call.patient, again=call.repeatable)
        except Overtaken as failure:
            logger.info("indexer %s: %s", host, failure)
            await self._pools[host].aclose()  # connections that are kept may be as dead
            raise

    async def _exchange(self, host: Host, call: _Call) -> HttpReply:
        """Sends one request to one node, and notes what that says of the node's health."""
        began = trio.current_time()
        host.begin(began)
        try:
            reply = await self._exchange_with_account(host, call)
        except HttpFailure as failure:
            if failure.too_large:
                self.hosts.answered(host, began, trio.current_time())
                self._outages[host].worked()
                raise
            self.hosts.failed(host, began, trio.current_time())
            self._outages[host].failed(failure)
            raise
        except BaseException:
            if self.hosts.abandoned(host, began, trio.current_time()):
                self._outages[host].failed(f"no answer for {trio.current_time() - began:.1f} s")
            raise
        self.hosts.answered(host, began, trio.current_time(), ready=reply.status not in _UNREADY)
        self._outages[host].worked()
        return reply

    async def _exchange_with_account(self, host: Host, call: _Call) -> HttpReply:
        account = self._account
        reply = await self._send(host, _with(account, call))
        if reply.status == 401 and self._reload_account(account):
            reply = await self._send(host, _with(self._account, call))
        works = reply.status != 401
        self._refusal = None if works else reply
        self._refused_until = 0.0 if works else trio.current_time() + _REFUSAL_REST
        if works:
            self._account_outage.worked()
        else:
            self._account_outage.failed(f"{describe(reply)} ({host})", kind="refused")
        return reply

    def _reload_account(self, used: Account) -> bool:
        """Reads the account's files again: a password may have been changed. Returns whether there is another one than
        was used."""
        try:
            self._account = read_account(self._settings)
        except AccessError as exc:
            self._secrets_outage.failed("the one read before stays in use", kind=str(exc))
        else:
            self._secrets_outage.worked()
        changed = self._account != used
        if changed:
            self._refused_until = 0.0
        return changed

    def _pool_of(self, host: Host) -> HttpPool:
        async def connect() -> trio.abc.Stream:
            return await self._connect(host.name, host.port)

        limits = self._limits
        return HttpPool(
            connect,
            host=str(host),
            keepalive=limits.keepalive_timeout,
            connect_timeout=limits.connect_timeout,
            write_timeout=limits.write_timeout,
        )

    async def _send(self, host: Host, call: _Call) -> HttpReply:
        """A kept connection that the node closed just as we began is no failure of the node."""

        def was_unseen(failure: HttpFailure) -> bool:
            return call.repeatable and not failure.heard and not failure.timed_out

        return await self._pools[host].request(
            call.method,
            call.target,
            call.headers,
            call.body,
            read_timeout=call.read_timeout,
            largest_reply=call.largest_reply,
            was_unseen=was_unseen,
        )


async def _compress(body: bytes) -> bytes:
    if len(body) < _GZIP_IN_THREAD:
        return gzip.compress(body, _GZIP_LEVEL, mtime=0)
    return await trio.to_thread.run_sync(lambda: gzip.compress(body, _GZIP_LEVEL, mtime=0), abandon_on_cancel=True)


def decode(reply: HttpReply, type: Any = Any) -> Any:
    """Decodes the body of a success. Raises ``IndexerUnavailable``, with the reply, for anything else."""
    if not 200 <= reply.status < 300:
        raise IndexerUnavailable(describe(reply), reply=reply)
    try:
        return msgspec.json.decode(reply.body, type=type)
    except DECODE_ERRORS as exc:
        if type is Any:  # names of fields come from documents
            with contextlib.suppress(ValueError, RecursionError):
                return lenient(reply.body)
        raise _unexpected(reply, exc) from exc


def decode_around(reply: HttpReply, type: Any, *path: str) -> tuple[Any, Sequence[msgspec.Raw | bytes]]:
    """Decodes the body of a success that has a list at ``path``; the list's elements are returned still to be decoded,
    since one that can't be must not sink the others. ``type`` has that list as a list of ``msgspec.Raw``. Raises
    ``IndexerUnavailable``."""
    if not 200 <= reply.status < 300:
        raise IndexerUnavailable(describe(reply), reply=reply)
    try:
        elements = whole = msgspec.json.decode(reply.body, type=type)
        for part in path:
            elements = getattr(elements, part)
        return whole, elements
    except DECODE_ERRORS as exc:
        try:
            around, slices = cut_list(reply.body, *path)
            return msgspec.json.decode(around, type=type), slices
        except (NotSliced, *DECODE_ERRORS):
            raise _unexpected(reply, exc) from exc


def _unexpected(reply: HttpReply, exc: Exception) -> IndexerUnavailable:
    return IndexerUnavailable(f"the indexer's answer isn't as expected: {describe_decode_error(exc)}", reply=reply)
