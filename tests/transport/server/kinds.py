"""Either kind of server, plain or for trio, asked in the same way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio

from wazuh_comms_trio.transport import WazuhServer, open_server


class Asked:
    """``await asked("restart_agents", ["001"])``."""

    def __init__(self, server: Any, plain: bool) -> None:
        self.server, self.plain = server, plain

    async def __call__(self, method: str, *args: Any, **named: Any) -> Any:
        function = getattr(self.server, method)
        if self.plain:
            return await trio.to_thread.run_sync(lambda: function(*args, **named))
        return await function(*args, **named)


Open = Callable[..., AbstractAsyncContextManager[Asked]]


@asynccontextmanager
async def plain_server(**named: Any) -> AsyncIterator[Asked]:
    # In a thread: it may ask the fakes of this program which release they are.
    with await trio.to_thread.run_sync(lambda: WazuhServer(**named)) as server:
        yield Asked(server, True)


@asynccontextmanager
async def trio_server(**named: Any) -> AsyncIterator[Asked]:
    async with open_server(**named) as server:
        yield Asked(server, False)


KINDS = {"plain": plain_server, "trio": trio_server}
