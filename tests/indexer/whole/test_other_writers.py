"""Agents at work while another program writes to the same indices: it deletes, replaces, closes, locks and drops them,
and the indexer is killed in the middle. Nothing that was acknowledged is missing from index and quarantine together,
and nobody is stuck."""

from __future__ import annotations

import http.client
import os
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Literal

import pytest
import trio

from tests.conftest import Certificates
from tests.contract.test_events_model import some_event
from tests.e2e.processes import Files, start_daemon
from tests.engine.fake import fake_engine
from tests.indexer.cluster import Node, nodes
from tests.indexer.daemons import wazuh_files
from tests.indexer.harness import call
from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.quarantine.opening import open_quarantine
from wazuh_comms_trio.testing import AgentClient, ExchangeFailed, stateful_event

pytestmark = [pytest.mark.indexer, pytest.mark.processes, pytest.mark.real_clock]

Mode = Literal["agent", "global"]

FIM = "wazuh-states-fim"
SCA = "wazuh-states-sca"
#: How often the other program does all that it does.
ROUNDS = int(os.environ.get("OTHER_WRITERS_ROUNDS", "1"))
BLOCKS = ("write", "read_only", "read_only_allow_delete")


class Sender:
    """An agent: packets with events on documents that others touch, too, and one that is the packet's alone. It sends
    each until it is taken."""

    def __init__(self, agent: AgentClient, prefix: str, chance: random.Random) -> None:
        self._agent = agent
        self._prefix = prefix  # of ids in the index
        self._chance = chance
        #: Of what was acknowledged: ids with their value, and how many events were put aside.
        self.stored: dict[str, int] = {}
        self.aside: set[str] = set()
        self.statuses: dict[int, int] = {}

    async def run(self, enough: trio.Event) -> None:
        for number in count():
            if enough.is_set():
                return
            name = f"only-{self._agent.uuid}-{number}"
            events = [stateful_event(name, "fim", "create", {"n": number})]
            contested = []
            for _ in range(self._chance.randrange(1, 5)):
                operation, document_id, lines = some_event(self._chance, number)
                if operation != "gap":
                    events.append(lines + b"\n")
                    contested.append((operation, document_id))
            events.append(stateful_event(f"{name}-s", "sca", "create", {"n": number}))
            results = await self._send(events)
            assert len(results) == len(events)
            assert results[0]["status"] in (200, 201), results[0]
            self.stored[f"{self._prefix}{name}"] = number
            for (operation, document_id), result in zip(contested, results[1:-1], strict=True):
                assert result["status"] in (200, 201, 400, 404, 409), result
                if result["status"] in (400, 409) or (result["status"] == 404 and operation == "update"):
                    self.aside.add(f"{FIM}/{self._prefix}{document_id}")

    async def _send(self, events: list[bytes]) -> list[dict[str, Any]]:
        while True:
            with suppress(ExchangeFailed):
                reply = await self._agent.post_stateful(events)
                self.statuses[reply.status] = self.statuses.get(reply.status, 0) + 1
                if reply.status == 200:
                    found: list[dict[str, Any]] = reply.json()["results"]
                    return found
                assert reply.status in (408, 503), reply
            await trio.sleep(0.1)


class OtherWriter:
    """Never touches what is a packet's alone, but for what it does to whole indices; what it drops is another index."""

    def __init__(self, node: Node, chance: random.Random) -> None:
        self._node = node
        self._chance = chance

    async def run(self) -> None:
        steps = [self.delete, self.replace, self.close, self.lock, self.drop, self.replace, self.lock, self.delete]
        for _ in range(ROUNDS):
            for step in steps:
                await trio.sleep(0.2)
                await trio.to_thread.run_sync(step)
            await self.restart()

    async def restart(self) -> None:
        await trio.to_thread.run_sync(self._node.kill)
        self._node.begin(self._node.port)  # it ends with the thread that starts it
        await trio.to_thread.run_sync(self._node.wait_listening)

    def _call(self, method: str, target: str, body: Any = None) -> Any:
        with suppress(OSError, http.client.HTTPException, AssertionError):
            return call(self._node.port, method, target, body)

    def _contested(self) -> Iterator[str]:
        query = {"query": {"match_all": {}}, "size": 1000, "_source": False}
        self._call("POST", f"/{FIM}/_refresh")
        found = self._call("POST", f"/{FIM}/_search", query) or {}
        for hit in found.get("hits", {}).get("hits", []):
            if "only" not in hit["_id"]:
                yield hit["_id"]

    def delete(self) -> None:
        for document_id in self._contested():
            self._call("DELETE", f"/{FIM}/_doc/{document_id}")

    def replace(self) -> None:
        for document_id in self._contested():
            self._call("PUT", f"/{FIM}/_doc/{document_id}", {"theirs": self._chance.randrange(9)})

    def _for_a_while(self, before: tuple[str, str, Any], after: tuple[str, str, Any]) -> None:
        self._call(*before)
        time.sleep(0.7)
        self._call(*after)

    def close(self) -> None:
        self._for_a_while(("POST", f"/{FIM}/_close", None), ("POST", f"/{FIM}/_open", None))

    def lock(self) -> None:
        settings = f"/{FIM}/_settings"
        kind = f"index.blocks.{self._chance.choice(BLOCKS)}"
        self._for_a_while(("PUT", settings, {kind: True}), ("PUT", settings, {kind: None}))

    def drop(self) -> None:
        """With its mapping."""
        self._call("DELETE", f"/{SCA}")

    def end(self) -> None:
        self._call("POST", f"/{FIM}/_open")
        for kind in BLOCKS:
            self._call("PUT", f"/{FIM}/_settings", {f"index.blocks.{kind}": None})


@asynccontextmanager
async def daemon_at_work(folder: Path, certificates: Certificates, node: Node, mode: Mode) -> AsyncIterator[None]:
    """Three agents send meanwhile; in the end it is looked at what has become of it all."""
    changes = {"events": {"document_id": mode}, "timeouts": {"stateful": 1.5}}
    files = wazuh_files(folder, certificates, [node.port], **changes)
    limit = 240.0 * ROUNDS
    async with fake_engine(folder), start_daemon(files, expect_errors=True, limit=limit) as daemon:
        senders = []
        for number, agent in enumerate(await daemon.add_agents(3)):
            assert (await agent.authenticate()).status == 200
            prefix = f"{agent.uuid}_" if mode == "agent" else ""
            senders.append(Sender(agent, prefix, random.Random(f"{mode} {number}")))
        enough = trio.Event()
        async with trio.open_nursery() as nursery:
            for sender in senders:
                nursery.start_soon(sender.run, enough)
            yield
            enough.set()
        assert all(sender.stored for sender in senders)
        assert any(sender.statuses.get(503) for sender in senders)  # the other program was felt
        await check(files, node, senders)


async def test_nothing_acknowledged_is_missing(tmp_path: Path, certificates: Certificates) -> None:
    with nodes(1) as (node,):
        other = OtherWriter(node, random.Random(7))
        async with (
            daemon_at_work(tmp_path / "agent", certificates, node, "agent"),
            daemon_at_work(tmp_path / "global", certificates, node, "global"),
        ):
            await other.run()
            other.end()


async def check(files: Files, node: Node, senders: list[Sender]) -> None:
    missing = []
    for sender in senders:
        for document_id, number in sender.stored.items():
            found = call(node.port, "GET", f"/{FIM}/_doc/{document_id}")
            if not found.get("found") or found["_source"]["n"] != number:
                missing.append((document_id, number, found))
    assert missing == []
    async with open_quarantine(load_config(files.config).config) as quarantine:
        kept = {entry.document for entry in await quarantine.list(limit=10_000)}
    assert {document for sender in senders for document in sender.aside} <= kept
