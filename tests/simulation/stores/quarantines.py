"""The quarantines of nodes beside memory stores or an indexer: in memory, each node's of its own, outliving its
processes. And what an operator does with any: look at an agent's share, make room, and
send on what is kept, as ``wazuh-comms quarantine replay --all`` does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wazuh_comms_trio.backends.interfaces import Backends
from wazuh_comms_trio.cli.replay import Replay
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.quarantine.interface import Quarantine, Rejected
from wazuh_comms_trio.quarantine.memory import MemoryQuarantine

if TYPE_CHECKING:
    from tests.simulation.nodes.process import Process
    from tests.simulation.world import World

__all__ = ["MemoryQuarantines", "drop_of", "replay_all"]


async def drop_of(quarantine: Quarantine, agent_id: str) -> Sequence[bytes]:
    """``wazuh-comms quarantine drop`` of all of an agent's entries. Returns what was dropped."""
    dropped = []
    for entry in await quarantine.list(agent_id=agent_id, limit=100_000):
        found = await quarantine.get(entry.id)
        if found is not None and await quarantine.drop([entry.id]):
            dropped.append(found[1].payload)
    return dropped


async def replay_all(world: World, backends: Backends, quarantine: Quarantine) -> None:
    """Where several nodes write to one index none is replayed whose document another one may have a newer event on."""
    other = "another node" if len(world.nodes) > 1 else None
    replay = Replay(backends, quarantine, world.config, force=False, other_node=other)
    for entry in await quarantine.list(limit=100):
        try:
            done = await replay.replay(entry)
        except BackendUnavailable:
            continue  # it stays
        said = "taken" if done.error is None else "overtaken" if done.overtaken else "refused"
        world.trace.strike("replay", said, "operator")


class MemoryQuarantines:
    """By node."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._by_node: dict[int, MemoryQuarantine] = {}

    def of(self, process: Process) -> MemoryQuarantine:
        if process.node not in self._by_node:
            self._by_node[process.node] = MemoryQuarantine(max_bytes=self._max_bytes, wall_clock=process.wall_clock)
        return self._by_node[process.node]

    def all(self) -> Sequence[MemoryQuarantine]:
        return list(self._by_node.values())

    def rejected(self) -> list[tuple[str, bytes]]:
        return [(each.agent_id, each.payload) for kept in self.all() for each in kept.rejected]

    async def add(self, rejected: Sequence[Rejected]) -> None:
        """To each node's."""
        for kept in self.all():
            await kept.add(rejected)

    def used(self, agent_id: str | None) -> Sequence[int]:
        """Bytes of an agent's share, or of all, of each node."""
        return [kept._bytes(agent_id) for kept in self.all()]

    async def drop_of(self, agent_id: str) -> Sequence[bytes]:
        return [payload for kept in self.all() for payload in await drop_of(kept, agent_id)]
