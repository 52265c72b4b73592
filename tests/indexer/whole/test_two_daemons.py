"""Two real daemons on one real OpenSearch behave as one service."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trio
import trustme
from attrs import define, field

from tests.conftest import Certificates
from tests.e2e.processes import KEY, Running, start_daemon
from tests.engine.fake import fake_engine
from tests.indexer.cluster import shared_node
from tests.indexer.daemons import wazuh_files
from tests.indexer.harness import call, wipe
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key
from wazuh_comms_trio.testing import AgentClient, ExchangeFailed, connect_tcp

pytestmark = [pytest.mark.indexer, pytest.mark.processes, pytest.mark.real_clock]

AGENTS, COMMANDS = 200, 2000


@pytest.fixture
def port() -> int:
    """With the dotted names, made by their first documents: dynamic mappings."""
    node = shared_node().port
    wipe(node)
    return node


@define
class Fleet:
    """``got``: what each agent was given, (document id, by which daemon), in the order it came."""

    port: int
    daemons: list[Running]
    agents: dict[str, AgentClient]
    place: dict[str, int]
    got: list[tuple[str, int]] = field(factory=list)
    changed: trio.Event = field(factory=trio.Event)

    def counts(self) -> Counter[str]:
        return Counter(document_id for document_id, _ in self.got)

    async def poll(self, uuid: str) -> None:
        """For ever, on the daemon of the moment; one that isn't there is left for the other."""
        while True:
            place = self.place[uuid]
            agent = self.agents[uuid]
            agent._connect = connect_tcp("127.0.0.1", self.daemons[place].port)
            try:
                reply = await agent.poll()
            except ExchangeFailed:
                self.place[uuid] = 0
                continue
            if reply.status == 200:
                self.got += [(each["document_id"], place) for each in reply.json()["commands"]]
                self.changed.set()
                self.changed = trio.Event()
            else:
                assert reply.status in (408, 503), reply

    async def until(self, count: int) -> None:
        """So many different ones came."""
        while len(self.counts()) < count:
            await self.changed.wait()


@asynccontextmanager
async def fleet(folder: Path, certificates: Certificates, port: int, count: int) -> AsyncIterator[Fleet]:
    """Agents that are spread over two daemons; each authenticated on the other one than it polls on."""
    uuids = [str(uuid4()) for _ in range(count)]
    key_hash = hash_key(KEY)
    lines = []
    for uuid in uuids:
        lines += [{"index": {"_index": ".agents", "_id": uuid}}, {"agent": {"id": uuid, "name": "a", "key": key_hash}}]
    bulk(port, lines)
    bulk(port, [{"index": {"_index": ".commands", "_id": "first"}}, {"command": {"status": "success"}}])
    async with (
        fake_engine(folder),
        start_daemon(wazuh_files(folder / "one", certificates, [port])) as one,
        start_daemon(wazuh_files(folder / "two", certificates, [port]), expect_errors=True) as two,
    ):
        daemons = [one, two]
        place = {uuid: number % 2 for number, uuid in enumerate(uuids)}
        agents = {uuid: daemons[1 - place[uuid]].client(uuid, KEY) for uuid in uuids}
        limit = trio.CapacityLimiter(8)

        async def log_in(agent: AgentClient) -> None:
            async with limit:
                assert (await agent.authenticate()).status == 200

        async with trio.open_nursery() as nursery:
            for agent in agents.values():
                nursery.start_soon(log_in, agent)
        made = Fleet(port, daemons, agents, place)
        async with trio.open_nursery() as nursery:
            for uuid in uuids:
                nursery.start_soon(made.poll, uuid)
            yield made
            nursery.cancel_scope.cancel()


def bulk(port: int, lines: list[Any]) -> None:
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    assert not call(port, "POST", "/_bulk", body)["errors"]


def write_commands(port: int, uuids: list[str], first: int, count: int) -> None:
    lines = []
    for number in range(first, first + count):
        action = {"name": "restart", "version": "5.0.0"}
        target = {"type": "agent", "id": uuids[number % len(uuids)]}
        command = {"status": "pending", "target": target, "action": action, "timeout": 600, "source": "Engine"}
        document = {"@timestamp": "2099-01-01T00:00:00.000Z", "command": command}
        lines += [{"create": {"_index": ".commands", "_id": f"c{number}"}}, document]
    bulk(port, lines)


def sent(port: int) -> set[str]:
    """Those that are marked."""
    ids = [f"c{number}" for number in range(COMMANDS)]
    docs = call(port, "POST", "/.commands/_mget?_source_includes=command.status", {"ids": ids})["docs"]
    return {each["_id"] for each in docs if each["_source"]["command"]["status"] == "sent"}


async def until_all_are_marked(port: int) -> None:
    with trio.fail_after(20):
        while len(sent(port)) < COMMANDS:  # noqa: ASYNC110  # nothing tells
            await trio.sleep(0.2)


async def test_each_command_comes_once(tmp_path: Path, certificates: Certificates, port: int) -> None:
    async with fleet(tmp_path, certificates, port, AGENTS) as agents:
        uuids = list(agents.agents)
        with trio.fail_after(90):
            for start in range(0, COMMANDS, 500):
                write_commands(port, uuids, start, 500)
                await agents.until(start + 100)
            await agents.until(COMMANDS)
        await until_all_are_marked(port)
        assert set(agents.counts().values()) == {1}
        assert {place for _, place in agents.got} == {0, 1}


async def test_one_daemon_is_killed_in_the_middle(tmp_path: Path, certificates: Certificates, port: int) -> None:
    async with fleet(tmp_path, certificates, port, AGENTS) as agents:
        uuids = list(agents.agents)
        with trio.fail_after(120):
            write_commands(port, uuids, 0, COMMANDS)
            await agents.until(COMMANDS * 2 // 3)
            agents.daemons[1].process.kill()
            marked = sent(port)
            await agents.until(COMMANDS)
        await until_all_are_marked(port)
        twice = {document_id for document_id, count in agents.counts().items() if count > 1}
        by_the_dead = {document_id for document_id, place in agents.got if place == 1}
        # The dead one had begun to write these, and their mark wasn't stored when it died.
        assert twice <= by_the_dead - marked
        assert max(agents.counts().values()) <= 2
        print(f"{len(by_the_dead)} by the one that was killed, {len(twice)} of them twice")


def nodes_known(port: int) -> int:
    """By the index's statistics, which are there while a search of a new index isn't."""
    found = call(port, "GET", "/wazuh-comms-nodes/_stats/docs")
    return int(found["_all"]["primaries"].get("docs", {}).get("count", 0)) if "_all" in found else 0


async def until_a_node_is_known(port: int) -> None:
    with trio.fail_after(20):
        while not nodes_known(port):  # noqa: ASYNC110  # nothing tells
            await trio.sleep(0.05)


async def test_differing_token_keys_are_warned_about(tmp_path: Path, certificates: Certificates, port: int) -> None:
    own_key = tmp_path / "token.pem"
    trustme.CA().issue_cert("x").private_key_pem.write_to_path(own_key)
    own_key.chmod(0o600)
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(start_daemon(wazuh_files(tmp_path / "one", certificates, [port])))
        await until_a_node_is_known(port)  # it was there first: it looks again in a minute
        other = wazuh_files(tmp_path / "two", certificates, [port], token={"private_key": str(own_key)})
        two = await stack.enter_async_context(start_daemon(other))
        three = await stack.enter_async_context(start_daemon(wazuh_files(tmp_path / "three", certificates, [port])))
        with trio.fail_after(20):
            line = await two.wait_for_line("signs tokens with another key")
            await three.wait_for_line("signs tokens with another key")
        assert "WARNING" in line
        assert "token.private_key" in line
        agent = await one.add_agent("a")
        assert (await agent.authenticate()).status == 200
        here = three.client(agent.uuid, agent.key)
        there = two.client(agent.uuid, agent.key)
        here.token = there.token = agent.token
        assert (await here.get_file("default.conf")).status == 404
        assert (await there.get_file("default.conf")).status == 403
    assert not [line for line in one.log if "another key" in line]
