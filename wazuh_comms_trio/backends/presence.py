"""When each agent was heard last, and where: the Protocol of the stores that keep it, and what follows from it.

It is kept coarsely: what is written is about a minute old. Times are epoch seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Protocol

from attrs import field, frozen

__all__ = [
    "AHEAD",
    "STATUSES",
    "Heard",
    "LastSeen",
    "NodeNews",
    "PresenceStore",
    "Status",
    "is_believed",
    "last_moment",
    "status_of",
]

#: ``never``: no node ever heard the agent.
Status = Literal["active", "disconnected", "never"]
#: Seconds by which a stored moment may be ahead of its reader's clock: one beyond was written by a clock that was
#: wrong, and says nothing. The agent's next one takes its place.
AHEAD: Final = 60.0
STATUSES: Final[tuple[Status, ...]] = ("active", "disconnected", "never")


@frozen
class Heard:
    """What a node heard of one agent since it was stored last. ``seen``: its last authenticated request; ``sent``: its
    last events; None where there were none; ``news``: as ``services.agent_journal`` says it, as JSON.
    """

    agent_id: str
    seen: float | None
    sent: float | None = None
    news: Mapping[str, Any] = field(factory=dict)


@frozen
class LastSeen:
    """``sent`` is None where no event of the agent is known. ``node``: which one heard it last; empty where there is
    but one."""

    seen: float
    sent: float | None = None
    node: str = ""


@frozen
class NodeNews:
    """What one node says of an agent. ``node_id`` is the node's own, ``node`` its name."""

    node_id: str
    node: str
    seen: float | None
    sent: float | None = None
    news: Mapping[str, Any] = field(factory=dict)


class PresenceStore(Protocol):
    """Every call raises ``BackendUnavailable``. An agent that is removed is forgotten."""

    #: Whether it keeps ``news``, for other nodes to read.
    keeps_news: bool

    async def record(self, heard: Sequence[Heard]) -> None:
        """Stores what was heard of agents, some hundred a call. Of two moments that one node says the later one counts,
        unless it isn't believed (``AHEAD``). What of ``news`` isn't said stays. Idempotent; needn't survive a power
        cut."""
        ...

    async def last_seen(
        self, since: float | None = None, *, before: float | None = None, sent_before: float | None = None
    ) -> Mapping[str, LastSeen]:
        """By agent: all that are known, or those that were heard last at ``since`` or later, ``before`` a moment, and
        whose last events came ``sent_before`` one. Some of them may be of agents that were removed."""
        ...

    async def last_seen_of(self, agent_ids: Sequence[str]) -> Mapping[str, LastSeen]:
        """When agents were heard last, of some hundred ids in lower case, those that were heard."""
        ...

    async def about(self, agent_id: str) -> Sequence[NodeNews]:
        """What each node says of this agent; as fresh as the last ``record``."""
        ...

    async def take_watch(self, holder: str, now: float, seconds: float) -> str | None:
        """The right to tell of agents' silence for all nodes, until ``now`` and ``seconds``: what was kept last by
        whoever had it, empty at first; None while another node has it."""
        ...

    async def keep_watch(self, holder: str, state: str) -> bool:
        """Keeps what the next holder is given, for whom ``take_watch`` gave the right to last. False, and nothing is
        kept, where another one has it since."""
        ...

    async def counts(self, since: float) -> Mapping[Status, int]:
        """Agents of the registry by status; ``active`` are those that were heard, or logged in, at ``since`` or
        later, as far as that is believed."""
        ...


def is_believed(moment: float, now: float) -> bool:
    return moment <= now + AHEAD


def last_moment(last_login: float | None, seen: LastSeen | None, now: float) -> float | None:
    """When an agent was there last, by its log-in and by what was heard of it; None: never, or that isn't known."""
    moments = [moment for moment in (last_login, None if seen is None else seen.seen) if moment is not None]
    return max((min(moment, now) for moment in moments if is_believed(moment, now)), default=None)


def status_of(last_login: float | None, seen: LastSeen | None, now: float, after: float) -> Status:
    """An agent's status: ``disconnected`` after ``after`` seconds of silence, and where no moment of it is believed."""
    if last_login is None and seen is None:
        return "never"
    moment = last_moment(last_login, seen, now)
    return "active" if moment is not None and now - moment <= after else "disconnected"
