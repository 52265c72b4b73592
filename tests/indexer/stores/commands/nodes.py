"""Nodes on one fake OpenSearch, and command documents in it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio

from tests.indexer.bench import A1, stores_of, wall_clock
from tests.indexer.fake import FakeOpenSearch
from wazuh_comms_trio.backends.interfaces import Action, Command, Target
from wazuh_comms_trio.backends.opensearch.commands.store import OpenSearchCommands
from wazuh_comms_trio.backends.opensearch.stores import OpenSearchStores
from wazuh_comms_trio.foundation.timestamps import to_iso

INDEX = "wazuh-commands"
LEASE = 15.0


def command(document_id: str, agent_id: str = A1, **more: Any) -> Command:
    return Command(document_id, Target("agent", agent_id), Action("restart"), **more)


def put(node: FakeOpenSearch, document_id: str, agent_id: str = A1, index: str = INDEX, **fields: Any) -> None:
    """As another program writes it."""
    whole = {
        "@timestamp": to_iso(wall_clock()),
        "command": {
            "status": "pending",
            "target": {"type": "agent", "id": agent_id},
            "action": {"name": "restart"},
            "timeout": 1000,
            **fields,
        },
    }
    node.index(index).write(document_id, json.dumps(whole).encode())


def source(node: FakeOpenSearch, document_id: str, index: str = INDEX) -> dict[str, Any]:
    return node.indices[index].documents[document_id].source


def ids(commands: Collection[Command]) -> list[str]:
    return [each.document_id for each in commands]


@asynccontextmanager
async def nodes(server: FakeOpenSearch, count: int = 1, **settings: Any) -> AsyncIterator[list[OpenSearchStores]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(stores_of(server, **settings)) for _ in range(count)]


async def news(commands: OpenSearchCommands, within: float = 30) -> set[str]:
    with trio.fail_after(within):
        return set(await commands.wait_news())
