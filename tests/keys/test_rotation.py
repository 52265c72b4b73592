"""Three nodes on one indexer change the key that signs, by the operator's tool, while agents are at work on all."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from attrs import define, field

from tests.conftest import Certificates
from tests.e2e.processes import KEY, PROGRAMS, Files, Running, start_daemon
from tests.engine.fake import fake_engine
from tests.indexer.daemons import wazuh_files
from tests.indexer.fake import FakeOpenSearch
from tests.keys.load import Nodes, at_work, keys_in_force, logged_in
from wazuh_comms_trio.testing import AgentClient, connect_tcp

pytestmark = [pytest.mark.processes, pytest.mark.real_clock]


@define(eq=False)
class Node:
    """A daemon that may be restarted: it says where it serves in ``nodes``."""

    files: Files
    nodes: Nodes
    daemon: Running = field(init=False)
    _end: trio.Event = field(factory=trio.Event)
    _again: trio.Event | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        while not self._end.is_set() or self._again is not None:
            async with fake_engine(self.files.folder), start_daemon(self.files, limit=400) as self.daemon:
                self.nodes.ports.append(self.daemon.port)
                self._end = trio.Event()
                if self._again is None:
                    task_status.started()
                else:
                    self._again.set()
                    self._again = None
                await self._end.wait()
                self.nodes.ports.remove(self.daemon.port)

    async def restart(self) -> None:
        self._again = again = trio.Event()
        self._end.set()
        await again.wait()

    def stop(self) -> None:
        self._end.set()


@asynccontextmanager
async def three_nodes(folder: Path, certificates: Certificates, nodes: Nodes) -> AsyncIterator[list[Node]]:
    """Each has a copy of one key for tokens. The first has two workers, and so can be reloaded."""
    key = folder / "token.pem"
    trustme.CA().issue_cert("x").private_key_pem.write_to_path(key)
    key.chmod(0o600)
    async with trio.open_nursery() as nursery:
        indexer = FakeOpenSearch(nursery)
        (listener,) = await nursery.start(partial(trio.serve_tcp, indexer._serve, 0, host="127.0.0.1"))
        ports = [listener.socket.getsockname()[1]]
        members = []
        async with trio.open_nursery() as running:
            for number, workers in enumerate((2, 1, 1)):
                own = folder / f"node{number}"
                own.mkdir()
                token = {"private_key": str(shutil.copy(key, own / "token.pem"))}
                members.append(Node(wazuh_files(own, certificates, ports, workers=workers, token=token), nodes))
            async with trio.open_nursery() as starting:
                for member in members:
                    starting.start_soon(running.start, member.run)
            yield members
            for member in members:
                member.stop()
        nursery.cancel_scope.cancel()


async def keys(files: Files, *words: str, expect: int = 0) -> str:
    """By the tool: what it said."""
    command = [str(PROGRAMS / "wazuh-comms"), "--config", str(files.config), "keys", *words]
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == expect, said
    return said


async def in_force(node: Node) -> dict[str, Any]:
    return await keys_in_force(node.files)


async def step(node: Node, *words: str) -> str:
    """One of ``rotate``, and the restart that it asks for where there is one worker."""
    said = await keys(node.files, "rotate", *words)
    if "restart it" in said:
        await node.restart()
    return said


async def test_two_steps_on_three_nodes_under_load(tmp_path: Path, certificates: Certificates) -> None:
    nodes = Nodes()
    async with three_nodes(tmp_path, certificates, nodes) as members:
        first, second, third = members
        before = (await in_force(first))["signing"]
        agents = await logged_in(first.daemon, nodes, 3)
        async with at_work(agents) as work:
            await work.more(20)
            assert "This node trusts it" in await step(first, "publish")
            # Nobody signs with it as long as a node would refuse it.
            assert "don't trust" in await keys(first.files, "rotate", "sign", expect=1)
            for node in (second, third):
                assert "restart it" in await step(node, "publish", "--key", str(first.files.folder / "token.pem.next"))
            await work.more(20)
            for node in members:
                await step(node, "sign")
                # What the nodes sign with differs for a while, and nobody is refused.
                newest = AgentClient(connect_tcp("127.0.0.1", node.daemon.port), uuid=agents[0].uuid, key=KEY, name="a")
                assert (await newest.authenticate()).status == 200
                newest._connect = nodes.connect
                async with at_work([newest]) as of_newest:
                    await of_newest.more(12)
                assert of_newest.refused == []
                await work.more(20)
        assert work.refused == []
        after = (await in_force(first))["signing"]
        assert after != before
        for node in members:
            assert await in_force(node) == {"signing": after, "accepted": [after, before], "revoked": []}
        assert "earlier" in await keys(first.files, "list")

        # A key that leaked is ended on all nodes at once.
        assert "on all nodes" in await keys(second.files, "revoke", before)
        old = agents[0]
        for node in members:
            assert await in_force(node) == {"signing": after, "accepted": [after], "revoked": [before]}
            old._connect = connect_tcp("127.0.0.1", node.daemon.port)
            assert (await old.get_file("none.conf")).status == 403
        assert (await old.authenticate()).status == 200
        assert (await old.get_file("none.conf")).status == 404
        assert "this node signs with that key" in await keys(first.files, "revoke", after, expect=1)
