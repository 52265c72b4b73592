"""Agents that go silent, and come back, as events to the engine: told by one node of the cluster, by its leader.

Nobody is lost before the node has run for one threshold, nor until some time after presence could be read and kept
again: an outage makes all agents look silent.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
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
#: "At once" is within that many seconds, since agents are heard at moments of their own.
AT_ONCE: Final = 330.0
#: Agents named in an event that is about many.
NAMED: Final = 10
#: Agents that are looked at one by one.
FEW: Final = 50
_SERVER: Final = "000"
_TOPIC: Final = "silence"


class SilenceWatch:
    """``holder``: this node's id. ``after``: seconds of silence after which an agent is lost; ``partial_after``: in
    which an agent that polls must have sent an event, if it ever did."""

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
        #: When how many agents were told of one by one, by kind.
        self._lately: deque[tuple[float, str, int]] = deque()
        self._outage = OutageLog(logger, "agents' silence", clock=trio.current_time)
        leadership.register(_TOPIC, on_change=self._be_quiet)

    async def run(self) -> None:
        """Until cancelled."""
        self._quiet_until = trio.current_time() + self._levels[0]
        while True:
            await sleep_until_next_tick(LOOK)
            if self._recorder.failing:
                self._be_quiet()
            if not self._leadership.is_leader:
                continue
            try:
                await self.look()
                self._outage.worked()
            except (BackendUnavailable, EngineRefused) as exc:
                self._be_quiet()
                self._outage.failed(exc.message, kind="can't be told")
            except Exception:
                logger.exception("agents' silence can't be told: an error of ours")

    def _be_quiet(self) -> None:
        self._quiet_until = max(self._quiet_until, trio.current_time() + QUIET)

    async def look(self) -> None:
        """Raises ``BackendUnavailable``, ``EngineRefused``; what was told until then is kept."""
        now = self._now()
        state = await self._store.take_watch(self._holder, now, LEASE)
        if state is None or trio.current_time() < self._quiet_until:
            return
        told = decode(state)
        before = encode(told)
        silent_since = now - self._levels[0]
        silent = await self._store.last_seen(before=silent_since)
        mute = await self._store.last_seen(silent_since, sent_before=now - self._partial_after)
        back = await self._back(told, told.lost.keys() - silent.keys(), silent_since)
        total = sum((await self._store.counts(silent_since)).values())
        told.partial = {agent_id: since for agent_id, since in told.partial.items() if agent_id in mute}
        changes = list(silent_agents(silent, mute, back, told, now=now, after=self._levels))
        try:
            for kind in ("back", "lost", "partial"):
                await self._tell([change for change in changes if change.kind == kind], told, total, now)
        finally:
            if encode(told) != before:
                with trio.CancelScope(deadline=trio.current_time() + 5, shield=True):
                    await self._store.keep_watch(self._holder, encode(told))

    async def _back(self, told: Told, ids: Collection[str], since: float) -> dict[str, LastSeen]:
        """Of agents that were lost and aren't silent any more, when they were heard; one that was removed is forgotten.
        A few are looked at one by one: all that are there may be very many."""
        found: dict[str, LastSeen] = {}
        if len(ids) > FEW:
            heard = await self._store.last_seen(since)
            found = {agent_id: heard[agent_id] for agent_id in ids if agent_id in heard}
        else:
            for agent_id in ids:
                news = [each for each in await self._store.about(agent_id) if each.seen is not None]
                if news:
                    last = max(news, key=lambda each: each.seen or 0.0)
                    found[agent_id] = LastSeen(last.seen or 0.0, last.sent, last.node)
        for agent_id in set(ids) - found.keys():
            del told.lost[agent_id]
        return found

    async def _tell(self, changes: Sequence[Change], told: Told, total: int, now: float) -> None:
        if not changes:
            return
        kind = changes[0].kind
        moment = trio.current_time()
        while self._lately and self._lately[0][0] < moment - AT_ONCE:
            self._lately.popleft()
        lately = sum(number for _, of_kind, number in self._lately if of_kind == kind)
        if len(changes) > 1 and len(changes) + lately > SHARE * total:
            await self._send(_SERVER, _of_many(changes, now))
            for change in changes:
                change.note(told)
        else:
            for change in changes:
                agent = await self._metadata(change.agent_id)
                if agent is not None:
                    await self._send(change.agent_id, _of_one(change, agent, now))
                change.note(told)
        self._lately.append((moment, kind, len(changes)))

    async def _metadata(self, agent_id: str) -> dict[str, Any] | None:
        """As an agent says it of itself; None where the agent was removed or can't be read."""
        try:
            agent = await self._agents.get(agent_id)
        except DocumentUnreadable:
            return None
        if agent is None:
            return None
        about = {"id": agent.id, "name": agent.name, "type": agent.type, "version": agent.version}
        return {**about, "groups": list(agent.groups), "host": dict(agent.host)}

    async def _send(self, agent_id: str, body: bytes) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            yield body

        try:
            await self._engine.send_events(chunks(), agent_id=agent_id, length=len(body))
        except BodyRefused as error:
            if error.consumed.descriptor is not None:
                os.close(error.consumed.descriptor)
            raise


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
