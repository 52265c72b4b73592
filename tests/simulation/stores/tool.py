"""The embedded stores as the operator's tool has them, of this version or of the first one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from tests.simulation.stores.earlier_state import rekey
from wazuh_comms_trio.errors import BackendUnavailable

if TYPE_CHECKING:
    from tests.simulation.stores.embedded import EmbeddedStores

__all__ = ["Tool"]


#: What an operator does again until it is done.
_CHANGES: Final = ("add", "cancel", "remove", "rekey")


async def _collected(pages: Callable[..., AsyncGenerator[Any, None]], *args: Any, **options: Any) -> list[Any]:
    async with aclosing(pages(*args, **options)) as found:
        return [page async for page in found]


class Tool:
    """One of the tool's stores, while the machine is on."""

    def __init__(self, stores: EmbeddedStores, which: str) -> None:
        self._stores = stores
        self._which = which

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **options: Any) -> Any:
            try:
                async with self._stores.used() as stores:
                    if name == "rekey" and self._is_earlier():
                        result = await stores.database.write(partial(rekey, agent_id=args[0], key_hash=args[1]))
                    else:
                        method = getattr(getattr(stores, self._which), name)
                        method = partial(_collected, method) if name == "pages" else method
                        result = await self._perhaps_killed(name, lambda: method(*args, **options))
                    if self._stores.disk.image is not None:
                        raise BackendUnavailable("the power is off")
                    self._stores.call_ends(f"tool's {self._which}.{name}")
                    has_taken_over = bool(stores.commands._groups._unfinished)
                if has_taken_over:  # what one that was killed had begun, and what is others' once this one has ended
                    await self._stores.tool_ended()
                return result
            except BackendUnavailable:
                await self._stores.tool_ended()
                raise

        return call

    async def pages(self, *args: Any, **options: Any) -> AsyncGenerator[Any, None]:
        """All of them are read by one call."""
        for page in await self.__getattr__("pages")(*args, **options):
            yield page

    async def _perhaps_killed(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """Where its processes are killed, this one may be in the middle of its call, whose operator calls again."""
        rng = self._stores.rng_kills
        if rng is None or name not in _CHANGES or rng.random() < 0.7:
            return await call()
        results: list[Any] = []
        errors: list[BackendUnavailable] = []
        async with trio.open_nursery() as process:

            async def live() -> None:
                try:
                    results.append(await call())
                except BackendUnavailable as error:
                    errors.append(error)
                process.cancel_scope.cancel()

            process.start_soon(live)
            for _ in range(rng.randrange(12)):
                await trio.lowlevel.checkpoint()
            process.cancel_scope.cancel()
        if not results:
            raise errors[0] if errors else BackendUnavailable("the tool was killed")
        return results[0]

    def _is_earlier(self) -> bool:
        """Whether the operator has the first version's at hand this time."""
        rng = self._stores.rng_tool
        return rng is not None and rng.random() < 0.5
