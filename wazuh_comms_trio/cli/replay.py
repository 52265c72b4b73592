"""Quarantined events, sent on once more as if their agent had just sent them, with nothing going back to the
quarantine."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Final

import attrs
import trio
from attrs import frozen

from wazuh_comms_trio.backends.interfaces import Agent, Backends
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.errors import BackendUnavailable, EngineRefused, MalformedBody
from wazuh_comms_trio.quarantine.interface import Entry, Quarantine
from wazuh_comms_trio.services.authentication.authenticator import Caller
from wazuh_comms_trio.services.stateful.events import StatefulEvents

#: Seconds for one entry.
_LIMIT: Final = 60.0


@frozen
class Replayed:
    """One entry's replay. ``error``: why it can still not be taken; the entry stays then. ``results``: of a stateful
    one, which may be ordinary failures (409, 404)."""

    entry: Entry
    error: str | None = None
    results: list[Any] = attrs.field(factory=list)


class Replay:
    """Use ``open_replay``."""

    def __init__(self, backends: Backends, quarantine: Quarantine, stateful: StatefulEvents) -> None:
        self._backends = backends
        self._quarantine = quarantine
        self._stateful = stateful

    async def replay(self, entry: Entry) -> Replayed:
        """Drops the entry when it was taken. Raises ``BackendUnavailable`` when that can't be told now: the entry
        stays."""
        try:
            results = await (self._stateless(entry) if entry.kind == "stateless" else self._as_packet(entry))
        except (MalformedBody, EngineRefused) as error:
            await self._quarantine.note_replay(entry.id, error.message)
            return Replayed(entry, error.message)
        await self._quarantine.drop([entry.id])
        return Replayed(entry, None, results)

    async def _as_packet(self, entry: Entry) -> list[Any]:
        found = await self._quarantine.get(entry.id)
        if found is None:
            raise MalformedBody("the entry is gone")
        rejected = found[1]
        agent = await self._backends.agents.get(entry.agent_id)
        # Its agent may have been removed since; its documents are still its own.
        caller = Caller(agent or Agent(entry.agent_id, "", ""), expires=float("inf"))
        body = rejected.metadata + b"\n" + rejected.payload + b"\n"
        reply = await self._stateful.submit(caller, body, deadline=trio.current_time() + _LIMIT)
        results: list[Any] = json.loads(reply)["results"]
        return results

    async def _stateless(self, entry: Entry) -> list[Any]:
        payload = self._quarantine.payload(entry.id)
        with trio.move_on_after(_LIMIT):
            await self._backends.engine.send_events(payload, agent_id=entry.agent_id, length=entry.payload_bytes)
            return []
        raise BackendUnavailable


@asynccontextmanager
async def open_replay(backends: Backends, quarantine: Quarantine, config: Config) -> AsyncIterator[Replay]:
    """With a batcher of its own. What is invalid is refused, not put aside again."""
    api = config.communications_api
    stateful = StatefulEvents(
        backends,
        quarantine,
        events=attrs.evolve(api.events, invalid="refuse"),
        batcher=api.batcher,
        rng=Random(),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(stateful.run_batcher)
        try:
            yield Replay(backends, quarantine, stateful)
        finally:
            stateful.close()
