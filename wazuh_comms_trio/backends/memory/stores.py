"""Complete backends in memory: no threads, no files, safe under the mock clock. The default in tests, and a contract to
read.

Each store has ``faults``, switches for tests. Nothing survives the process.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from typing import Any

from attrs import evolve, frozen

from wazuh_comms_trio.backends.agent_orders import AgentOrder, in_order
from wazuh_comms_trio.backends.document_rules import Document, Key, plan, version_of
from wazuh_comms_trio.backends.interfaces import Agent, Backends, DocumentOperation, ItemResult
from wazuh_comms_trio.backends.memory.commands import MemoryCommands
from wazuh_comms_trio.backends.memory.engine import MemoryEngine, MemoryFiles
from wazuh_comms_trio.backends.memory.faults import Faults
from wazuh_comms_trio.backends.memory.presence import MemoryPresence
from wazuh_comms_trio.errors import AgentExists

__all__ = [
    "MemoryAgents",
    "MemoryBackends",
    "MemoryCommands",
    "MemoryEngine",
    "MemoryEvents",
    "MemoryFiles",
    "MemoryPresence",
    "memory_backends",
]


class MemoryAgents:
    """``AgentRegistry`` in a dictionary, ``stored``: id (lower case) -> agent."""

    def __init__(self) -> None:
        self.stored: dict[str, Agent] = {}
        self.faults = Faults()
        self._commands: MemoryCommands | None = None
        self._changed: set[str] = set()
        self._group_turns: Counter[str] = Counter()  # the last that was given
        self._groups_of_turn: Counter[str] = Counter()

    def serve(self, commands: MemoryCommands) -> None:
        """Connects the commands that end when an agent is removed."""
        self._commands = commands

    async def get(self, agent_id: str) -> Agent | None:
        await self.faults.strike("get")
        return self.stored.get(agent_id.lower())

    async def current(self, agent_id: str) -> Agent | None:
        return await self.get(agent_id)

    async def lookup(self, agent_id: str) -> Agent | None:
        await self.faults.strike("lookup")
        return self.stored.get(agent_id.lower())

    def known(self, agent_id: str) -> Agent | None:
        """Nothing: so that every request meets the faults."""
        return None

    def may_be_served_unread(self, agent_id: str, fingerprint: str) -> bool:
        """As the embedded one."""
        return False

    async def revoked(self, agents: Mapping[str, str]) -> Collection[str]:
        await self.faults.strike("revoked")
        return [agent_id for agent_id, fingerprint in agents.items() if self._fingerprint(agent_id) != fingerprint]

    async def changed(self) -> Collection[str]:
        await self.faults.strike("changed")
        changed, self._changed = self._changed, set()
        return changed

    def _fingerprint(self, agent_id: str) -> str | None:
        agent = self.stored.get(agent_id.lower())
        return None if agent is None else agent.fingerprint

    async def add(self, agent: Agent) -> None:
        await self.faults.strike("add")
        agent = evolve(agent, id=agent.id.lower(), groups=tuple(agent.groups))
        if agent.id in self.stored:
            raise AgentExists
        self.stored[agent.id] = agent

    async def remove(self, agent_id: str) -> bool:
        await self.faults.strike("remove")
        agent = self.stored.pop(agent_id.lower(), None)
        if agent is None:
            return False
        self._changed.add(agent.id)
        if self._commands is not None:
            self._commands.agent_removed(agent.id)
        return True

    async def rekey(self, agent_id: str, key_hash: str) -> bool:
        await self.faults.strike("rekey")
        return self._change(agent_id, key_hash=key_hash)

    async def set_groups(self, agent_id: str, groups: Sequence[str]) -> bool:
        await self.faults.strike("set_groups")
        return self.apply_groups(agent_id, groups, None)

    def next_group_turn(self, agent_id: str) -> int:
        self._group_turns[agent_id.lower()] += 1
        return self._group_turns[agent_id.lower()]

    def apply_groups(self, agent_id: str, groups: Sequence[str], turn: int | None) -> bool:
        """Unless the groups of a later turn are there. None: after all turns that were given."""
        agent_id = agent_id.lower()
        if turn is not None and turn <= self._groups_of_turn[agent_id]:
            return False
        self._groups_of_turn[agent_id] = self._group_turns[agent_id] if turn is None else turn
        return self._change(agent_id, groups=tuple(groups))

    async def record_login(self, agent_id: str, when: float) -> None:
        try:
            await self.faults.strike("record_login")
        except Exception:  # by contract it doesn't fail the log-in
            return
        agent = self.stored.get(agent_id.lower())
        if agent is not None:
            self.stored[agent.id] = evolve(agent, last_login=when, status="active")

    def _change(self, agent_id: str, **changes: Any) -> bool:
        agent = self.stored.get(agent_id.lower())
        if agent is None:
            return False
        self.stored[agent.id] = evolve(agent, **changes)
        self._changed.add(agent.id)
        return True

    async def list(self) -> Sequence[Agent]:
        await self.faults.strike("list")
        return sorted(self.stored.values(), key=lambda agent: agent.id)

    async def pages(
        self, order: AgentOrder = "name", *, reverse: bool = False
    ) -> AsyncGenerator[Sequence[Agent], None]:
        every = in_order(await self.list(), order, reverse=reverse)
        for start in range(0, len(every), 2):
            yield every[start : start + 2]

    async def members(self, group: str) -> Sequence[str]:
        await self.faults.strike("members")
        return self.members_now(group)

    async def named(self, name: str) -> Sequence[str]:
        await self.faults.strike("named")
        return sorted(agent.id for agent in self.stored.values() if agent.name == name)

    async def unique_names(self, agent_ids: Collection[str]) -> Mapping[str, str]:
        await self.faults.strike("unique_names")
        count = Counter(agent.name for agent in self.stored.values())
        agents = {agent_id: self.stored.get(agent_id.lower()) for agent_id in agent_ids}
        return {key: agent.name for key, agent in agents.items() if agent is not None and count[agent.name] == 1}

    def members_now(self, group: str) -> Sequence[str]:
        return sorted(agent.id for agent in self.stored.values() if group == "all" or group in agent.groups)


class MemoryEvents:
    """``EventIndex`` in a dictionary, ``documents``: (index, id) -> document.

    ``judge``: asked for each operation first; a result of its instead of None is the operation's, which then isn't
    applied.
    ``batches``: how many operations each call brought, without those that are refused beforehand.
    """

    def __init__(self) -> None:
        self.documents: dict[Key, Document] = {}
        self.faults = Faults()
        self.judge: Callable[[DocumentOperation], ItemResult | None] = lambda operation: None
        self.batches: list[int] = []

    async def probe(self) -> None:
        await self.faults.probe()

    async def bulk(
        self,
        operations: Sequence[DocumentOperation],
        *,
        boundaries: Sequence[int] = (),
        is_open: Callable[[int], bool] | None = None,
    ) -> Sequence[ItemResult]:
        await self.faults.strike("bulk")
        self.batches.append(sum(not operation.refused for operation in operations))
        verdicts = [self.judge(operation) for operation in operations]
        taken = [operation for operation, verdict in zip(operations, verdicts, strict=True) if verdict is None]
        results, changes = plan(taken, self.documents)
        for key, document in changes.items():
            if document is None:
                self.documents.pop(key, None)
            else:
                self.documents[key] = document
        applied = iter(results)
        return [next(applied) if verdict is None else verdict for verdict in verdicts]

    async def get(self, index: str, document_id: str) -> bytes | None:
        await self.faults.strike("get")
        document = self.documents.get((index, document_id))
        return None if document is None else document.body

    async def versions(self, documents: Sequence[tuple[str, str]]) -> Sequence[str]:
        await self.faults.strike("versions")
        return [version_of(self.documents.get(key)) for key in documents]


@frozen
class MemoryBackends(Backends):
    """``Backends`` whose parts a test can look into."""

    agents: MemoryAgents
    events: MemoryEvents
    commands: MemoryCommands
    engine: MemoryEngine
    files: MemoryFiles
    presence: MemoryPresence


def memory_backends(
    *, wall_clock: Callable[[], float] = time.time, files: Mapping[str, bytes | None] | None = None
) -> MemoryBackends:
    """A complete set of backends in memory. ``files``: name -> content, None for a folder."""
    agents = MemoryAgents()
    commands = MemoryCommands(agents, wall_clock)
    agents.serve(commands)
    presence = MemoryPresence(agents.stored, wall_clock)
    return MemoryBackends(agents, MemoryEvents(), commands, MemoryEngine(), MemoryFiles(files or {}), presence)
