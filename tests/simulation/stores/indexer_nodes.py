"""The fake indexer as several nodes with the same indices: one is down, hangs, or searches in what was there a while
ago; the primary moves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import trio

from tests.indexer.fake import FakeOpenSearch
from tests.indexer.fake_bodies import failure
from tests.indexer.fake_index import Index, Stored
from tests.simulation.network import SimStream, process_stream_pair
from tests.simulation.stores.shards import shard_of

if TYPE_CHECKING:
    from tests.simulation.plan import Fault
    from tests.simulation.process import Process
    from tests.simulation.world import World

__all__ = ["CALLER", "PORT", "IndexerNodes"]

PORT = 9200
#: Whose connection to the indexer a task serves, and which of its nodes that is.
CALLER: ContextVar[Process | None] = ContextVar("caller", default=None)
_NODE: ContextVar[int] = ContextVar("indexer node", default=0)


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
        self._serving: dict[int, list[trio.CancelScope]] = {number: [] for number in range(len(self.hosts))}

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
            for scope in self._serving[node]:  # with what it was asked and hasn't done
                scope.cancel()
        elif fault.kind == "indexer hangs":
            self._awake.setdefault(node, trio.Event())
        else:
            self._seen[node] = {name: dict(index.documents) for name, index in self.indices.items()}
        await trio.sleep_until(fault.start + fault.seconds)
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
        ours, theirs = process_stream_pair()
        if process is not None:
            ours.belongs_to(process)
        CALLER.set(process)  # in this task's context, which the other end's task begins with
        _NODE.set(node)
        self._nursery.start_soon(self._serve_on, node, theirs)
        return ours

    async def _serve_on(self, node: int, stream: SimStream) -> None:
        with trio.CancelScope() as scope:
            self._serving[node].append(scope)
            await self._serve(stream)
        self._serving[node].remove(scope)
        stream.close()

    async def awake(self) -> None:
        """Returns when the node that serves this task doesn't hang."""
        while (event := self._awake.get(_NODE.get())) is not None:
            await event.wait()

    def _do_in(self, index: Index | None, method: str, parts: list[str], query: Mapping[str, str], body: bytes) -> Any:
        answer = super()._do_in(index, method, parts, query, body)
        if index is not None and ("_refresh" in parts or query.get("refresh") == "true"):
            for seen in self._seen.values():  # of all copies, or it is no success
                seen[index.name] = dict(index.documents)
        return answer

    def _search(self, index: Index, body: Mapping[str, Any], scroll: bool) -> Any:
        seen = self._seen.get(_NODE.get(), {}).get(index.name)
        if seen is None:
            return super()._search(index, body, scroll)
        self._world.trace.strike("indexer stale", "search", self.hosts[_NODE.get()])
        kept = index.visible, index.refreshed_at
        index.visible, index.refreshed_at = seen, math.inf
        try:
            return super()._search(index, body, scroll)
        finally:
            index.visible, index.refreshed_at = kept

    def _item(self, action: str, about: Mapping[str, Any], *content: Any) -> dict[str, Any]:
        if about["_index"].startswith("wazuh-states") and self._is_passing(shard_of(about["_id"])):
            return failure(429, "rejected_execution_exception", "rejected execution")
        return super()._item(action, about, *content)
