"""One worker: the tree of tasks that serves agents, as a function of what it is given.

Its order is the shutdown. Services live in the outer block, connections in the inner one: when the inner block is left,
the accept loops have ended and requests have finished, so the batcher can write what it holds and end; then backends
(the caller's, further out) close.

The tree knows no socket, no store, no signal and no clock but trio's: with in-memory listeners, memory backends and an
inline ``run_blocking`` the same tree runs under the mock clock.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from math import inf
from typing import Final

import trio
from attrs import evolve, field, frozen

from wazuh_comms_trio.api.agent_api.app import create_app
from wazuh_comms_trio.api.agent_api.channels import note_reply
from wazuh_comms_trio.api.command_socket import create_command_app
from wazuh_comms_trio.api.enrollment import create_enrollment_app
from wazuh_comms_trio.api.problems import describe, describe_management
from wazuh_comms_trio.config.limits.in_force import limits_in_force
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.daemon.stopping import Stop
from wazuh_comms_trio.daemon.worker.environment import WorkerEnvironment
from wazuh_comms_trio.daemon.worker.service_gauges import read_service_gauges
from wazuh_comms_trio.http.balancers.trusted import TrustedBalancers
from wazuh_comms_trio.http.server.accept_loop import STOP_IDLE_TIMEOUT, serve_listeners
from wazuh_comms_trio.http.server.listener_context import ListenerContext
from wazuh_comms_trio.metrics.counting import Metrics
from wazuh_comms_trio.metrics.refusal_log import tell_refusals
from wazuh_comms_trio.services import Services, build_services

__all__ = ["Worker", "run_worker"]

logger = logging.getLogger(__name__)

#: What the batcher may take, after the last request, to settle what it holds. Its requests are gone by then: what it
#: still has are packets whose senders left, and bulk calls in flight, which have time limits of their own.
DRAIN_TIMEOUT: Final = 5.0
#: The same when the operator has asked twice.
HURRIED_DRAIN_TIMEOUT: Final = 0.5
HURRIED_ANSWER_TIMEOUT: Final = 0.5


@frozen
class Worker:
    """A running worker: its services, and what its listeners' connections share."""

    services: Services
    contexts: Sequence[ListenerContext] = field(factory=tuple)
    metrics: Metrics = field(factory=Metrics)


async def run_worker(
    config: Config,
    environment: WorkerEnvironment,
    stop: Stop,
    *,
    task_status: trio.TaskStatus[Worker] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until ``stop``, then ends in order: no new connections, parked polls answered (408), requests in flight
    finished within ``shutdown.grace``, the batcher drained. Started once every listener accepts.

    A failure of a service (a bug) comes out as it is and ends everything. Cancelled: everything ends at once; what
    wasn't answered may or may not have been applied.
    """
    settings = config.communications_api
    services = build_services(config, environment)
    metrics = environment.metrics
    listeners, ssl_context = environment.listeners, environment.ssl_context
    balancers = TrustedBalancers.of(settings.balancers.proxy_protocol, settings.balancers.forwarded_for)
    agent_app = create_app(services, settings)
    limits = limits_in_force(settings.limits)

    def refused(what: str, count: int) -> None:
        services.refusals.refused(what, count=count)

    api_context = ListenerContext(
        agent_app,
        limits,
        describe,
        ssl_context,
        answer_oldest=services.commands.answer_oldest,
        refused=refused,
        answered=partial(note_reply, services.journal),
        memory_short=environment.memory_short,
        capacity=services.authentication.hashing,
        urgent=services.commands.is_urgent,
        balancers=balancers,
        name="agents",
        paths=agent_app.routes.table,
        metrics=metrics,
    )
    metrics.read(partial(read_service_gauges, services, agent_app))
    contexts = [(api_context, listeners.api)]
    if listeners.command:
        command_app = create_command_app(services.commands.posts, settings.limits, environment.control)
        local_limits = evolve(settings.limits, connections=0, handshakes=0)
        command_context = ListenerContext(
            command_app, local_limits, describe, name="command", paths=command_app.routes.table, metrics=metrics
        )
        contexts.append((command_context, listeners.command))
    if listeners.enrollment and services.enrollment is not None:
        enrollment_app = create_enrollment_app(services.enrollment, settings.limits)
        enrollment_context = ListenerContext(
            enrollment_app,
            limits,
            describe_management,
            ssl_context,
            answer_oldest=services.commands.answer_oldest,
            refused=refused,
            beside=[api_context],
            memory_short=environment.memory_short,
            balancers=balancers,
            before_accepting=services.enrollment.leave_to_others,
            name="enrollment",
            paths=enrollment_app.routes.table,
            metrics=metrics,
        )
        api_context.beside = [enrollment_context]
        contexts.append((enrollment_context, listeners.enrollment))

    refusal_logs = [
        services.authentication.refusals,
        services.stateful.refusals,
        services.stateless.refusals,
        agent_app.spill.refusals,
        *(context.refusals for context, _ in contexts),
    ]
    if services.enrollment is not None:
        refusal_logs.append(services.enrollment.refusals)

    def stop_timeout() -> float:
        # In a reload there is time for handshakes, too: no connection is lost.
        limits = settings.limits
        return STOP_IDLE_TIMEOUT if stop.grace is None else limits.handshake_timeout + limits.head_timeout

    async with trio.open_nursery() as watching:
        async with trio.open_nursery() as running:
            await running.start(services.stateful.run_batcher)
            await running.start(services.commands.run)
            try:
                async with trio.open_nursery() as serving:
                    grace = settings.shutdown.grace
                    watching.start_soon(services.readiness.run)
                    if services.presence is not None:
                        watching.start_soon(services.presence.run)
                    if services.silence is not None:
                        watching.start_soon(services.silence.run)
                    watching.start_soon(tell_refusals, refusal_logs)
                    watching.start_soon(_watch, stop, grace, services, serving.cancel_scope, running.cancel_scope)
                    serve = partial(serve_listeners, stop=stop.requested, grace=inf, idle_timeout=stop_timeout)
                    for context, sources in contexts:
                        await serving.start(serve, context, sources)
                    task_status.started(Worker(services, [context for context, _ in contexts], metrics))
            finally:
                for _, sources in contexts:
                    for listener in sources:
                        await trio.aclose_forcefully(listener)
            services.stateful.close()
            _limit(running.cancel_scope, DRAIN_TIMEOUT)
        if running.cancel_scope.cancelled_caught:
            logger.warning("stopped before everything was settled; what agents were not told they will send again")
        watching.cancel_scope.cancel()


async def _watch(
    stop: Stop, grace: float, services: Services, serving: trio.CancelScope, running: trio.CancelScope
) -> None:
    await stop.requested.wait()
    services.readiness.stop()
    with trio.move_on_after((grace if stop.grace is None else stop.grace) + stop.spread) as limit:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(services.commands.close_over, stop.spread)
            await stop.shortened.wait()
            services.commands.close()
            _limit(limit, grace)
            await stop.hurried.wait()
            nursery.cancel_scope.cancel()
    # A worker that is hurried still sends the answers that are there: those of parked polls were made just now.
    _limit(serving, HURRIED_ANSWER_TIMEOUT if stop.hurried.is_set() else 0)
    await stop.hurried.wait()
    _limit(serving, HURRIED_ANSWER_TIMEOUT)
    _limit(running, HURRIED_DRAIN_TIMEOUT)


def _limit(scope: trio.CancelScope, seconds: float) -> None:
    scope.deadline = min(scope.deadline, trio.current_time() + seconds)
