"""A balancer that passes connections on, in memory: what its kernel acknowledges, and whether it passes on a close."""

from __future__ import annotations

from contextlib import suppress

import trio
from attrs import define, field

from wazuh_comms_trio.testing import Connect
from wazuh_comms_trio.testing.streams import MemoryStream, memory_connection


@define(eq=False)
class Relay:
    """``connect`` is the agent's. ``dropping``: what nodes send is acknowledged, and never handed on, as to an agent
    that is gone unnoticed. ``passes_closes``: an agent's end is passed on to the node.
    """

    nursery: trio.Nursery
    node: Connect
    dropping: bool = False
    passes_closes: bool = True
    node_sides: list[trio.abc.Stream] = field(factory=list)

    async def connect(self) -> trio.abc.Stream:
        theirs, ours = memory_connection()
        node = await self.node()
        self.node_sides.append(node)
        self.nursery.start_soon(self._up, ours, node)
        self.nursery.start_soon(self._down, node, ours)
        return theirs

    async def notice(self) -> None:
        """Keepalive towards the agents has found out: their connections end, on both sides."""
        for stream in self.node_sides:
            await trio.aclose_forcefully(stream)

    async def _up(self, agent: MemoryStream, node: trio.abc.Stream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await agent.receive_some():
                await node.send_all(data)
        if self.passes_closes:
            await trio.aclose_forcefully(node)

    async def _down(self, node: trio.abc.Stream, agent: MemoryStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await node.receive_some():
                if not self.dropping:
                    await agent.send_all(data)
            if not self.dropping:
                await agent.aclose()
