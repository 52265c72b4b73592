"""Quarantined events, sent on once more, with nothing going back to the quarantine but what is still refused.

An event on a document is written only onto exactly what that was when the event was refused: what later events have
changed since isn't undone.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import msgspec
import trio
from attrs import frozen

from wazuh_comms_trio.backends.interfaces import (
    Backends,
    CommandReport,
    DocumentOperation,
    ItemResult,
    Outcome,
)
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.errors import BackendUnavailable, DocumentUnreadable, EngineRefused, MalformedBody, StorageFull
from wazuh_comms_trio.quarantine.interface import Entry, Quarantine, Rejected, Remaining
from wazuh_comms_trio.services.stateful.packet_reader import Event, PacketReader, Unusable, open_packet

#: Seconds for one entry.
_LIMIT: Final = 60.0
_OVERTAKEN: Final = 412
_NOT_TRIED: Final = "it wasn't tried: what it goes to couldn't be reached"
_EVENTS_AT_ONCE: Final = 256
_BYTES_AT_ONCE: Final = 65536


@frozen
class Replayed:
    """One entry's replay. ``error``: why it, or what is left of it, can still not be taken; it stays then. ``results``:
    of a stateful one's events that were tried. ``overtaken``: a later event has changed the document since."""

    entry: Entry
    error: str | None = None
    results: list[Any] = attrs.field(factory=list)
    overtaken: bool = False


@frozen
class _Left:
    """An event that stays, and why. ``refused``: the store has just said so."""

    event: Event
    error: str
    overtaken: bool = False
    refused: bool = False


class Replay:
    """Use ``open_replay``. ``force``: also what isn't known to be the newest on its document. ``other_node``: one that
    writes to the same indices, and may keep newer events on a document in a quarantine of its own."""

    def __init__(
        self, backends: Backends, quarantine: Quarantine, config: Config, *, force: bool, other_node: str | None
    ) -> None:
        self._backends = backends
        self._quarantine = quarantine
        self._events = config.communications_api.events
        self._force = force
        self._other_node = other_node

    async def replay(self, entry: Entry) -> Replayed:
        """Replays one entry, which is dropped when it was taken. Raises ``BackendUnavailable`` when that can't be told
        now: the entry stays, as one that can't be read does."""
        try:
            if entry.kind == "stateful":
                return await self._stateful(entry)
            await self._stateless(entry)
        except (MalformedBody, EngineRefused) as error:
            return await self._left(entry, error.message)
        except DocumentUnreadable as error:
            return await self._left(entry, error.detail)
        await self._quarantine.drop([entry.id])
        return Replayed(entry)

    async def _left(self, entry: Entry, error: str) -> Replayed:
        await self._quarantine.note_replay(entry.id, error)
        return Replayed(entry, error)

    async def _stateful(self, entry: Entry) -> Replayed:
        """Replays a stateful entry event by event: many may be in one entry."""
        found = await self._quarantine.get(entry.id)
        if found is None:
            raise MalformedBody("the entry is gone")
        rejected = found[1]
        body = rejected.metadata + b"\n" + rejected.payload
        reader = open_packet(body, entry.agent_id, self._events)
        results: list[Any] = []
        left: list[_Left] = []
        tried = 0
        failure: BackendUnavailable | None = None
        while not reader.exhausted:
            for event in reader.read(_EVENTS_AT_ONCE, _BYTES_AT_ONCE):
                tried += 1
                try:
                    result = _NOT_TRIED if failure is not None else await self._try(entry, event)
                except BackendUnavailable as exc:
                    if len(left) == tried - 1:  # nothing was taken
                        raise
                    failure, result = exc, _NOT_TRIED
                if isinstance(result, str):
                    left.append(_Left(event, result))
                    continue
                results.append({"index": event.index, "id": event.id, "result": result.result, "status": result.status})
                if result.status == _OVERTAKEN:
                    left.append(_Left(event, "a later event has changed the document since", overtaken=True))
                elif result.outcome is Outcome.REFUSED:
                    left.append(_Left(event, result.whole_reason, refused=True))
        if not left:
            await self._quarantine.drop([entry.id])
            return Replayed(entry, None, results)
        overtaken = all(one.overtaken for one in left)
        if len(left) < tried:
            await self._keep_only(entry, left, reader)
        else:
            await self._quarantine.note_replay(entry.id, left[0].error)
            if overtaken:
                await self._quarantine.mark_overtaken([entry.id])
        if failure is not None:
            raise failure
        return Replayed(entry, left[0].error, results, overtaken)

    async def _keep_only(self, entry: Entry, left: Sequence[_Left], reader: PacketReader) -> None:
        """Puts an entry for each event that is left in the place of the one with all of them; one for them all where
        there is no room for as many."""
        metadata = reader.metadata.line

        def remaining(one: _Left) -> Remaining:
            event = one.event
            reason = event.action.reason if isinstance(event.action, Unusable) else entry.reason
            version = entry.version if event.document == entry.document else ""
            payload = reader.bytes_of(event)
            kept = Rejected(
                entry.agent_id,
                "stateful",
                one.error if one.refused else reason,
                metadata,
                payload,
                event.document,
                version,
            )
            return Remaining(kept, one.error)

        try:
            await self._quarantine.replace(entry.id, list(map(remaining, left)))
        except StorageFull:
            lines = b"\n".join(reader.bytes_of(one.event) for one in left)
            together = Rejected(entry.agent_id, "stateful", entry.reason, metadata, lines)
            await self._quarantine.replace(entry.id, [Remaining(together, left[0].error)])

    async def _try(self, entry: Entry, event: Event) -> ItemResult | str:
        """Sends one event; its result, or why it isn't tried."""
        action = event.action
        if isinstance(action, Unusable):
            return action.reason
        with trio.move_on_after(_LIMIT):
            if isinstance(action, CommandReport):
                (result,) = await self._backends.commands.report([action])
                return _said(result)
            expected = entry.version if entry.document == event.document else ""
            if not expected and not self._force:
                return "it isn't known whether its document has changed since; --force writes it all the same"
            if self._other_node is not None and not self._force:
                return (
                    f"it isn't known whether {self._other_node} keeps a newer event on its document; "
                    "--force writes it if the document is still the same"
                )
            operation: DocumentOperation = msgspec.structs.replace(action, own=True, plain=False, expected=expected)
            (result,) = await self._backends.events.bulk([operation])
            return _said(result)
        raise BackendUnavailable

    async def _stateless(self, entry: Entry) -> None:
        payload = self._quarantine.payload(entry.id)
        with trio.move_on_after(_LIMIT):
            await self._backends.engine.send_events(payload, agent_id=entry.agent_id, length=entry.payload_bytes)
            return
        raise BackendUnavailable


def _said(result: ItemResult) -> ItemResult:
    if result.outcome in (Outcome.PASSING, Outcome.FULL):
        raise BackendUnavailable(result.result)
    return result


@asynccontextmanager
async def open_replay(
    backends: Backends, quarantine: Quarantine, config: Config, *, force: bool = False
) -> AsyncIterator[Replay]:
    """``force`` as ``Replay``. Raises ``BackendUnavailable``."""
    other_node = None if force or config.communications_api.backend == "embedded" else await _other_node(config)
    yield Replay(backends, quarantine, config, force=force, other_node=other_node)


async def _other_node(config: Config) -> str | None:
    from wazuh_comms_trio.backends.local_node import LocalNode
    from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable, OpenSearchClient
    from wazuh_comms_trio.backends.opensearch.node_registry import other_nodes

    api = config.communications_api
    node = LocalNode.of(api.port, str(api.command_socket), "")
    try:
        async with OpenSearchClient(config.indexer) as client:
            others = await other_nodes(client, node.id, time.time())
    except IndexerUnavailable as exc:
        if exc.reply is not None and exc.reply.status == 403:
            return "another node"  # which ones there are we may not know
        raise
    return f"the node {others[0]}" if others else None
