"""Which agents have something new to take."""

from __future__ import annotations

from collections.abc import Collection

import trio

from wazuh_comms_trio.backends.opensearch.commands.pending import PendingCommands


class News:
    """Agents with commands that are free and that ``wait`` hasn't told of yet."""

    def __init__(self, pending: PendingCommands) -> None:
        self._pending = pending
        self._agents: set[str] = set()
        self._arrived = trio.Event()

    def announce(self) -> int:
        """Adds the agents of commands that have become free. Returns how many agents that are."""
        before = len(self._agents)
        if found := self._pending.news(trio.current_time()):
            self._agents |= found
            self._arrived.set()
        return len(self._agents) - before

    async def wait(self) -> Collection[str]:
        """Waits for agents with something new. A wait that is cancelled loses nothing."""
        while not self._agents:
            self._arrived = trio.Event()
            await self._arrived.wait()
        await trio.lowlevel.checkpoint_if_cancelled()
        agents, self._agents = self._agents, set()
        return agents
