"""Polls of one agent at several workers of a node."""

from __future__ import annotations

from uuid import UUID

import trio
from trio.testing import MockClock

from wazuh_comms_trio.testing.agent.client import AgentClient
from wazuh_comms_trio.testing.node.node import open_node


async def test_a_newer_one_at_another_worker_ends_the_older(autojump_clock: MockClock) -> None:
    async with open_node(2) as node, trio.open_nursery() as nursery:
        older = await node.workers[0].enrol_agent(str(UUID(int=1, version=4)))
        newer = node.workers[1].client(older.uuid)
        for client in (older, newer):
            assert (await client.authenticate()).status == 200
        ended: list[tuple[AgentClient, int]] = []

        async def poll(client: AgentClient) -> None:
            reply = await client.poll()
            ended.append((client, reply.status))

        nursery.start_soon(poll, older)
        await trio.sleep(6)
        nursery.start_soon(poll, newer)
        await trio.sleep(1)
        assert ended == [(older, 408)]
        assert [daemon.worker.services.commands.parked for daemon in node.workers] == [0, 1]
        nursery.cancel_scope.cancel()
