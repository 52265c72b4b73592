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
#: The channels of events, and those on which an agent says who it is.
EVENTS: Final = frozenset(("stateless", "stateful"))
PROOFS: Final = frozenset(("login", "token"))
#: Addresses of one agent that are remembered.
_ADDRESSES: Final = 4


@define
class _Channel:
    """``success``: moment and address; ``refusal``: with its cause besides."""

    success: tuple[float, str] | None = None
    refusal: tuple[float, str, str] | None = None


@define
class _Entry:
    channels: dict[str, _Channel] = field(factory=dict)
    #: By when they were heard last, the newest last.
    addresses: dict[str, float] = field(factory=dict)
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
        """A request of an agent that is who it says, and was done."""
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
        entry.addresses.pop(address, None)
        entry.addresses[address] = now
        if len(entry.addresses) > _ADDRESSES:
            del entry.addresses[next(iter(entry.addresses))]

    def refused(self, agent_id: str, channel: str, address: str | None, cause: str, *, known: bool = True) -> None:
        """``known``: there is such an agent. Of one whose log-in or token is refused nothing says that it is there."""
        now = self._now()
        if known and channel in PROOFS:
            self._seen.setdefault(agent_id)
        elif known:
            self._seen[agent_id] = now
        entry = self._entry(self._agents if known else self._strangers, agent_id)
        self._channel(entry, channel).refusal = (now, address or "local", cause)

    def about(self, agent_id: str) -> dict[str, Any]:
        """As JSON: ``channels``, ``addresses`` (moments by address), ``returns``. Empty where nothing is known."""
        entry = self._agents.get(agent_id) or self._strangers.get(agent_id)
        if entry is None:
            return {}
        channels = {
            name: {
                "success": None if one.success is None else {"at": one.success[0], "address": one.success[1]},
                "refusal": None
                if one.refusal is None
                else {"at": one.refusal[0], "address": one.refusal[1], "cause": one.refusal[2]},
            }
            for name, one in entry.channels.items()
        }
        return {"channels": channels, "addresses": dict(entry.addresses), "returns": entry.returns}

    def take(self) -> tuple[float, dict[str, tuple[float | None, float | None]]]:
        """When this was called last, and the agents of which there is something since then: when they were heard last,
        None where they were only refused, and when they sent events last, None where they didn't. One caller."""
        seen, self._seen = self._seen, {}
        sent, self._sent = self._sent, {}
        since, self._taken_at = self._taken_at, self._now()
        return since, {agent_id: (moment, sent.get(agent_id)) for agent_id, moment in seen.items()}

    def news(self, agent_id: str, since: float) -> dict[str, Any]:
        """Of ``about``, as JSON, what is of ``since`` or later, in a form of which a part may replace an earlier one:
        channels without what there isn't, ``addresses`` as a list of address and moment."""
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
        return {"channels": channels, "addresses": [list(each) for each in entry.addresses.items()]}

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


def joined_news(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Of two ``news`` the newest of each kind."""
    both = merged([about_of(one), about_of(other)])
    channels = {
        name: {kind: found for kind, found in kinds.items() if found is not None}
        for name, kinds in both["channels"].items()
    }
    newest = sorted(both["addresses"].items(), key=lambda each: each[1])[-_ADDRESSES:]
    return {"channels": channels, "addresses": [list(each) for each in newest]}


def about_of(news: Mapping[str, Any]) -> dict[str, Any]:
    """``news`` as ``about`` would say it."""
    return {"channels": news.get("channels", {}), "addresses": dict(news.get("addresses", ()))}


def merged(documents: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What several workers say of one agent: the newest of each kind; ``parked`` polls added, ``limits`` joined."""
    channels: dict[str, dict[str, Any]] = {}
    addresses: dict[str, float] = {}
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
        returns += document.get("returns", 0)
        parked += document.get("parked", 0)
        limits += document.get("limits", [])
    return {"channels": channels, "addresses": addresses, "returns": returns, "parked": parked, "limits": limits}
