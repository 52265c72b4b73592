"""Bulk calls that go on when their caller is cancelled.

A request that is given up says nothing of what it does in the indexer: there it may still happen, half a minute later,
after a newer write of the same documents. So a call whose caller was cancelled goes on (it is *detached*), and a later
call that touches one of its documents waits for its end. One agent's events are applied in the order they came.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, TypeVar

import trio

from wazuh_comms_trio.backends.interfaces import DocumentOperation
from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable
from wazuh_comms_trio.http.client.adaptive_places import AdaptivePlaces

T = TypeVar("T")

#: Seconds after which a call that was given up says something of the indexer.
_LONG: Final = 2.0


class BulkCall(Generic[T]):
    """One call under way; ``detached``: its caller was cancelled."""

    def __init__(self, operations: Sequence[DocumentOperation], began: float) -> None:
        self.operations = operations
        self.began = began  # on trio's clock
        self.detached = False
        self.done = trio.Event()
        self.scope = trio.CancelScope()
        self.value: T | None = None
        self.error: Exception | None = IndexerUnavailable("the call was given up", sent=True)

    def touches(self, operations: Sequence[DocumentOperation]) -> bool:
        mine = {(operation.index, operation.document_id) for operation in self.operations}
        return any((operation.index, operation.document_id) in mine for operation in operations)


class DetachableCalls:
    """Calls run in ``nursery``; one whose caller waits holds one of ``places``. At most ``most_detached`` others go on,
    each with what it sends in memory: of more the oldest is cancelled."""

    def __init__(self, nursery: trio.Nursery, places: AdaptivePlaces, *, most_detached: int) -> None:
        self._nursery = nursery
        self._places = places
        self._most_detached = most_detached
        self._detached: dict[BulkCall[Any], None] = {}

    async def run(self, operations: Sequence[DocumentOperation], work: Callable[[BulkCall[T]], Awaitable[T]]) -> T:
        """Runs ``work``; returns or raises what it does. Cancelled, ``work`` goes on."""
        if self._detached:
            await self._wait_for_detached(operations)
        call: BulkCall[T] = BulkCall(operations, await self._places.acquire())
        self._nursery.start_soon(self._run, call, work)
        try:
            await call.done.wait()
        except BaseException:
            self._abandon(call)
            raise
        if call.error is not None:
            raise call.error
        return call.value  # type: ignore[return-value]  # there is one where there is no error

    async def _run(self, call: BulkCall[T], work: Callable[[BulkCall[T]], Awaitable[T]]) -> None:
        try:
            with call.scope:
                call.value = await work(call)
                call.error = None
        except Exception as exc:
            call.error = exc
        finally:
            call.done.set()
            if call.detached:
                self._detached.pop(call, None)
            else:
                self._places.release(call.began, answered=call.error is None)

    def _abandon(self, call: BulkCall[T]) -> None:
        if call.done.is_set():
            return
        call.detached = True
        self._places.release(call.began, answered=False if trio.current_time() - call.began > _LONG else None)
        self._detached[call] = None
        if len(self._detached) > self._most_detached:
            next(iter(self._detached)).scope.cancel()

    async def _wait_for_detached(self, operations: Sequence[DocumentOperation]) -> None:
        for call in [call for call in self._detached if call.touches(operations)]:
            await call.done.wait()
