"""Agents that go silent, and come back, as events to the engine: told by one node of the cluster, by its leader.

Nobody is lost before the node has run for one threshold, nor until some time after presence could be read and kept
again: an outage makes all agents look silent.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from math import inf
from typing import Any, Final

import trio

from wazuh_comms_trio.backends.interfaces import AgentRegistry, BodyRefused, Engine
from wazuh_comms_trio.backends.leadership import Leadership
from wazuh_comms_trio.backends.presence import LastSeen, PresenceStore
from wazuh_comms_trio.errors import BackendUnavailable, DocumentUnreadable, EngineRefused
from wazuh_comms_trio.foundation.aligned_timer import sleep_until_next_tick
from wazuh_comms_trio.foundation.environment import WallClock
from wazuh_comms_trio.foundation.outage_log import OutageLog
from wazuh_comms_trio.foundation.timestamps import to_iso
from wazuh_comms_trio.services.presence.recorder import INTERVAL, PresenceRecorder
from wazuh_comms_trio.services.presence.silence import (
    KINDS,
    SHARE,
    Change,
    Told,
    decode,
    encode,
    event_body,
    levels,
    silent_agents,
)

__all__ = ["LOOK", "SilenceWatch"]

logger = logging.getLogger(__name__)

#: Seconds between two looks, and for which a node that looks keeps the right to.
LOOK: Final = 30.0
LEASE: Final = 100.0
#: Seconds after an outage in which agents have yet to be stored as heard.
QUIET: Final = 2 * INTERVAL + 40.0
#: Seconds by which the clock of the wall may go otherwise than trio's between two looks.
JUMP: Final = 30.0
#: "At once" is within that many seconds, since agents are heard at moments of their own.
AT_ONCE: Final = 330.0
#: Agents named in an event that is about many.
NAMED: Final = 10
#: Agents that are read in one call.
AT_ONCE_READ: Final = 500
_SERVER: Final = "000"
_TOPIC: Final = "silence"


class SilenceWatch:
    """Watches for silent agents; ``holder``: this node's id. ``after``: seconds of silence after which an agent is
    lost; ``partial_after``: in which an agent that polls must have sent an event, if it ever did."""

    def __init__(
        self,
        store: PresenceStore,
        agents: AgentRegistry,
        engine: Engine,
        leadership: Leadership,
        recorder: PresenceRecorder,
        *,
        holder: str,
        after: float,
        partial_after: float,
        wall_clock: WallClock,
    ) -> None:
        self._store = store
        self._agents = agents
        self._engine = engine
        self._leadership = leadership
        self._recorder = recorder
        self._holder = holder
        self._levels = levels(after)
        self._partial_after = partial_after
        self._now = wall_clock
        self._quiet_until = inf
        #: As it was stored last, so that it needn't be decoded each time: it may be megabytes.
        self._kept = ("", Told())
        #: When how many agents were told of one by one, by kind.
        self._lately: deque[tuple[float, str, int]] = deque()
        self._outage = OutageLog(logger, "agents' silence", clock=trio.current_time)
        self._refusals = OutageLog(logger, "agents' silence", clock=trio.current_time)
        leadership.register(_TOPIC, on_change=self._be_quiet)

    async def run(self) -> None:
        """Looks regularly, until cancelled."""
        self._quiet_until = trio.current_time() + self._levels[0]
        offset = self._now() - trio.current_time()
        while True:
            await sleep_until_next_tick(LOOK)
            before, offset = offset, self._now() - trio.current_time()
            if abs(offset - before) > JUMP:  # as at a start: this host slept, or its clock was set
                self._quiet_until = trio.current_time() + self._levels[0]
            if self._recorder.failing:
                self._be_quiet()
            if not self._leadership.is_leader:
                continue
            try:
                await self.look()
                self._outage.worked()
            except BackendUnavailable as exc:
                self._be_quiet()
                self._outage.failed(exc.message, kind="can't be told")
            except Exception:
                logger.exception("agents' silence can't be told: an error of ours")

    def _be_quiet(self) -> None:
        self._quiet_until = max(self._quiet_until, trio.current_time() + QUIET)

    async def look(self) -> None:
        """Looks for agents that changed, and tells. Raises ``BackendUnavailable``; what was told until then is kept."""
        now, taken_at = self._now(), trio.current_time()
        state = await self._store.take_watch(self._holder, now, LEASE)
        if state is None or trio.current_time() < self._quiet_until:
            return
        told = self._kept[1] if state == self._kept[0] else decode(state)
        self._kept = "", Told()
        silent_since = now - self._levels[0]
        silent = await self._store.last_seen(before=silent_since)
        mute = await self._store.last_seen(silent_since, sent_before=now - self._partial_after)
        others = (told.lost.keys() | told.partial.keys()) - silent.keys() - mute.keys()
        heard = await self._heard(others, silent_since)
        for agent_id in others - heard.keys():  # it was removed
            told.lost.pop(agent_id, None)
            told.partial.pop(agent_id, None)
        total = sum((await self._store.counts(silent_since)).values())
        changes = list(silent_agents(silent, mute, heard, told, now=now, after=self._levels))
        try:
            for kind in KINDS:
                of_kind = [change for change in changes if change.kind == kind]
                await self._tell(of_kind, told, total, now, until=taken_at + LEASE / 2)
        finally:
            if (text := encode(told)) != state:
                with trio.CancelScope(deadline=trio.current_time() + 5, shield=True):
                    await self._store.keep_watch(self._holder, text)
            self._kept = text, told

    async def _heard(self, ids: Set[str], since: float) -> dict[str, LastSeen]:
        """When those agents were heard that are there; one that was removed isn't in it. Of many, most are found by a
        search: each is read that it hasn't found, since the search of an indexer goes by what was written last, perhaps
        by a node that couldn't for a while."""
        heard = await self._store.last_seen(since) if len(ids) > AT_ONCE_READ else {}
        found = {agent_id: heard[agent_id] for agent_id in ids if agent_id in heard}
        others = sorted(ids - found.keys())
        for start in range(0, len(others), AT_ONCE_READ):
            found |= await self._store.last_seen_of(others[start : start + AT_ONCE_READ])
        return found

    async def _tell(self, changes: Sequence[Change], told: Told, total: int, now: float, *, until: float) -> None:
        """``until``: on trio's clock; what isn't told by then is told at the next look, by whoever has the right to."""
        moment = trio.current_time()
        if not changes or moment > until:
            return
        kind = changes[0].kind
        while self._lately and self._lately[0][0] < moment - AT_ONCE:
            self._lately.popleft()
        lately = sum(number for _, of_kind, number in self._lately if of_kind == kind)
        if len(changes) > 1 and len(changes) + lately > SHARE * total:
            await self._send(_SERVER, _of_many(changes, now))
            for change in changes:
                change.note(told)
            self._lately.append((moment, kind, len(changes)))
            return
        for change in changes:
            if trio.current_time() > until:
                return
            agent = await self._metadata(change.agent_id)
            if agent is not None:
                await self._send(change.agent_id, _of_one(change, agent, now))
            change.note(told)
            self._lately.append((moment, kind, 1))

    async def _metadata(self, agent_id: str) -> dict[str, Any] | None:
        """The metadata line as an agent says it of itself; None where the agent was removed or can't be read."""
        try:
            agent = await self._agents.get(agent_id)
        except DocumentUnreadable:
            return None
        if agent is None:
            return None
        about = {"id": agent.id, "name": agent.name, "type": agent.type, "version": agent.version}
        return {**about, "groups": list(agent.groups), "host": dict(agent.host)}

    async def _send(self, agent_id: str, body: bytes) -> None:
        """Sends events; what the engine will never take is in the log, and holds up nothing else."""

        async def chunks() -> AsyncIterator[bytes]:
            yield body

        try:
            await self._engine.send_events(chunks(), agent_id=agent_id, length=len(body))
        except EngineRefused as error:
            if isinstance(error, BodyRefused) and error.consumed.descriptor is not None:
                os.close(error.consumed.descriptor)
            self._refusals.failed(error.message, kind="an event was refused by the engine")
        else:
            self._refusals.worked()


def _of_one(change: Change, agent: Mapping[str, Any], now: float) -> bytes:
    about = {
        "level": change.level or None,
        "since": to_iso(change.since),
        "seconds": round(now - change.since),
        "node": change.node or None,
        "count": 1,
    }
    return event_body(agent, _data(change.kind, f"{change.agent_id}-{change.since:.3f}-{change.level}", about, now))


def _of_many(changes: Sequence[Change], now: float) -> bytes:
    first = min(changes, key=lambda change: change.agent_id)
    about = {"count": len(changes), "agents": sorted(change.agent_id for change in changes)[:NAMED]}
    server = {"id": _SERVER, "name": socket.gethostname()}
    return event_body(server, _data(first.kind, f"{first.agent_id}-{first.since:.3f}-many", about, now))


def _data(kind: str, event_id: str, about: Mapping[str, Any], now: float) -> dict[str, Any]:
    said = {name: value for name, value in about.items() if value is not None}
    event = {"kind": "event", "action": f"agent-{kind}", "id": f"{kind}-{event_id}"}
    return {"@timestamp": to_iso(now), "event": event, "presence": said}
