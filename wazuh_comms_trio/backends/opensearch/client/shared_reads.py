"""Reads by id of many tasks share calls: never the same id twice at once."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

import trio

from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable
from wazuh_comms_trio.backends.opensearch.client.multi_get import LARGEST_BATCH
from wazuh_comms_trio.errors import BackendUnavailable, DocumentUnreadable

logger = logging.getLogger(__name__)
T = TypeVar("T")


class _Read(Generic[T]):
    """One id that is being read, for all tasks that wait for it."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.value: T | DocumentUnreadable | None = None
        self.error: BackendUnavailable | None = IndexerUnavailable("the read was given up")


class SharedReads(Generic[T]):
    """Concurrent reads by id share calls: a reader that comes while ``at_once`` calls are under way waits for the next
    one, together with all others. A reader that is cancelled stops no other reader's. ``fetch`` takes ids and returns
    those found, with the error of each that can't be read; it runs in ``nursery``."""

    def __init__(
        self,
        nursery: trio.Nursery,
        fetch: Callable[[Sequence[str]], Awaitable[Mapping[str, T | DocumentUnreadable]]],
        *,
        at_once: int = 2,
    ) -> None:
        self._nursery = nursery
        self._fetch = fetch
        self._at_once = at_once
        self._running = 0
        self._next: dict[str, _Read[T]] = {}

    async def get(self, document_id: str) -> T | None:
        """Reads a document; the read begins after this call began. Raises ``BackendUnavailable``;
        ``DocumentUnreadable`` where it is this one's alone."""
        pending = self._next.get(document_id)
        if pending is None:
            pending = self._next[document_id] = _Read()
            if self._running < self._at_once:
                self._running += 1
                self._nursery.start_soon(self._run)
        await pending.done.wait()
        if pending.error is not None:
            raise IndexerUnavailable(str(pending.error)) from pending.error
        if isinstance(pending.value, DocumentUnreadable):
            found = pending.value
            raise DocumentUnreadable(found.name, found.why, found.text)
        return pending.value

    async def _run(self) -> None:
        """Reads until no reader waits."""
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
