"""The domain: what the daemon does for agents. No HTTP, no sockets, no store."""

from __future__ import annotations

import time
from collections.abc import Collection
from random import Random
from typing import Any

from attrs import field, frozen

from wazuh_comms_trio.backends.interfaces import Backends
from wazuh_comms_trio.backends.leadership import Leadership
from wazuh_comms_trio.backends.local_node import LocalNode
from wazuh_comms_trio.config.capacity import largest_event_bytes
from wazuh_comms_trio.config.limits.in_force import limits_in_force
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.foundation.environment import RunBlocking, WallClock
from wazuh_comms_trio.foundation.resources import memory_limit
from wazuh_comms_trio.metrics.counting import Metrics
from wazuh_comms_trio.quarantine.interface import Quarantine
from wazuh_comms_trio.services.agent_journal import AgentJournal
from wazuh_comms_trio.services.authentication.authenticator import Authenticator
from wazuh_comms_trio.services.authentication.tokens import TokenKeys
from wazuh_comms_trio.services.authentication.verified_keys import VerifiedKeys
from wazuh_comms_trio.services.commands.dispatcher import CommandDispatcher
from wazuh_comms_trio.services.commands.other_workers import NO_OTHER_WORKERS, OtherWorkers
from wazuh_comms_trio.services.enrollment import EnrollmentService, NoteEnrolment
from wazuh_comms_trio.services.failing_calls import FailingCalls
from wazuh_comms_trio.services.files import FileService
from wazuh_comms_trio.services.measured_backends import measured
from wazuh_comms_trio.services.presence.recorder import PresenceRecorder
from wazuh_comms_trio.services.presence.watch import SilenceWatch
from wazuh_comms_trio.services.readiness import Readiness, probes_of
from wazuh_comms_trio.services.refusal_counts import RefusalCounts
from wazuh_comms_trio.services.stateful.events import StatefulEvents
from wazuh_comms_trio.services.stateless.events import StatelessEvents
from wazuh_comms_trio.services.vulnerability import ScanService

__all__ = ["ServiceEnvironment", "Services", "build_services"]


@frozen
class Services:
    """What the APIs are given. ``enrollment`` is None when it is off."""

    authentication: Authenticator
    stateful: StatefulEvents
    stateless: StatelessEvents
    commands: CommandDispatcher
    files: FileService
    scans: ScanService
    enrollment: EnrollmentService | None = None
    readiness: Readiness = field(factory=Readiness)
    refusals: RefusalCounts = field(factory=RefusalCounts)
    failing: FailingCalls = field(factory=FailingCalls)
    journal: AgentJournal = field(factory=lambda: AgentJournal(time.time))
    keys: TokenKeys | None = None
    presence: PresenceRecorder | None = None
    silence: SilenceWatch | None = None

    def trust_key(self, public_key: bytes) -> None:
        """Tokens of this key (PEM), too, are good from now on. Raises ``TokenKeyError``."""
        if self.keys is not None:
            self.keys.trust(public_key)

    def revoke_keys(self, key_ids: Collection[str]) -> bool:
        """Ends everything that these keys signed, polls that are parked included: all are answered, and their agents
        come again. Returns whether any of them was trusted."""
        if self.keys is None or not self.keys.revoke(key_ids):
            return False
        self.commands.answer_all()
        return True

    def about_agent(self, agent_id: str) -> dict[str, Any]:
        """What is known of an agent, as JSON: what the journal says, ``parked``: whether a poll waits, ``limits``: what
        it was refused by them."""
        limits = [line for line in self.refusals.lines() if agent_id in line]
        return {**self.journal.about(agent_id), "parked": int(self.commands.is_parked(agent_id)), "limits": limits}


@frozen(kw_only=True)
class ServiceEnvironment:
    """What the services stand on. ``other_workers``: those of the same node. ``verified_keys``: agents' keys that were
    right before this process began; None: that isn't kept. ``leadership``: which worker of the node does what one
    does for all. ``run_hashing``: for keys and passwords; None: as other blocking work."""

    backends: Backends
    quarantine: Quarantine
    keys: TokenKeys
    wall_clock: WallClock
    rng: Random
    run_blocking: RunBlocking
    run_hashing: RunBlocking | None = None
    other_workers: OtherWorkers = NO_OTHER_WORKERS
    note_enrolment: NoteEnrolment | None = None
    metrics: Metrics = field(factory=Metrics)
    verified_keys: VerifiedKeys | None = None
    leadership: Leadership = field(factory=Leadership)


def build_services(config: Config, environment: ServiceEnvironment) -> Services:
    """The composition: which service stands on which store. Nothing runs yet: the caller runs
    ``stateful.run_batcher``, ``commands.run``, ``readiness.run`` and ``presence.run`` in its services' nursery."""
    api = config.communications_api
    metrics, quarantine, keys = environment.metrics, environment.quarantine, environment.keys
    failing = FailingCalls()
    backends = measured(environment.backends, metrics, failing)
    wall_clock, rng, run_blocking = environment.wall_clock, environment.rng, environment.run_blocking
    run_hashing = environment.run_hashing or run_blocking
    journal, refusals = AgentJournal(wall_clock), RefusalCounts()
    presence = PresenceRecorder(
        journal, backends.presence, environment.leadership, after=config.disconnected_after, wall_clock=wall_clock
    )
    metrics.read(presence.read)
    silence = None
    if api.presence.events:
        silence = SilenceWatch(
            backends.presence,
            backends.agents,
            backends.engine,
            environment.leadership,
            presence,
            holder=LocalNode.of(api.port, str(api.command_socket), "").id,
            after=config.disconnected_after,
            partial_after=api.presence.partial_after,
            wall_clock=wall_clock,
        )
    return Services(
        refusals=refusals,
        failing=failing,
        keys=keys,
        journal=journal,
        presence=presence,
        silence=silence,
        authentication=Authenticator(
            backends.agents,
            keys,
            wall_clock=wall_clock,
            run_blocking=run_hashing,
            metrics=metrics,
            serve_unread=api.token.outage == "serve",
            journal=journal,
            verified_keys=environment.verified_keys,
        ),
        stateful=StatefulEvents(
            backends,
            quarantine,
            events=api.events,
            batcher=api.batcher,
            rng=rng,
            metrics=metrics,
            failing=failing,
            refused=lambda count: refusals.refused("packets that waited too long", count=count),
            run_blocking=run_blocking,
            largest_event=largest_event_bytes(api, memory_limit()),
        ),
        stateless=StatelessEvents(
            backends.engine,
            quarantine,
            settings=api.events,
            run_blocking=run_blocking,
            spool_folder=api.quarantine.path or api.embedded.path,
            metrics=metrics,
        ),
        commands=CommandDispatcher(
            backends.commands,
            backends.agents,
            poll_timeout=api.timeouts.commands,
            parked_limit=limits_in_force(api.limits).parked_polls,
            refused=lambda count: refusals.refused("parked polls", count=count),
            wall_clock=wall_clock,
            rng=rng,
            other_workers=environment.other_workers,
            metrics=metrics,
        ),
        files=FileService(backends.files, api.files.scope, backends.agents, backends.commands),
        scans=ScanService(backends.engine),
        readiness=Readiness(probes_of(environment.backends)),
        enrollment=None
        if api.enrollment is None
        else EnrollmentService(
            backends.agents,
            keys,
            api.enrollment.users,
            wall_clock=wall_clock,
            run_blocking=run_hashing,
            note=environment.note_enrolment,
            metrics=metrics,
            verified_keys=environment.verified_keys,
        ),
    )
