"""A node of several workers inside a test: their trees and the hub in one ``trio.run``, links in memory, on any clock.

async with open_node(workers=2) as node:
    agent = await node.workers[0].enrol_agent()
    elsewhere = node.workers[1].client(agent.uuid)     # the same agent, parked on the other worker
    await elsewhere.authenticate()
    ...
    delivered = await node.post([command])

``open_stores`` gives each worker stores of its own, as processes have them:

async with open_node(3, open_stores=lambda leadership: my_backends(leadership)) as node: ...
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import trio
from attrs import frozen
from trio.testing import memory_stream_pair

from wazuh_comms_trio.backends.interfaces import Backends, Command
from wazuh_comms_trio.backends.leadership import Leadership
from wazuh_comms_trio.backends.memory.stores import memory_backends
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.daemon.command_socket import HubPoster
from wazuh_comms_trio.daemon.logging.formats import mask
from wazuh_comms_trio.daemon.supervisor import messages
from wazuh_comms_trio.daemon.supervisor.hub import Hub, Member
from wazuh_comms_trio.daemon.supervisor.link import Link
from wazuh_comms_trio.daemon.worker.heartbeat import Heartbeat, LastError
from wazuh_comms_trio.daemon.worker.hub_client import HubLeadership, HubOtherWorkers, run_hub_client
from wazuh_comms_trio.testing.node.daemon import EPOCH, Daemon, daemon_config, open_daemon

__all__ = ["Node", "open_node"]


@frozen
class Node:
    """``links``: the hub's ends, for tests that break one. ``kill`` is what a worker's sudden end looks like to
    the others: its link is gone, and nothing that it does from then on reaches them. ``hang`` is what SIGSTOP looks
    like to them, until ``wake``."""

    hub: Hub
    workers: Sequence[Daemon[Any]]
    links: Sequence[Link]
    backends: Any
    valves: Sequence[_Valve]

    async def post(self, commands: Sequence[Command]) -> Sequence[Command]:
        """As the command socket's clients do."""
        return await HubPoster(self.hub.post).post(commands)

    def hang(self, number: int) -> None:
        self.valves[number].shut()

    def wake(self, number: int) -> None:
        self.valves[number].open()

    async def kill(self, number: int) -> None:
        await self.links[number].aclose()


class _Valve(trio.abc.Stream):
    """A worker's end of its link: while it is shut, nothing comes or goes, and nothing is lost."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._passable = trio.Event()
        self._passable.set()

    def shut(self) -> None:
        self._passable = trio.Event()

    def open(self) -> None:
        self._passable.set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._passable.wait()
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        await self._passable.wait()
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()


OpenStores = Callable[[Leadership], AbstractAsyncContextManager[Backends]]


@asynccontextmanager
async def open_node(
    workers: int = 2,
    config: Config | None = None,
    *,
    backends: Any = None,
    open_stores: OpenStores | None = None,
    clock: Callable[[], float] | None = None,
) -> AsyncIterator[Node]:
    """The workers share ``backends`` (memory, by default) or have ``open_stores`` each. Serves while the block runs;
    then everything is stopped."""
    config = daemon_config() if config is None else config
    began = trio.current_time()
    wall_clock = (lambda: EPOCH + trio.current_time() - began) if clock is None else clock
    backends = memory_backends(wall_clock=wall_clock) if backends is None else backends
    hub = Hub()
    links: list[Link] = []
    daemons: list[Daemon[Any]] = []
    valves: list[_Valve] = []
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        nursery.start_soon(hub.run)
        for number in range(1, workers + 1):
            ours_stream, theirs_stream = memory_stream_pair()
            valve = _Valve(theirs_stream)
            ours, theirs = Link(ours_stream), Link(valve)
            other_workers, leadership = HubOtherWorkers(theirs), HubLeadership(theirs)
            own = backends if open_stores is None else await stack.enter_async_context(open_stores(leadership))
            daemon = await stack.enter_async_context(
                open_daemon(config, backends=own, other_workers=other_workers, seed=number)
            )
            member = Member(str(number), ours)
            heartbeat = Heartbeat(daemon.worker, LastError(mask))
            for link in (ours, theirs):
                nursery.start_soon(link.run)
            nursery.start_soon(hub.serve, member)
            dispatcher = daemon.worker.services.commands
            client = partial(run_hub_client, theirs, other_workers, leadership, dispatcher, heartbeat, daemon.stop)
            nursery.start_soon(client, daemon.worker.services, daemon.worker.metrics)
            theirs.send_nowait(messages.Ready(public_key="", duty=True))
            await member.ready.wait()
            daemons.append(daemon)
            links.append(ours)
            valves.append(valve)
        yield Node(hub, daemons, links, backends, valves)
        for daemon in daemons:
            daemon.stop.request()
        for daemon in daemons:
            await daemon.ended.wait()
        nursery.cancel_scope.cancel()
