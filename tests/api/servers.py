"""The servers that an application runs on: our own connections, in memory, and hypercorn's public ``serve``, on real
sockets. The latter knows no limits of heads and no confirmed deliveries; what a route answers is the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import trio
from attrs import define
from hypercorn.trio import serve

from tests.http.server.listener import LIMITS, TIMEOUTS, Fakes, Served, app_of
from tests.http.server.listener import serving as serving_by_connections
from wazuh_comms_trio.config.models import Limits, Timeouts
from wazuh_comms_trio.http.server.hypercorn_protocol import hypercorn_config
from wazuh_comms_trio.http.server.listener_context import Application


class Serving(Protocol):
    def __call__(
        self,
        fakes: Fakes | None = None,
        *,
        limits: Limits = LIMITS,
        timeouts: Timeouts = TIMEOUTS,
        app: Application | None = None,
    ) -> AbstractAsyncContextManager[Served]: ...


@define
class HypercornServer(Served):
    address: tuple[str, int] | Path
    streams: AsyncExitStack

    async def connect(self) -> trio.SocketStream:
        if isinstance(self.address, Path):
            stream = await trio.open_unix_socket(self.address)
        else:
            stream = await trio.open_tcp_stream(*self.address)
        return await self.streams.enter_async_context(stream)


@asynccontextmanager
async def serving_by_hypercorn(
    fakes: Fakes | None = None,
    *,
    limits: Limits = LIMITS,
    timeouts: Timeouts = TIMEOUTS,
    app: Application | None = None,
    unix_path: Path | None = None,
) -> AsyncIterator[HypercornServer]:
    fakes = fakes or Fakes()
    config = hypercorn_config(limits.head_bytes)
    config.bind = ["127.0.0.1:0" if unix_path is None else f"unix:{unix_path}"]
    stop = trio.Event()
    application: Any = app or app_of(fakes, limits, timeouts)
    async with trio.open_nursery() as nursery:
        (bound,) = await nursery.start(partial(serve, application, config, shutdown_trigger=stop.wait))
        host, _, port = bound.removeprefix("http://").rpartition(":")
        async with AsyncExitStack() as streams:
            yield HypercornServer(fakes, unix_path or (host, int(port)), streams)
        stop.set()


SERVERS: Final[dict[str, Serving]] = {"connections": serving_by_connections, "hypercorn": serving_by_hypercorn}
