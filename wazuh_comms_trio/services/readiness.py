"""Can this node take events now? For load balancers and operators: stores are probed, cheaply and seldom."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from typing import Final

import trio

from wazuh_comms_trio.backends.interfaces import Backends
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.aligned_timer import next_tick

__all__ = ["READY", "Readiness", "probes_of"]

logger = logging.getLogger(__name__)

#: What ``state`` says when all is well.
READY: Final = "ready"
#: An answer may be that old, seconds.
FRESH: Final = 1.0
#: At that age the stores are looked at again beside whoever asks: a probe waits its turn behind what the stores do, and
#: who asks often needn't.
AGEING: Final = 0.5
#: How often they are looked at when nobody asks.
INTERVAL: Final = 10.0
#: A store that takes longer to answer a probe isn't well.
PROBE_LIMIT: Final = 2.0

Probe = Callable[[], Awaitable[None]]


def probes_of(backends: Backends) -> dict[str, Probe]:
    """Where events go, by what the log calls it. A store may have ``async def probe()``, which raises
    ``BackendUnavailable``, with a sentence, when the store could take nothing now; it is cheap, and called twice a
    second at most. Stores without one count as ready."""
    stores = {"index": backends.events, "engine": backends.engine}
    probes = {name: getattr(store, "probe", None) for name, store in stores.items()}
    return {name: probe for name, probe in probes.items() if probe is not None}


class Readiness:
    """``run`` keeps ``state`` current; ``check`` is for a caller that has to know now."""

    def __init__(self, probes: Mapping[str, Probe] | None = None) -> None:
        self._probes = dict(probes or {})
        self._reasons: list[str] = []
        self._at = -inf
        self._stopping = False
        self._drained = False
        self._lock = trio.Lock()
        self._ageing = trio.Event()

    @property
    def state(self) -> str:
        """``READY``, or what is wrong with each store, as it was last found."""
        if self._stopping:
            return "stopping"
        return "; ".join(self._reasons) or READY

    def stop(self) -> None:
        """From now on this node isn't to be sent anything."""
        self._stopping = True

    def drain(self, on: bool) -> None:
        """While on, ``check`` says that this node isn't to be sent anything; ``state`` is the stores' as before."""
        self._drained = on

    async def check(self) -> None:
        """Probes the stores. Raises ``BackendUnavailable`` with the reason's name."""
        await self._look_if_old()
        if self._drained:
            raise BackendUnavailable("drained")
        if self.state != READY:
            raise BackendUnavailable(self.state)

    async def check_any(self) -> None:
        """As ``check``, but one store that can take something is enough."""
        await self._look_if_old()
        if self._drained or self._stopping:
            raise BackendUnavailable("drained" if self._drained else "stopping")
        if self._reasons and len(self._reasons) == len(self._probes):
            raise BackendUnavailable(self.state)

    async def run(self) -> None:
        """Probes now and then, and when somebody was given an ageing answer, until cancelled."""
        while True:
            await self._look(AGEING)
            self._ageing = trio.Event()
            with trio.move_on_at(next_tick(INTERVAL)):
                await self._ageing.wait()

    async def _look_if_old(self) -> None:
        age = trio.current_time() - self._at
        if age >= FRESH:
            await self._look(FRESH)
            return
        if age >= AGEING:
            self._ageing.set()
        await trio.lowlevel.checkpoint()

    async def _look(self, longest: float) -> None:
        """Probes all stores, unless that was done within the last ``longest`` seconds."""
        async with self._lock:
            if trio.current_time() - self._at < longest:
                return
            found: dict[str, str | None] = dict.fromkeys(self._probes)

            async def ask(name: str, probe: Probe) -> None:
                found[name] = await _reason(probe)

            async with trio.open_nursery() as nursery:
                for name, probe in self._probes.items():
                    nursery.start_soon(ask, name, probe)
            self._reasons = [f"{name}: {reason}" for name, reason in found.items() if reason is not None]
            self._at = trio.current_time()


async def _reason(probe: Probe) -> str | None:
    with trio.move_on_after(PROBE_LIMIT):
        try:
            await probe()
        except BackendUnavailable as error:
            return error.message
        except Exception:
            logger.exception("a store can't be probed: an error of ours")
        return None
    return f"no answer within {PROBE_LIMIT:.0f} s"
