"""The world of one seed, what is done to it, and when it is looked at."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from random import Random

import trio
from attrs import evolve

from tests.simulation.actors.agents import SimAgent
from tests.simulation.actors.enrolment import OPERATOR, password_hash
from tests.simulation.actors.keys import key_hash
from tests.simulation.actors.room import Fillers
from tests.simulation.cast import start_actors
from tests.simulation.checks import service as checks
from tests.simulation.checks.contested import Contested
from tests.simulation.checks.groups import check_last_groups, check_left_groups
from tests.simulation.checks.overdue import check_overdue
from tests.simulation.checks.presence import DISCONNECTED_AFTER, LONGEST_POLL, check_presence
from tests.simulation.checks.pruning import Pruned, check_documents_left
from tests.simulation.checks.quotas.documents import DocumentQuota, Quota
from tests.simulation.checks.quotas.events import EventQuota
from tests.simulation.checks.readiness import check_ready
from tests.simulation.checks.registered import check_registered
from tests.simulation.checks.supervision import watch_supervisors
from tests.simulation.checks.tail import Tail
from tests.simulation.determinism import EPOCH
from tests.simulation.injected import InjectedFaults
from tests.simulation.loads.at_once import AtOnce
from tests.simulation.loads.crowd import Crowd
from tests.simulation.loads.floods import Floods
from tests.simulation.loads.in_flight import InFlight
from tests.simulation.model import CommandLife
from tests.simulation.nodes.agent_files import AgentFiles
from tests.simulation.nodes.network import Balancer, Connection
from tests.simulation.nodes.node import STOP_BOUND, Node
from tests.simulation.nodes.process import Process
from tests.simulation.nodes.token_keys import SigningKeys
from tests.simulation.plans.faults import BACKUPS, POWER, SUDDEN, TOLD, Fault
from tests.simulation.plans.limits import (
    SHORT_TIMES,
    changed,
    set_limits,
    with_pauses,
    with_rates,
    with_route_limits,
    with_short_waits,
    with_totals,
)
from tests.simulation.plans.plan import Plan
from tests.simulation.stores.embedded import EmbeddedStores
from tests.simulation.stores.engine import SimEngine
from tests.simulation.stores.indexer import IndexerStores
from tests.simulation.stores.memory import MemoryStores
from tests.simulation.stores.scratch import own_folder
from tests.simulation.trace import Violation
from wazuh_comms_trio.config.models import Batcher, Config, Enrollment, Events, Timeouts
from wazuh_comms_trio.config.sections.presence import Presence
from wazuh_comms_trio.services.authentication.tokens import TokenKeys
from wazuh_comms_trio.testing.node.daemon import daemon_config

__all__ = ["World"]

#: Once faults end, everything is served within this many seconds: an agent's pause after a failure, twice, and a
#: request's longest time.
LIVENESS_BOUND = 120.0
#: Seconds from the end of faults for which a connection is silent where peers are waited for briefly.
SILENT_FOR = 25.0
#: Of a run.
LEAST_REQUESTS = 100


@cache
def _config() -> Config:
    return daemon_config()


@cache
def _keys() -> TokenKeys:
    return TokenKeys.from_pem(_config().communications_api.ssl.key.read_bytes())


class World(InjectedFaults):
    def __init__(self, plan: Plan, nursery: trio.Nursery) -> None:
        super().__init__(plan)
        self.nursery = nursery
        self.requests = 0
        self.process: ContextVar[Process | None] = ContextVar("process", default=None)
        api = _config().communications_api
        batcher = Batcher(max_elements=plan.batch_elements, wait_time=plan.batch_wait, eager=plan.eager)
        timeouts = SHORT_TIMES if plan.features.short_times else Timeouts()
        timeouts = evolve(timeouts, commands=plan.poll_timeout)
        presence = Presence()
        if plan.features.presence:
            timeouts = evolve(timeouts, commands=min(plan.poll_timeout, LONGEST_POLL))
            presence = Presence(disconnected_after=DISCONNECTED_AFTER, events=True)
        enrollment = Enrollment(users={OPERATOR: password_hash()}) if plan.features.enrols else None
        limits = with_route_limits(api.limits) if plan.features.route_limits else api.limits
        limits = with_rates(api.limits) if plan.features.floods else limits
        limits = with_totals(limits) if plan.features.total_limits else limits
        limits = with_short_waits(limits) if plan.features.short_waits else limits
        self.config = Config(
            evolve(
                with_pauses(api, plan.seed) if plan.features.hard_starts else api,
                workers=plan.workers,
                batcher=batcher,
                timeouts=timeouts,
                presence=presence,
                events=Events(document_id="global" if plan.features.global_ids else "agent"),
                enrollment=enrollment,
                limits=limits,
            )
        )
        set_limits(plan.limits)
        self.keys = _keys()
        self.private_key = api.ssl.key.read_bytes()
        self._scratch: Path | None = None  # where nodes keep what is their own
        self.key_hash = key_hash()
        changing = self.scratch_folder("files") if plan.features.changing_files else None
        self.files = AgentFiles(changing, Random(f"{plan.seed} files"))
        self.stores: MemoryStores | EmbeddedStores | IndexerStores
        if plan.stores == "embedded":
            self.stores = EmbeddedStores(self)
        elif plan.stores == "indexer":
            self.stores = IndexerStores(self, self.agents_clock, lease=plan.lease)
        else:
            self.stores = MemoryStores(
                self.agents_clock,
                lease=plan.lease,
                keeps_posted=plan.keeps_posted,
                is_passing=self.is_passing,
                is_poison=self.is_poison,
                engine=SimEngine(self),
                quarantine_bytes=plan.quarantine,
            )
        self.balancer = Balancer(self)
        self.connections: list[Connection] = []
        self.commands: dict[str, CommandLife] = {}
        self.nodes = [Node(self, number) for number in range(plan.nodes)]
        self.agents = [SimAgent(self, number) for number in range(plan.agents)]
        #: Payloads that an operator dropped from the quarantine, and when room was made there last.
        self.dropped: list[bytes] = []
        self.hostile: list[str] = []  # uuids of agents that nothing is promised to
        self.room_made_at = -1e9
        self.fillers = Fillers(self)
        self.ending = False
        self.pruned = Pruned(self)
        self.quota = DocumentQuota(self)
        self.event_quota = EventQuota(self)
        self.tail = Tail(self)
        self.crowd = Crowd(self)
        self.floods = Floods(self)
        self.at_once = AtOnce(self)
        self.contested = Contested(self)
        self.in_flight = InFlight(self)

    def agents_clock(self) -> float:
        return EPOCH + trio.current_time()

    @property
    def is_busy(self) -> bool:
        """Whether agents make news: also while a run has had few requests."""
        return trio.current_time() < self.plan.seconds or self.requests < LEAST_REQUESTS

    @property
    def has_earlier_state(self) -> bool:
        """Whether an earlier version has left the embedded stores, with the agents in them."""
        return self.plan.features.upgrades and self.plan.stores == "embedded"

    def signing_keys(self, node: int) -> SigningKeys:
        """Those of a node."""
        return SigningKeys(self.private_key, self.scratch_folder(f"keys{node}"))

    def scratch_folder(self, name: str) -> Path:
        """One that goes with the run."""
        if self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="world-", dir=own_folder()))
        folder = self._scratch / name
        folder.mkdir()
        return folder

    def quota_of(self, place: str) -> Quota | None:
        """The one by which a request may be refused."""
        if place == "POST events/stateful" and self.plan.features.small_quota:
            return self.quota
        return self.event_quota if place == "POST events/stateless" and self.plan.features.small_events else None

    def gave_more(self, within: float) -> bool:
        """Whether the operator did, by a reload, in the last ``within`` seconds."""
        return self.quota.was_raised(within) or self.event_quota.was_raised(within)

    def config_of(self, node: int, generation: int) -> Config:
        """What a node's workers of one generation are given."""
        config = changed(self.config, self.plan, node, generation) if self.plan.features.limits_change else self.config
        if self.plan.features.presence:  # a node's name has its port in it
            api = config.communications_api
            timeouts = evolve(api.timeouts, commands=min(api.timeouts.commands, LONGEST_POLL))
            config = evolve(config, communications_api=evolve(api, port=api.port + node, timeouts=timeouts))
        return config

    # --- faults

    async def strike(self, fault: Fault) -> None:
        """What happens at a moment."""
        await trio.sleep_until(fault.start)
        node = self.nodes[fault.node]
        processes = [process for process in node.running if not process.dead]
        process = processes[fault.worker % len(processes)] if processes else None
        if not node.is_up or process is None:
            return
        self.trace.strike(fault.kind, "node", process.name)
        if fault.kind == "kill worker":
            process.kill()
        elif fault.kind == "kill node":
            node.pause = fault.amount
            node.kill()
        elif fault.kind == "power cut":
            assert isinstance(self.stores, EmbeddedStores)
            node.pause = 1.0
            self.stores.power_cut(node, fault)
        elif fault.kind == "backup":
            assert isinstance(self.stores, EmbeddedStores)
            await self.stores.take_backup()
        elif fault.kind in ("stop node", "restore"):
            if isinstance(self.stores, EmbeddedStores) and fault.kind == "restore":
                self.stores.move()
            node.pause = fault.amount
            node.stop()
        elif fault.kind == "reload and stop":
            await node.reload()
            await trio.sleep(fault.amount / 2)
            node.pause = fault.amount
            node.stop()
        elif fault.kind == "hang and stop":
            process.hang()
            await trio.sleep(fault.amount / 2)
            node.pause = fault.amount
            node.stop()
        elif fault.kind == "stop twice":
            node.pause = fault.amount
            node.stop()
            await trio.sleep(fault.amount / 2)
            node.hurry()
        elif fault.kind == "hang worker":
            process.hang()
            await trio.sleep(fault.seconds)
            process.wake()
        elif fault.kind == "cut link":
            process.note_rights()
            await process.link.aclose()
        elif fault.kind == "reload":
            await node.reload()
        elif fault.kind == "clock blip":
            node.clock_offset += fault.amount
            await trio.sleep(fault.seconds)
            node.clock_offset -= fault.amount
        else:
            node.clock_offset += fault.amount

    def end_faults(self) -> None:
        self.trace.add("world", "faults end")
        self.faults_ended = trio.current_time()
        self.faults_over.set()
        self.nursery.start_soon(self._cut_silent, tuple(self.silent))
        for connection in self.connections:
            connection.fault = None
        for node in self.nodes:
            node.clock_offset = 0.0
            for process in node.running:
                process.wake()

    async def _cut_silent(self, connections: Sequence[Connection]) -> None:
        """Where our side waits for little, others have seen that there is nobody for a while."""
        await trio.sleep(SILENT_FOR if self.plan.features.short_waits else 0.0)
        for connection in connections:
            connection.cut()

    # --- the run

    async def keep_node(self, node: Node) -> None:
        while not self.ending:
            await node.run()
            if isinstance(self.stores, EmbeddedStores):
                await self.stores.node_ended()
            if not self.ending:
                await trio.sleep(node.pause)

    async def run(self) -> None:
        try:
            await self._run_stores()
        finally:
            if self._scratch is not None:
                shutil.rmtree(self._scratch)

    async def _run_stores(self) -> None:
        async with self.stores.open():
            for agent in self.agents if not self.has_earlier_state else ():
                await self.stores.add_agent(agent.record)
            if isinstance(self.stores, EmbeddedStores):
                self.stores.disk.rest()
            await self._run()

    async def _run(self) -> None:
        plan = self.plan
        async with trio.open_nursery() as nodes:
            for node in self.nodes:
                nodes.start_soon(self.keep_node, node)
            async with trio.open_nursery() as others:
                others.start_soon(checks.watch, self)
                others.start_soon(checks.watch_polls, self)
                others.start_soon(watch_supervisors, self)
                for agent in self.agents:
                    others.start_soon(agent.run)
                async with trio.open_nursery() as busy:
                    start_actors(self, others, busy)
                    for fault in plan.faults:
                        if fault.kind in (*SUDDEN, *TOLD, *POWER, *BACKUPS):
                            busy.start_soon(self.strike, fault)
                    busy.start_soon(trio.sleep_until, plan.seconds)
                self.end_faults()
                await self._until_served()
                await checks.check_claims(self)
                await check_overdue(self)
                await checks.check_end(self)
                if plan.features.small_quota:
                    await self.quota.check_sums()
                if plan.features.tails:
                    await self.tail.check()
                if plan.features.prunes:
                    self.pruned.check_none_left()
                    await check_documents_left(self, at_end=True)
                await check_registered(self)
                await check_last_groups(self)
                if plan.features.settled_groups:
                    await check_left_groups(self)
                if plan.features.presence:
                    await check_presence(self)
                if plan.features.health_checks:
                    await check_ready(self)
                others.cancel_scope.cancel()
            self.ending = True
            with trio.move_on_after(10.0 + STOP_BOUND) as limit:
                async with trio.open_nursery() as stopping:
                    for node in self.nodes:
                        stopping.start_soon(self._stop, node)
                while any(node.running or node.is_up for node in self.nodes):  # noqa: ASYNC110
                    await trio.sleep(0.1)
            if limit.cancelled_caught:
                raise Violation("stops", f"there are {[each.name for node in self.nodes for each in node.running]}")
        checks.check_leaks(self)

    async def _stop(self, node: Node) -> None:
        while not node.is_up or not node.running:  # noqa: ASYNC110  # it is starting again
            await trio.sleep(0.1)
        node.stop()

    async def _until_served(self) -> None:
        """Who is asked for something meanwhile has no fault to blame any more."""
        async with trio.open_nursery() as asking:
            for agent in self.agents:
                asking.start_soon(agent.ask_on)
            await self._wait_until_served()
            asking.cancel_scope.cancel()
        self.trace.add("world", "everything is served")

    async def _wait_until_served(self) -> None:
        began = trio.current_time()
        while open_ends := await checks.open_ends(self):
            if trio.current_time() > began + LIVENESS_BOUND:
                raise Violation("liveness", f"{LIVENESS_BOUND:.0f} s after the last fault: {'; '.join(open_ends)}")
            await trio.sleep(0.5)
