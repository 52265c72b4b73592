"""Which agents went silent, or came back, since it was told last. Pure.

What was told is a ``Told``, which is stored: whoever tells next goes on from there, so that each event comes once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import chain
from math import inf
from typing import Any, Final, Literal, get_args

import msgspec
from attrs import field, frozen

from wazuh_comms_trio.backends.presence import LastSeen

__all__ = ["SHARE", "Change", "Told", "levels", "silent_agents"]

#: Seconds of silence after which an agent that is lost is told of again.
_ESCALATIONS: Final = (3600.0, 86400.0, 604800.0)
#: Of all agents: above that share at once it isn't agents that went but something between.
SHARE: Final = 0.05

Kind = Literal["back", "resumed", "lost", "partial"]
#: In the order in which they are told.
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


class Told(msgspec.Struct):
    """``lost``: by agent the level that was told last, and when the agent had been heard last; ``partial``: agents that
    were told to send nothing, and when they had sent last; also while they are lost. Epoch seconds."""

    lost: dict[str, tuple[int, float]] = {}
    partial: dict[str, float] = {}


@frozen
class Change:
    """One thing to tell of one agent. ``since``: from when on it was silent, or sent nothing; ``level``: of ``lost``,
    from 1 on."""

    kind: Kind
    agent_id: str
    since: float
    level: int = 0
    node: str = field(default="", eq=False)

    def note(self, told: Told) -> None:
        """Notes in ``told`` that this change was told."""
        if self.kind == "lost":
            told.lost[self.agent_id] = (self.level, self.since)
        elif self.kind == "back":
            told.lost.pop(self.agent_id, None)
        elif self.kind == "partial":
            told.partial[self.agent_id] = self.since
        else:
            told.partial.pop(self.agent_id, None)


def levels(disconnected_after: float) -> tuple[float, ...]:
    """The levels of silence in seconds, ascending."""
    return (disconnected_after, *(each for each in _ESCALATIONS if each > disconnected_after))


def silent_agents(
    silent: Mapping[str, LastSeen],
    mute: Mapping[str, LastSeen],
    heard: Mapping[str, LastSeen],
    told: Told,
    *,
    now: float,
    after: tuple[float, ...],
) -> Iterator[Change]:
    """``silent``: the agents that weren't heard for ``after[0]`` seconds; ``mute``: those that were, and sent no events
    for long; ``heard``: those of ``told`` that are neither; ``after``: as ``levels``."""
    for agent_id, seen in silent.items():
        level = bisect_left(after, now - seen.seen)
        known, since = told.lost.get(agent_id, (0, seen.seen))
        if seen.seen > since:  # it was back for a moment
            yield Change("back", agent_id, since, node=seen.node)
            known = 0
        if level > known:
            yield Change("lost", agent_id, seen.seen, level, seen.node)
    for agent_id, seen in chain(mute.items(), heard.items()):
        if agent_id in told.lost and agent_id not in silent:
            yield Change("back", agent_id, told.lost[agent_id][1], node=seen.node)
    for agent_id, seen in heard.items():
        if seen.sent is not None and seen.sent > told.partial.get(agent_id, inf) and agent_id not in silent:
            yield Change("resumed", agent_id, told.partial[agent_id], node=seen.node)
    for agent_id, seen in mute.items():
        if seen.sent is not None and agent_id not in told.partial and agent_id not in silent:
            yield Change("partial", agent_id, seen.sent, node=seen.node)


def encode(told: Told) -> str:
    return msgspec.json.encode(told).decode()


def decode(text: str | None) -> Told:
    """What can't be read was written by another version, or by somebody else: then nothing was told."""
    try:
        return msgspec.json.decode(text or "{}", type=Told)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Told()


def event_body(agent: Mapping[str, Any], data: Mapping[str, Any]) -> bytes:
    """A body as agents send stateless events."""
    header = {"module": "comms", "collector": "presence"}
    return b"\n".join(msgspec.json.encode(line) for line in ({"agent": agent}, header, data)) + b"\n"
