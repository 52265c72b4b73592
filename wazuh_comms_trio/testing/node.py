"""A node of several workers inside a test: their trees and the hub in one ``trio.run``, links in memory, on any clock.

async with open_node(workers=2) as node:
    agent = await node.workers[0].enrol_agent()
    elsewhere = node.workers[1].client(agent.uuid)     # the same agent, parked on the other worker
    await elsewhere.authenticate()
    ...
    delivered = await node.hub.post([command])
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio
from attrs import frozen
from trio.testing import memory_stream_pair

from wazuh_comms_trio.backends.memory import memory_backends
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.daemon.hub import Hub, Member
from wazuh_comms_trio.daemon.link import Link
from wazuh_comms_trio.daemon.logs import mask
from wazuh_comms_trio.daemon.membership import HubLookout, HubPeers, run_membership
from wazuh_comms_trio.daemon.vitals import LastError, Vitals
from wazuh_comms_trio.testing.daemon import EPOCH, Daemon, daemon_config, open_daemon

__all__ = ["Node", "open_node"]


@frozen
class Node:
    """``links``: the hub's ends, for those who want to break one. ``kill`` is what a worker's sudden end looks like to
    the others: its link is gone, and nothing that it does from then on reaches them."""

    hub: Hub
    workers: Sequence[Daemon[Any]]
    links: Sequence[Link]
    backends: Any

    async def kill(self, number: int) -> None:
        await self.links[number].aclose()


@asynccontextmanager
async def open_node(
    workers: int = 2, config: Config | None = None, *, backends: Any = None, clock: Callable[[], float] | None = None
) -> AsyncIterator[Node]:
    """The workers share ``backends`` (memory, by default). Serves while the block runs; then everything is stopped."""
    config = daemon_config() if config is None else config
    began = trio.current_time()
    wall_clock = (lambda: EPOCH + trio.current_time() - began) if clock is None else clock
    backends = memory_backends(wall_clock=wall_clock) if backends is None else backends
    hub = Hub()
    links: list[Link] = []
    daemons: list[Daemon[Any]] = []
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        for number in range(1, workers + 1):
            ours, theirs = (Link(stream) for stream in memory_stream_pair())
            peers = HubPeers(theirs)
            daemon = await stack.enter_async_context(open_daemon(config, backends=backends, peers=peers, seed=number))
            member = Member(str(number), ours)
            vitals = Vitals(daemon.worker, LastError(mask), wall_clock=wall_clock)
            for link in (ours, theirs):
                nursery.start_soon(link.run)
            nursery.start_soon(hub.serve, member)
            dispatcher = daemon.worker.services.commands
            lookout = HubLookout(theirs)
            nursery.start_soon(run_membership, theirs, peers, lookout, dispatcher, vitals, daemon.stop)
            theirs.send_nowait("ready", public_key="")
            await member.ready.wait()
            daemons.append(daemon)
            links.append(ours)
        yield Node(hub, daemons, links, backends)
        for daemon in daemons:
            daemon.stop.request()
        for daemon in daemons:
            await daemon.ended.wait()
        nursery.cancel_scope.cancel()
