"""The fake indexer as several nodes with the same indices: one is down, hangs, doesn't reach a part of the documents,
or searches in what was there a while ago; the primary moves; one of our nodes doesn't reach one of these."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from random import Random
from typing import TYPE_CHECKING, Any, Final

import trio

from tests.indexer.fake import FakeOpenSearch
from tests.indexer.fake_bodies import Answer, error, failure
from tests.indexer.fake_index import Index, Stored
from tests.simulation.nodes.network import SimStream, process_stream_pair, send_twice
from tests.simulation.nodes.plain_connection import PlainConnection
from tests.simulation.stores.shards import SHARDS, shard_of

if TYPE_CHECKING:
    from tests.simulation.nodes.process import Process
    from tests.simulation.plans.faults import Fault
    from tests.simulation.world import World

__all__ = ["CALLER", "PORT", "IndexerNodes"]

PORT = 9200
#: Whose connection to the indexer a task serves, and which of its nodes that is.
CALLER: ContextVar[Process | None] = ContextVar("caller", default=None)
_NODE: ContextVar[int] = ContextVar("indexer node", default=0)
#: Bytes of a call of several items above which it is too large, where one is.
LARGEST = 700
#: What the names of the indices begin with that may be blocked or closed, by a fault's amount.
_STRUCK: Final = ("wazuh-states", "wazuh-agents", "wazuh-commands")
_BLOCKED: Final = (403, "cluster_block_exception", "index [x] blocked by: [FORBIDDEN/8/index write (api)];")
#: What an index may say that takes none for a while: of which one a shard's is, is the seed's.
_PASSING: Final = (
    (429, "rejected_execution_exception", "rejected execution"),
    (429, "cluster_block_exception", "index [x] blocked by: [TOO_MANY_REQUESTS/12/disk usage];"),
    (400, "index_closed_exception", "closed"),
    (404, "index_not_found_exception", "no such index [x] and [action.auto_create_index] is [false]"),
    (400, "illegal_argument_exception", "no write index is defined for alias [x]"),
    (403, "security_exception", "no permissions for [indices:data/write/bulk[s]]"),
    (503, "unavailable_shards_exception", "primary shard is not active"),
    _BLOCKED,
)


class IndexerNodes(FakeOpenSearch):
    """Also with shards that take nothing for a while."""

    def __init__(self, nursery: trio.Nursery, world: World, is_passing: Callable[[int], bool]) -> None:
        super().__init__(nursery)
        self.hosts = [f"10.1.0.{number}" for number in range(world.plan.indexer_nodes)]
        self._world = world
        self._is_passing = is_passing
        self._down: set[int] = set()
        self._awake: dict[int, trio.Event] = {}
        self._seen: dict[int, dict[str, dict[str, Stored]]] = {}  # by node that isn't up to date
        self._serving: dict[int, list[tuple[trio.CancelScope, Process | None]]] = {
            number: [] for number in range(len(self.hosts))
        }
        self._lasting: list[Fault] = []  # of those that are looked for with each request
        self._peers: dict[trio.abc.Stream, SimStream] = {}
        self._may_be_partial = True  # of the search that is asked for

    async def strike(self, fault: Fault) -> None:
        """From the fault's beginning to its end."""
        await trio.sleep_until(fault.start)
        node = int(fault.amount) % len(self.hosts)
        self._world.trace.strike(fault.kind, "indexer", self.hosts[node])
        if fault.kind == "indexer primary moves":  # writes are repeated: what is done is said to be there already
            self.faults.false_conflicts += 1 + int(fault.amount)
            return
        if fault.kind == "indexer down":
            self._down.add(node)
            for scope, _ in self._serving[node]:  # with what it was asked and hasn't done
                scope.cancel()
        elif fault.kind == "indexer split":
            for scope, process in self._serving[node]:
                if process is not None and process.node == fault.node:
                    scope.cancel()
        elif fault.kind == "indexer hangs":
            self._awake.setdefault(node, trio.Event())
        elif fault.kind == "indexer stale":
            self._seen[node] = {name: dict(index.documents) for name, index in self.indices.items()}
        self._lasting.append(fault)
        await trio.sleep_until(fault.start + fault.seconds)
        self._lasting.remove(fault)
        self._down.discard(node)
        self._seen.pop(node, None)
        if (event := self._awake.pop(node, None)) is not None:
            event.set()

    async def connect_from(self, process: Process | None, host: str) -> SimStream:
        """Raises ``OSError``."""
        await trio.lowlevel.checkpoint()
        node = self.hosts.index(host)
        if node in self._down or (process is not None and process.dead):
            raise OSError(111, "Connection refused")
        for fault in self._lasting:
            if (
                fault.kind == "indexer split"
                and process is not None
                and process.node == fault.node
                and self._is(fault, node)
            ):
                self._world.trace.strike(fault.kind, "connection", process.name)
                if fault.alone:  # nothing comes back
                    await trio.sleep_until(fault.start + fault.seconds)
                raise OSError(113, "No route to host")
        ours, theirs = process_stream_pair()
        theirs.served = True
        self._peers[theirs] = ours
        if process is not None:
            ours.belongs_to(process)
        CALLER.set(process)  # in this task's context, which the other end's task begins with
        _NODE.set(node)
        self._nursery.start_soon(self._serve_on, node, theirs)
        return ours

    async def _serve_on(self, node: int, stream: SimStream) -> None:
        with trio.CancelScope() as scope:
            self._serving[node].append((scope, CALLER.get()))
            await self._serve(stream)
        self._serving[node].remove((scope, CALLER.get()))
        del self._peers[stream]
        stream.close()

    def _is(self, fault: Fault, node: int) -> bool:
        return int(fault.amount) % len(self.hosts) == node

    def _meets(self, kind: str) -> Fault | None:
        """The fault of this kind that the request which is answered now meets."""
        for fault in self._lasting:
            if fault.kind == kind and self._is(fault, _NODE.get()) and self._world.rng_calls.random() < fault.share:
                self._world.trace.strike(kind, "answer", self.hosts[_NODE.get()])
                return fault
        return None

    def _new_connection(self) -> PlainConnection:
        return PlainConnection()

    def _encode(self, connection: PlainConnection, status: int, body: bytes) -> bytes:
        return connection.answer(status, [("Content-Length", str(len(body)))], body)

    async def _send(self, stream: trio.abc.HalfCloseableStream, answer: bytes) -> None:
        if self._meets("indexer answers twice") is None:
            await super()._send(stream, answer)
        else:
            assert isinstance(stream, SimStream)
            await send_twice(stream, self._peers[stream], answer)

    async def awake(self) -> None:
        """Returns when the node that serves this task doesn't hang."""
        while (event := self._awake.get(_NODE.get())) is not None:
            await event.wait()

    def _is_refusing(self, kind: str, name: str) -> bool:
        """Does a fault of this kind strike a request of this index now?"""
        for fault in self._lasting:
            if (
                fault.kind == kind
                and name.startswith(_STRUCK[int(fault.amount)])
                and self._world.rng_calls.random() < fault.share
            ):
                self._world.trace.strike(kind, "index", _STRUCK[int(fault.amount)])
                return True
        return False

    def _do_in(self, index: Index | None, method: str, parts: list[str], query: Mapping[str, str], body: bytes) -> Any:
        if self._is_refusing("index closed", parts[0]):
            return error(400, "index_closed_exception", "closed")
        self._may_be_partial = query.get("allow_partial_search_results") != "false"
        if "_refresh" in parts and self._meets("indexer partial") is not None:
            return 200, {"_shards": {"total": SHARDS, "successful": SHARDS - 1, "failed": 1}}
        answer = super()._do_in(index, method, parts, query, body)
        if index is not None and ("_refresh" in parts or query.get("refresh") == "true"):
            for seen in self._seen.values():  # of all copies, or it is no success
                seen[index.name] = dict(index.documents)
        return answer

    def _search(self, index: Index, body: Mapping[str, Any], scroll: bool) -> Any:
        seen = self._seen.get(_NODE.get(), {}).get(index.name)
        if seen is not None:
            self._world.trace.strike("indexer stale", "search", self.hosts[_NODE.get()])
        fault = self._meets("indexer partial")
        if fault is not None and not self._may_be_partial:
            return error(503, "search_phase_execution_exception", "Partial shards failure")
        if fault is not None:
            if seen is None:
                index.search({"match_all": {}})  # with a refresh, if one is due
            lost = int(fault.amount)
            documents = index.visible if seen is None else seen
            seen = {each: stored for each, stored in documents.items() if shard_of(each) != lost}
        if seen is None:
            return super()._search(index, body, scroll)
        kept = index.visible, index.refreshed_at
        index.visible, index.refreshed_at = seen, math.inf
        try:
            status, answer = super()._search(index, body, scroll)
        finally:
            index.visible, index.refreshed_at = kept
        if fault is not None and status == 200:
            answer["_shards"] = {"total": SHARDS, "successful": SHARDS - 1, "failed": 1}
        return status, answer

    def _found(self, name: str, document_id: str) -> dict[str, Any]:
        for fault in self._lasting:
            if (
                fault.kind == "indexer partial"
                and self._is(fault, _NODE.get())
                and shard_of(document_id) == int(fault.amount)
            ):
                self._world.trace.strike(fault.kind, "document", self.hosts[_NODE.get()])
                reason = "No shard available for [get]"
                problem = {"type": "no_shard_available_action_exception", "reason": reason}
                return {"_index": name, "_id": document_id, "error": problem}
        return super()._found(name, document_id)

    def _bulk(self, body: bytes) -> Answer:
        for fault in self._lasting:
            if fault.kind == "calls too large" and len(body) > LARGEST and body.count(b'"_index":') > 1:
                self._world.trace.strike(fault.kind, "bulk", self.hosts[_NODE.get()])
                if fault.alone:
                    return 413, None
                return error(429, "circuit_breaking_exception", "[parent] Data too large")
        return super()._bulk(body)

    def _item(self, action: str, about: Mapping[str, Any], *content: Any) -> dict[str, Any]:
        name, shard = about["_index"], shard_of(about["_id"])
        if name.startswith("wazuh-states") and self._is_passing(shard):
            return failure(*Random(f"passing {self._world.plan.seed} {shard}").choice(_PASSING))
        if self._is_refusing("index closed", name):
            return failure(400, "index_closed_exception", "closed")
        if self._is_refusing("index blocked", name):
            return failure(*_BLOCKED)
        return super()._item(action, about, *content)
