"""Bulk calls that outlive those who made them.

A request that is given up says nothing of what it does in the indexer: there it may still happen, half a minute later,
after a newer write of the same documents. So a call whose caller went stays and is waited for, and a later one that
touches one of its documents doesn't begin before. One agent's events are applied in the order they came.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

import trio

from wazuh_comms_trio.backends.interfaces import DocumentOperation
from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable

T = TypeVar("T")


class Call(Generic[T]):
    """``stray``: its caller went."""

    def __init__(self, operations: Sequence[DocumentOperation]) -> None:
        self.operations = operations
        self.stray = False
        self.done = trio.Event()
        self.scope = trio.CancelScope()
        self.value: T | None = None
        self.error: Exception | None = IndexerUnavailable("the call was given up", sent=True)

    def touches(self, operations: Sequence[DocumentOperation]) -> bool:
        mine = {(operation.index, operation.document_id) for operation in self.operations}
        return any((operation.index, operation.document_id) in mine for operation in operations)


class Calls:
    """Calls run in ``nursery``; one whose caller waits holds one of ``places``. At most ``strays`` others are kept,
    each with what it sends: of more the oldest is given up."""

    def __init__(self, nursery: trio.Nursery, places: trio.Semaphore, *, strays: int) -> None:
        self._nursery = nursery
        self._places = places
        self._most = strays
        self._strays: dict[Call[Any], None] = {}

    async def run(self, operations: Sequence[DocumentOperation], work: Callable[[Call[T]], Awaitable[T]]) -> T:
        """What ``work`` returns or raises. Cancelled, ``work`` goes on."""
        if self._strays:
            await self._wait_for_strays(operations)
        await self._places.acquire()
        call: Call[T] = Call(operations)
        self._nursery.start_soon(self._run, call, work)
        try:
            await call.done.wait()
        except BaseException:
            self._abandon(call)
            raise
        if call.error is not None:
            raise call.error
        return call.value  # type: ignore[return-value]  # there is one where there is no error

    async def _run(self, call: Call[T], work: Callable[[Call[T]], Awaitable[T]]) -> None:
        try:
            with call.scope:
                call.value = await work(call)
                call.error = None
        except Exception as exc:
            call.error = exc
        finally:
            call.done.set()
            if call.stray:
                self._strays.pop(call, None)
            else:
                self._places.release()

    def _abandon(self, call: Call[T]) -> None:
        if call.done.is_set():
            return
        call.stray = True
        self._places.release()
        self._strays[call] = None
        if len(self._strays) > self._most:
            next(iter(self._strays)).scope.cancel()

    async def _wait_for_strays(self, operations: Sequence[DocumentOperation]) -> None:
        for call in [call for call in self._strays if call.touches(operations)]:
            await call.done.wait()
