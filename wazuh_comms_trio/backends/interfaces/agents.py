"""The registry of agents."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from hashlib import sha256
from typing import Any, Literal, Protocol

from attrs import field, frozen

from wazuh_comms_trio.backends.agent_orders import AgentOrder

__all__ = ["Agent", "AgentRegistry"]


@frozen
class Agent:
    """One enrolled agent. ``key_hash`` is base64(16 bytes of salt + PBKDF2-HMAC-SHA256(key, salt, 100 000 rounds))."""

    id: str
    name: str
    key_hash: str = field(repr=False)
    type: str | None = None
    version: str | None = None
    groups: tuple[str, ...] = ()
    host: Mapping[str, Any] = field(factory=dict)
    status: Literal["active", "disconnected"] = "disconnected"
    last_login: float | None = None

    @property
    def fingerprint(self) -> str:
        """Of the stored key hash, 16 hex digits: another one after each rekeying or enrolment (the salt is random)."""
        return sha256(self.key_hash.encode()).hexdigest()[:16]


class AgentRegistry(Protocol):
    """The agents that may talk to this server."""

    async def get(self, agent_id: str) -> Agent | None:
        """Reads an agent fresh from the store."""
        ...

    async def current(self, agent_id: str) -> Agent | None:
        """For log-ins: as ``get``, but its status may be older, and log-ins of the last moments may be missing."""
        ...

    async def lookup(self, agent_id: str) -> Agent | None:
        """For every request of an agent: as ``get``, but may come from a cache that notices removal and rekeying in
        time (embedded: at once, also when another process did it; ``backend: wazuh``: within ``token.revocation``).
        Cheap; mostly doesn't block.
        """
        ...

    def known(self, agent_id: str) -> Agent | None:
        """What ``lookup`` would return at once, without having to wait, nor to read what isn't remembered; None: ask
        ``lookup``."""
        ...

    async def revoked(self, agents: Mapping[str, str]) -> Collection[str]:
        """The ids, of these (id -> fingerprint when their token was checked), that are gone or rekeyed now. For parked
        polls, some hundred in a call.
        """
        ...

    def may_be_served_unread(self, agent_id: str, fingerprint: str) -> bool:
        """Whether that agent with a token of that fingerprint is served while the registry can't be read: not where it
        is known here to be gone or rekeyed, nor by a registry whose removals count at once. No I/O.
        """
        ...

    async def changed(self) -> Collection[str] | None:
        """The agents that were removed, rekeyed or changed since the last call, by any process, and perhaps others.
        None: any may have been. For parked polls: called about twice a second; one caller.
        """
        ...

    async def add(self, agent: Agent) -> None:
        """Adds an agent. Raises ``AgentExists``."""
        ...

    async def remove(self, agent_id: str) -> bool:
        """False when there was no such agent. Its pending commands become ``failed`` (``agent removed``)."""
        ...

    async def rekey(self, agent_id: str, key_hash: str) -> bool:
        """Gives an agent another key hash; False when there is no such agent."""
        ...

    async def set_groups(self, agent_id: str, groups: Sequence[str]) -> bool: ...

    async def record_login(self, agent_id: str, when: float) -> None:
        """Sets ``last_login`` and status ``active``. Needn't be durable when it returns; a failure is logged, not
        raised: it must not fail the log-in.
        """
        ...

    async def list(self) -> Sequence[Agent]: ...

    def pages(self, order: AgentOrder = "name", *, reverse: bool = False) -> AsyncGenerator[Sequence[Agent], None]:
        """All agents as ``in_order`` has them, some hundred at a time; of what changes meanwhile either state."""

    async def members(self, group: str) -> Sequence[str]:
        """The ids of a group's agents; the group ``all`` has every agent."""

    async def named(self, name: str) -> Sequence[str]:
        """The ids, sorted, of the agents that have exactly this name."""
        ...

    async def unique_names(self, agent_ids: Collection[str]) -> Mapping[str, str]:
        """The names, by id as it was given, of those of these agents that are there, can be read and share their name
        with no other agent: for people, who may say the name in the id's place.
        """
