"""The embedded stores as the operator's tool has them, of this version or of the first one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tests.simulation.stores.earlier_state import rekey
from wazuh_comms_trio.errors import BackendUnavailable

if TYPE_CHECKING:
    from tests.simulation.stores.embedded import EmbeddedStores

__all__ = ["Tool"]


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
                        result = await getattr(getattr(stores, self._which), name)(*args, **options)
                    if self._stores.disk.image is not None:
                        raise BackendUnavailable("the power is off")
                    return result
            except BackendUnavailable:
                await self._stores.tool_ended()
                raise

        return call

    def _is_earlier(self) -> bool:
        """Whether the operator has the first version's at hand this time."""
        rng = self._stores.rng_tool
        return rng is not None and rng.random() < 0.5
