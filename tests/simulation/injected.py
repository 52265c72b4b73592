"""Which injected fault strikes whom, and whether what went wrong had such a cause."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from random import Random
from typing import TYPE_CHECKING, Final

import trio

from tests.simulation.plans.faults import (
    BUSY,
    CALLS,
    CLOCKS,
    DISK,
    ENDS,
    ENGINE,
    HANGS,
    INDEX,
    INDEXER,
    LEFT,
    NETWORK,
    POWER,
    STARTS,
    STOPPED,
    Fault,
)
from tests.simulation.plans.plan import Plan
from tests.simulation.trace import Trace

if TYPE_CHECKING:
    from tests.simulation.nodes.network import Connection
    from tests.simulation.nodes.process import Process

__all__ = ["INDEXER_STORES", "ONCE", "InjectedFaults"]

#: Where an indexer stands behind, faults strike its answers, whatever they are to.
INDEXER_STORES = ("agents", "events", "commands")
#: The stores whose calls a request may wait for: that of agents for all of them, which notes log-ins, too.
_BEHIND: Final = {
    "POST authentication": frozenset(("agents", "presence")),
    "GET files": frozenset(("agents", "commands")),  # embedded ones of groups that an agent is told to go to
    "GET commands": frozenset(("agents", "commands")),
    "POST events/stateless": frozenset(("agents", "engine", "quarantine")),
    "POST events/stateful": frozenset(("agents", "events", "commands", "quarantine")),
    "POST vulnerability/scan": frozenset(("agents", "engine")),
}
#: What strikes one call, of a process whatever stands behind it.
ONCE = ("die", *STOPPED)


class InjectedFaults:
    """Those of one plan. ``silent``: connections that fell silent, which they are until faults end."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.trace = Trace()
        self.rng_calls = Random(f"{plan.seed} calls")
        self.rng_network = Random(f"{plan.seed} network")
        self.silent: list[Connection] = []
        self.faults_ended: float | None = None
        self.faults_over = trio.Event()
        self.power_went = self.node_stopped = -1e9  # by no fault of the plan
        #: Ids of keys whose tokens the operator ends, and since when all nodes know.
        self.revoking: set[str] = set()
        self.revoked: dict[str, float] = {}
        self._died: set[int] = set()  # faults by which a process has died, or was told to stop
        self._calls = [fault for fault in plan.faults if fault.kind in (*CALLS, *STOPPED, *LEFT, *DISK)]
        self._network = [fault for fault in plan.faults if fault.kind in NETWORK]
        self._starts = [fault for fault in plan.faults if fault.kind in STARTS]
        self._index = [fault for fault in plan.faults if fault.kind in INDEX]

    def meets(self, place: str, process: Process | None, only: Sequence[str] | None = None) -> Fault | None:
        """The fault that this call of a store, or a new connection, meets now. ``only``: of these kinds."""
        now = trio.current_time()
        faults, rng = (self._network, self.rng_network) if process is None else (self._calls, self.rng_calls)
        for fault in faults:
            if not fault.start <= now < fault.start + fault.seconds:
                continue
            here = fault.place in (place, place.partition(".")[0]) and (only is None or fault.kind in only)
            here = here and (process is None or self._strikes(fault, process))
            if here and rng.random() < fault.share:
                if fault.kind in ONCE:
                    if fault.number in self._died:
                        continue
                    self._died.add(fault.number)
                return fault
        return None

    def meets_start(self, process: Process, step: int) -> Fault | None:
        """The fault that a worker meets at this step of its start."""
        now = trio.current_time()
        for fault in self._starts:
            here = int(fault.amount) == step and fault.start <= now < fault.start + fault.seconds
            if here and self._strikes(fault, process) and self.rng_calls.random() < fault.share:
                return fault
        return None

    def spare(self, fault: Fault) -> None:
        """A process that has met it lives on: another one meets it."""
        self._died.discard(fault.number)

    def _strikes(self, fault: Fault, process: Process) -> bool:
        alone = fault.alone and fault.worker % self.plan.workers != process.slot
        return fault.node == process.node and not alone

    def meets_any(self, places: tuple[str, ...], process: Process | None) -> Fault | None:
        """The fault of any of these places that strikes a request of this process now (None: of the tool)."""
        now = trio.current_time()
        for fault in self._calls:
            here = (
                fault.place.partition(".")[0] in places
                and fault.kind not in (*ONCE, *LEFT)
                and fault.start <= now < fault.start + fault.seconds
            )
            here = here and (not fault.alone or (process is not None and process.node == fault.node))
            if here and self.rng_calls.random() < fault.share:
                return fault
        return None

    def is_poison(self, body: bytes) -> bool:
        """Is it refused for good, as a malformed document is?"""
        return b"poison" in body and trio.current_time() < self.plan.heals

    def is_passing(self, shard: int) -> bool:
        now = trio.current_time()
        for fault in self._index:
            here = int(fault.amount) == shard and fault.start <= now < fault.start + fault.seconds
            if here and self.rng_calls.random() < fault.share:
                self.trace.strike("passing", "index", f"shard{shard}")
                return True
        return False

    def had_cause(self, within: float, kinds: Sequence[str] | None = None) -> bool:
        """Was a fault (of these kinds) injected in the last ``within`` seconds?"""
        now = trio.current_time()
        if now <= self.node_stopped + within and (kinds is None or "stop node" in kinds):
            return True
        if now <= self.power_went + within and (kinds is None or "power cut" in kinds):
            return True
        return any(
            fault.start <= now <= fault.start + fault.seconds + within
            for fault in self.plan.faults
            if kinds is None or fault.kind in kinds
        )

    def holds_up_requests(self) -> bool:
        """Whether a request may come so slowly, in this run, that it is answered 408: also one that a worker took which
        then hung, and wasn't killed since it hadn't said yet that it serves, or is to be waited for but briefly."""
        hangs = HANGS if self.plan.features.short_waits else ("start hangs",)
        return any(fault.place == "network" or fault.kind in hangs for fault in self.plan.faults)

    def stops_node(self) -> None:
        """An operator does."""
        self.node_stopped = trio.current_time()

    def store_was_away(self, store: str, within: float) -> bool:
        """Was a fault injected in the last ``within`` seconds by which this store may not have answered?"""
        now = trio.current_time()
        everywhere = (*DISK, *INDEXER, "hang worker")
        return now <= self.power_went + within or any(
            fault.start <= now <= fault.start + fault.seconds + within
            for fault in self.plan.faults
            if fault.kind in everywhere
            or (fault.kind in CALLS and (self.plan.stores == "indexer" or fault.place.partition(".")[0] == store))
        )

    def registry_unread(self, within: float) -> bool:
        """Of an indexer: was a fault injected in the last ``within`` seconds by which a node may not have read the
        registry? Where a part of it isn't reached that is no answer, either."""
        return self.had_cause(within, INDEXER) or self._call_failed(within, INDEXER_STORES)

    def left_unserved(self, place: str, within: float, kinds: Sequence[str]) -> bool:
        """Was a fault of these kinds injected in the last ``within`` seconds by which a request for this may have found
        nobody who serves it? What stands behind others' requests is none."""
        stores = _BEHIND.get(place.partition("?")[0])
        if stores is None:
            return self.had_cause(within, kinds)
        if self.plan.stores == "indexer" and not stores.isdisjoint(INDEXER_STORES):
            stores = stores | set(INDEXER_STORES)
        elsewhere = {*CALLS, *(() if "engine" in stores else (*ENGINE, *BUSY)), *(() if "events" in stores else INDEX)}
        return self.had_cause(within, [kind for kind in kinds if kind not in elsewhere]) or self._call_failed(
            within, stores
        )

    def _call_failed(self, within: float, stores: Collection[str]) -> bool:
        now = trio.current_time()
        return any(
            fault.kind in CALLS
            and fault.place.partition(".")[0] in stores
            and fault.start <= now <= fault.start + fault.seconds + within
            for fault in self.plan.faults
        )

    def forgot_deliveries(self) -> bool:
        """May a node have ended in the last minute before the store knew what it had delivered, or have lost its claim
        on it?"""
        if self.plan.features.reloads:
            return True
        return self.had_cause(60.0, None if self.plan.stores == "indexer" else (*ENDS, *POWER, "reload", "restore"))

    def had_wrong_clock(self, since: float) -> bool:
        """Was a wall clock wrong at any moment from then on?"""
        now, over = trio.current_time(), self.faults_ended
        for fault in self.plan.faults:
            end = fault.start + fault.seconds if fault.kind == "clock blip" else (now if over is None else over)
            if fault.kind in CLOCKS and fault.start <= now and end >= since:
                return True
        return False

    def began_to_hang(self, since: float) -> bool:
        """Did a worker from then on?"""
        now = trio.current_time()
        kinds = ("hang worker", "hang and stop")
        return any(fault.kind in kinds and since <= fault.start <= now for fault in self.plan.faults)

    def registry_hung(self, since: float) -> bool:
        """Did it at any moment from then on?"""
        now = trio.current_time()
        return any(
            fault.kind in ("hang", "slow") and fault.place.startswith("agents")
            for fault in self._calls
            if fault.start <= now and fault.start + fault.seconds >= since
        )

    def was_silenced(self, name: str, within: float) -> bool:
        """Did a connection of this agent fall silent? It stays so until faults end."""
        over = self.faults_ended is not None and trio.current_time() > self.faults_ended + within
        return not over and any(connection.who == name for connection in self.silent)

    def is_revoked_everywhere(self, key: str, moment: float) -> bool:
        """Whether every worker knew at this moment that this key signs for nobody: one that hangs doesn't."""
        since = self.revoked.get(key)
        return since is not None and moment > since + 1.0 and not self.had_cause(30.0, ("hang worker",))
