"""Either HTTP client, plain or trio, asked in the same way; and a database to ask."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from wazuh_comms_trio.testing import (
    WazuhDBHTTPModel,
)
from wazuh_comms_trio.transport import (
    HTTPCall,
    HTTPClient,
    HTTPRequest,
    open_http,
)

OLD = ["4.13.0", "4.14.2", "5.0.0-beta1", "5.0.0-beta4"]
ALL = [*OLD, "5.0.0"]

AGENTS: dict[int, dict[str, Any]] = {
    1: {"name": "a", "connection_status": "active", "version": "Wazuh v4.14.2", "os_name": "Ubuntu"},
    2: {"name": "b", "connection_status": "disconnected", "version": "Wazuh v4.14.2", "os_name": "Debian"},
    3: {"name": "c", "connection_status": "active", "version": "Wazuh v5.0.0", "os_name": "Ubuntu"},
}
GROUPS = {1: ["default", "web"], 2: ["default"], 3: []}


class Client:
    """Either client, asked in the same way."""

    def __init__(self, call: Callable[[HTTPCall[Any]], Awaitable[Any]], send: Callable[..., Awaitable[Any]]) -> None:
        self.call, self.send = call, send


Open = Callable[..., Any]


@asynccontextmanager
async def plain_client(service: str, *, limit: float = 10, **named: Any) -> AsyncIterator[Client]:
    with HTTPClient(service, timeout=limit, **named) as client:

        async def call(one: HTTPCall[Any]) -> Any:
            return await trio.to_thread.run_sync(client.call, one)

        async def send(one: HTTPRequest, *, repeatable: bool = False) -> Any:
            return await trio.to_thread.run_sync(lambda: client.send(one, repeatable=repeatable))

        yield Client(call, send)


@asynccontextmanager
async def trio_client(service: str, *, limit: float = 10, **named: Any) -> AsyncIterator[Client]:
    async with open_http(service, request_timeout=limit, **named) as pool:
        yield Client(pool.call, pool.send)


KINDS: dict[str, Open] = {"plain": plain_client, "trio": trio_client}


def database(release: str) -> WazuhDBHTTPModel:
    return WazuhDBHTTPModel(release, {one: dict(row) for one, row in AGENTS.items()}, dict(GROUPS))
