"""Reads by id: in real time, many in one call, and never the same one twice at once."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec
import trio

from wazuh_comms_trio.backends.opensearch.client.client import (
    ErrorDetail,
    IndexerUnavailable,
    OpenSearchClient,
    path,
)
from wazuh_comms_trio.backends.opensearch.client.queries import is_possible_id
from wazuh_comms_trio.errors import BackendUnavailable

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Ids in one call.
LARGEST_BATCH: Final = 500


class Found(msgspec.Struct):
    """One document as ``_mget`` and ``_search`` give it."""

    id: str = msgspec.field(name="_id", default="")
    index: str = msgspec.field(name="_index", default="")
    found: bool = False
    source: Any = msgspec.field(name="_source", default=None)
    seq_no: int = msgspec.field(name="_seq_no", default=-1)
    primary_term: int = msgspec.field(name="_primary_term", default=-1)
    sort: list[Any] | None = None
    error: ErrorDetail | None = None


class _Documents(msgspec.Struct):
    docs: list[Found]


async def get_many(
    client: OpenSearchClient, index: str, ids: Sequence[str], *, fields: Sequence[str] = ()
) -> Mapping[str, Found]:
    """Those that exist, by id, as they are at this moment. ``fields``: of their source; none is all. Raises
    ``BackendUnavailable``, also when only one of them couldn't be read."""
    found: dict[str, Found] = {}
    query = {"filter_path": "docs._id,docs.found,docs._source,docs._seq_no,docs._primary_term,docs.error"}
    if fields:
        query["_source_includes"] = ",".join(fields)
    ids = [document_id for document_id in ids if is_possible_id(document_id)]  # another would spoil the call for all
    for start in range(0, len(ids), LARGEST_BATCH):
        wanted = ids[start : start + LARGEST_BATCH]
        reply = await client.json("POST", path(index, "_mget"), {"ids": wanted}, query=query, type=_Documents)
        if len(reply.docs) != len(wanted):
            raise IndexerUnavailable(f"{index}: {len(wanted)} documents were asked for, {len(reply.docs)} answered")
        for document_id, document in zip(wanted, reply.docs, strict=True):
            if document.error is not None:
                raise IndexerUnavailable(f"{index}: {document.error.type}: {document.error.reason}")
            if document.found:
                found[document_id] = document
    return found


class _Read(Generic[T]):
    """One id that is being read, for all tasks that wait for it."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.value: T | None = None
        self.error: BackendUnavailable | None = IndexerUnavailable("the read was given up")


class SharedReads(Generic[T]):
    """Concurrent reads by id share calls: a reader that comes while ``at_once`` calls are under way waits for the next
    one, together with all others. A reader that is cancelled stops no other reader's. ``fetch`` takes ids and returns
    those found; it runs in ``nursery``."""

    def __init__(
        self,
        nursery: trio.Nursery,
        fetch: Callable[[Sequence[str]], Awaitable[Mapping[str, T]]],
        *,
        at_once: int = 2,
    ) -> None:
        self._nursery = nursery
        self._fetch = fetch
        self._at_once = at_once
        self._running = 0
        self._next: dict[str, _Read[T]] = {}

    async def get(self, document_id: str) -> T | None:
        """Read after this call began. Raises ``BackendUnavailable``."""
        pending = self._next.get(document_id)
        if pending is None:
            pending = self._next[document_id] = _Read()
            if self._running < self._at_once:
                self._running += 1
                self._nursery.start_soon(self._run)
        await pending.done.wait()
        if pending.error is not None:
            raise IndexerUnavailable(str(pending.error)) from pending.error
        return pending.value

    async def _run(self) -> None:
        """Until no reader waits."""
        try:
            while self._next:
                ids = list(self._next)[:LARGEST_BATCH]
                batch = {document_id: self._next.pop(document_id) for document_id in ids}
                try:
                    found = await self._fetch(ids)
                except BackendUnavailable as exc:
                    for pending in batch.values():
                        pending.error = exc
                except Exception:
                    logger.exception("documents can't be read: an error of ours")
                else:
                    for document_id, pending in batch.items():
                        pending.value, pending.error = found.get(document_id), None
                finally:
                    for pending in batch.values():
                        pending.done.set()
        finally:
            self._running -= 1
