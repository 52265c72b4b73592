"""What was heard of each agent last, and what it was refused last: for an operator who asks why it is silent.

One worker's, in memory, bounded: of the agents that were heard last ``_AGENTS``, a kilobyte each at most; of uuids that
no agent has, ``_STRANGERS``, so that whoever tries many displaces no agent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from attrs import define, field

from wazuh_comms_trio.foundation.caches.lru_cache import LruCache
from wazuh_comms_trio.foundation.environment import WallClock

__all__ = ["AgentJournal", "about_of", "joined_news", "merged"]

_AGENTS: Final = 20_000
_STRANGERS: Final = 1000
#: Seconds of silence of an address after which it begins anew: a token's life.
SPAN_GAP: Final = 900.0
#: The channels of events, and those on which an agent says who it is.
EVENTS: Final = frozenset(("stateless", "stateful"))
PROOFS: Final = frozenset(("login", "token"))
#: Addresses of one agent that are remembered.
_ADDRESSES: Final = 4


@define
class _Channel:
    """One channel of an agent; ``success``: moment and address; ``refusal``: with its cause besides."""

    success: tuple[float, str] | None = None
    refusal: tuple[float, str, str] | None = None


@define
class _Entry:
    channels: dict[str, _Channel] = field(factory=dict)
    #: Since when each has been heard again and again, and when last; the newest last.
    addresses: dict[str, tuple[float, float]] = field(factory=dict)
    address: str = ""
    #: How often it was heard from an address that it had left before.
    returns: int = 0


class AgentJournal:
    """Channels are ``login``, ``token``, ``poll``, ``stateless``, ``stateful`` and ``files``; moments epoch seconds."""

    def __init__(self, wall_clock: WallClock) -> None:
        self._now = wall_clock
        self._agents: LruCache[str, _Entry] = LruCache(_AGENTS)
        self._strangers: LruCache[str, _Entry] = LruCache(_STRANGERS)
        #: Since ``take`` was called last: when agents were heard (None: they were only refused), and sent events.
        self._taken_at = wall_clock()
        self._seen: dict[str, float | None] = {}
        self._sent: dict[str, float] = {}

    def heard(self, agent_id: str, channel: str, address: str | None) -> None:
        """Notes a request of an agent that is who it says, and that was done."""
        now, address = self._now(), address or "local"
        self._seen[agent_id] = now
        if channel in EVENTS:
            self._sent[agent_id] = now
        entry = self._entry(self._agents, agent_id)
        self._channel(entry, channel).success = (now, address)
        if address != entry.address:
            if entry.address and address in entry.addresses:
                entry.returns += 1
            entry.address = address
        first, last = entry.addresses.pop(address, (now, now))
        entry.addresses[address] = (first if now - last <= SPAN_GAP else now, now)
        if len(entry.addresses) > _ADDRESSES:
            del entry.addresses[next(iter(entry.addresses))]

    def refused(self, agent_id: str, channel: str, address: str | None, cause: str, *, known: bool = True) -> None:
        """Notes a refused request; ``known``: there is such an agent. Of one whose log-in or token is refused nothing
        says that it is there."""
        now = self._now()
        if known and channel in PROOFS:
            self._seen.setdefault(agent_id)
        elif known:
            self._seen[agent_id] = now
        entry = self._entry(self._agents if known else self._strangers, agent_id)
        self._channel(entry, channel).refusal = (now, address or "local", cause)

    def about(self, agent_id: str) -> dict[str, Any]:
        """What is known of an agent, as JSON: ``channels``, by address ``addresses`` (when it was heard last) and
        ``since`` (from when on), ``returns``. Empty where nothing is known."""
        entry, stranger = self._agents.get(agent_id), self._strangers.get(agent_id)
        if entry is not None and stranger is not None:  # somebody said its uuid, and couldn't prove it
            return {**_document(entry), "channels": merged([_document(entry), _document(stranger)])["channels"]}
        found = entry or stranger
        return {} if found is None else _document(found)

    def take(self) -> tuple[float, dict[str, tuple[float | None, float | None]]]:
        """When this was called last, and the agents of which there is something since then: when they were heard last,
        None where they were only refused, and when they sent events last, None where they didn't. One caller."""
        seen, self._seen = self._seen, {}
        sent, self._sent = self._sent, {}
        since, self._taken_at = self._taken_at, self._now()
        return since, {agent_id: (moment, sent.get(agent_id)) for agent_id, moment in seen.items()}

    def news(self, agent_id: str, since: float) -> dict[str, Any]:
        """Of ``about``, as JSON, what is of ``since`` or later, in a form of which a part may replace an earlier one:
        channels without what there isn't, ``addresses`` as a list of address, first and last moment."""
        entry = self._agents.get(agent_id)
        if entry is None:
            return {}
        channels = {}
        for name, one in entry.channels.items():
            kinds: dict[str, Any] = {}
            if one.success is not None and one.success[0] >= since:
                kinds["success"] = {"at": one.success[0], "address": one.success[1]}
            if one.refusal is not None and one.refusal[0] >= since:
                kinds["refusal"] = {"at": one.refusal[0], "address": one.refusal[1], "cause": one.refusal[2]}
            if kinds:
                channels[name] = kinds
        return {"channels": channels, "addresses": [[address, *span] for address, span in entry.addresses.items()]}

    @staticmethod
    def _entry(entries: LruCache[str, _Entry], agent_id: str) -> _Entry:
        entry = entries.get(agent_id)
        if entry is None:
            entry = _Entry()
            entries.put(agent_id, entry)
        return entry

    @staticmethod
    def _channel(entry: _Entry, channel: str) -> _Channel:
        found = entry.channels.get(channel)
        if found is None:
            found = entry.channels[channel] = _Channel()
        return found


def _document(entry: _Entry) -> dict[str, Any]:
    channels = {
        name: {
            "success": None if one.success is None else {"at": one.success[0], "address": one.success[1]},
            "refusal": None
            if one.refusal is None
            else {"at": one.refusal[0], "address": one.refusal[1], "cause": one.refusal[2]},
        }
        for name, one in entry.channels.items()
    }
    spans = entry.addresses.items()
    return {
        "channels": channels,
        "addresses": {address: last for address, (_, last) in spans},
        "since": {address: first for address, (first, _) in spans},
        "returns": entry.returns,
    }


def joined_news(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The newest of each kind of two ``news``."""
    both = merged([about_of(one), about_of(other)])
    channels = {
        name: {kind: found for kind, found in kinds.items() if found is not None}
        for name, kinds in both["channels"].items()
    }
    spans = [[address, both["since"].get(address, last), last] for address, last in both["addresses"].items()]
    return {"channels": channels, "addresses": sorted(spans, key=lambda span: span[2])[-_ADDRESSES:]}


def about_of(news: Mapping[str, Any]) -> dict[str, Any]:
    """``news`` as ``about`` would say it."""
    spans = news.get("addresses", ())
    return {
        "channels": news.get("channels", {}),
        "addresses": {address: last for address, _, last in spans},
        "since": {address: first for address, first, _ in spans},
    }


def merged(documents: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What several workers, or nodes, say of one agent: the newest of each kind; ``parked`` polls added, ``limits``
    joined."""
    channels: dict[str, dict[str, Any]] = {}
    addresses: dict[str, float] = {}
    since: dict[str, float] = {}
    returns, parked, limits = 0, 0, []
    for document in documents:
        for name, kinds in document.get("channels", {}).items():
            known = channels.setdefault(name, {"success": None, "refusal": None})
            for kind in known:
                found = kinds.get(kind)
                if found is not None and (known[kind] is None or found["at"] > known[kind]["at"]):
                    known[kind] = found
        for address, when in document.get("addresses", {}).items():
            addresses[address] = max(when, addresses.get(address, 0.0))
        for address, when in document.get("since", {}).items():
            since[address] = min(when, since.get(address, when))
        returns += document.get("returns", 0)
        parked += document.get("parked", 0)
        limits += document.get("limits", [])
    return {
        "channels": channels,
        "addresses": addresses,
        "since": since,
        "returns": returns,
        "parked": parked,
        "limits": limits,
    }
