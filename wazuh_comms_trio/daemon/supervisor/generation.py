"""One generation of workers: processes with one configuration, each replaced when it dies or hangs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Final

import trio
from attrs import define, field

from wazuh_comms_trio.config.load import LoadedConfig
from wazuh_comms_trio.config.models import CommunicationsApi
from wazuh_comms_trio.daemon.bound_sockets import StartError
from wazuh_comms_trio.daemon.exit_status import EXIT_BAD_CONFIGURATION, EXIT_FAILED, BadConfiguration
from wazuh_comms_trio.daemon.stopping import STOP_MARGIN, Stop
from wazuh_comms_trio.daemon.supervisor import messages
from wazuh_comms_trio.daemon.supervisor.child import Process, StartChild, describe_status, linked_child
from wazuh_comms_trio.daemon.supervisor.hub import Hub, Member
from wazuh_comms_trio.daemon.supervisor.link import Link
from wazuh_comms_trio.foundation.aligned_timer import sleep_until_next_tick
from wazuh_comms_trio.foundation.backoff import Backoff
from wazuh_comms_trio.foundation.log_context import REQUEST

__all__ = ["Generation", "WorkerFailed", "run_generation"]

logger = logging.getLogger(__name__)

#: A worker that has sent nothing for this long hangs: its event loop turns no more. Seconds.
HUNG_AFTER: Final = 5.0
WATCH_INTERVAL: Final = 1.5
#: From spawning to serving; a damaged disk may make opening the state slow.
START_TIMEOUT: Final = 60.0
#: Failed starts in a row before the daemon gives up; and in a reload, whose caller waits and whose old workers go on.
FAILED_STARTS: Final = 5
FAILED_STARTS_IN_RELOAD: Final = 2
BACKOFF_FIRST: Final = 0.1
BACKOFF_LAST: Final = 5.0
#: A worker that lived this long wasn't broken from the start: the pauses begin anew. Seconds.
LONG_LIFE: Final = 10.0
#: The same for a worker that was told to hurry.
HURRIED_MARGIN: Final = 2.0


class WorkerFailed(StartError):
    """Raised where a worker can't start, again and again."""


class WorkerMisconfigured(WorkerFailed, BadConfiguration):
    """... since its configuration can't be used: exit status 78."""


@define(eq=False)
class Generation:
    """``api`` and ``enrollment`` are listening descriptors; ``key_files`` is what its keys' and certificates' files
    held when it began, so that a worker that is replaced has what the others have. ``earlier_keys``: public keys (PEM)
    whose tokens are good until a moment on trio's clock. ``start_worker`` starts a worker's process. ``public_key``: of
    the key that signs its tokens, once a worker has said it."""

    number: int
    loaded: LoadedConfig = field(repr=False)
    api: Sequence[int]
    enrollment: Sequence[int]
    key_files: Mapping[str, str] = field(repr=False, factory=dict)
    earlier_keys: Sequence[tuple[str, float]] = field(repr=False, factory=list)
    start_worker: StartChild = field(repr=False, default=linked_child)
    public_key: str | None = field(init=False, default=None, repr=False)
    stop: Stop = field(init=False, factory=Stop, repr=False)

    @property
    def settings(self) -> CommunicationsApi:
        return self.loaded.config.communications_api

    def for_new_worker(self) -> messages.WorkerConfig:
        """What a worker that starts now is told first."""
        return messages.WorkerConfig(
            duty=True,
            file=str(self.loaded.file),
            text=self.loaded.text,
            listeners=messages.SharedListeners(api=list(self.api), enrollment=list(self.enrollment)),
            materials=dict(self.key_files),
            earlier=self.tokens_of_earlier_keys(),
        )

    def tokens_of_earlier_keys(self) -> messages.EarlierKeys:
        """What a worker that starts now is told of the earlier keys."""
        now = trio.current_time()
        left = [(pem, until - now) for pem, until in self.earlier_keys if until > now]
        seconds = max((seconds for _, seconds in left), default=0.0)
        lifetimes = [seconds for _, seconds in left]
        return messages.EarlierKeys(public_keys=[pem for pem, _ in left], seconds=seconds, lifetimes=lifetimes)


async def run_generation(
    generation: Generation,
    hub: Hub,
    *,
    whole: bool,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Runs the generation until it was stopped and its workers have ended. Started when the first worker serves, or all
    (``whole``). Raises ``WorkerFailed`` when a worker fails to start again and again; the others are stopped then."""
    REQUEST.set(None)  # a reload may be a request's; what the workers do isn't
    workers = generation.settings.workers
    waiting = workers if whole else 1
    first = trio.Event()

    def note_ready() -> None:
        nonlocal waiting
        first.set()
        waiting -= 1
        if waiting == 0:
            task_status.started()

    failures: list[WorkerFailed] = []  # raised below: a nursery would wrap them up

    def failures_allowed() -> int:
        return FAILED_STARTS_IN_RELOAD if whole and waiting > 0 else FAILED_STARTS

    async def keep(slot: int) -> None:
        # Two at first: they have the cores to themselves until one of them serves.
        if slot > 2:
            await first.wait()
        try:
            await keep_worker(generation, slot, hub, note_ready, failures_allowed)
        except WorkerFailed as error:
            failures.append(error)
            generation.stop.request()
        finally:
            first.set()  # also when this one was stopped before any served: the others are to see that

    async with trio.open_nursery() as nursery:
        for slot in range(1, workers + 1):
            nursery.start_soon(keep, slot)
    if failures:
        raise failures[0]
    if waiting > 0:
        task_status.started()  # stopped before anything served


_spawned = count(1)


async def keep_worker(
    generation: Generation, slot: int, hub: Hub, note_ready: Callable[[], None], failures_allowed: Callable[[], int]
) -> None:
    """Keeps one slot: starts one worker after another, until the generation is stopped. ``note_ready`` is called when
    the first one serves, ``failures_allowed`` when one couldn't start. Raises ``WorkerFailed`` after that many."""
    failed_starts = 0
    backoff = Backoff(BACKOFF_FIRST, BACKOFF_LAST)
    was_ready = False
    while not generation.stop.requested.is_set():
        worker = WorkerProcess(f"{slot}.{next(_spawned)}", generation, hub)
        began = trio.current_time()

        def on_ready() -> None:
            nonlocal was_ready
            if not was_ready:
                was_ready = True
                note_ready()

        member: Member | None = None
        try:
            status = await worker.run(on_ready)
            ended, member = f"ended with {describe_status(status)}", worker.member
        except OSError as error:  # no process, no descriptor
            status, ended = EXIT_FAILED, f"can't be started: {error.strerror or error}"
        was_serving = member is not None and member.ready.is_set()
        if generation.stop.requested.is_set():
            if status != 0 and was_serving:
                logger.warning("worker %s %s", worker.name, ended)
            return
        hub.restarts += 1
        logger.error("worker %s %s", worker.name, ended)
        if was_serving:
            failed_starts = 0
            if trio.current_time() - began >= LONG_LIFE:
                backoff.reset()
        else:
            failed_starts += 1
            if failed_starts >= failures_allowed() or status == EXIT_BAD_CONFIGURATION:
                kind = WorkerMisconfigured if status == EXIT_BAD_CONFIGURATION else WorkerFailed
                reason = (member and member.failure) or f"it {ended}"
                times = "" if failed_starts == 1 else f" ({failed_starts} times)"
                raise kind(f"a worker can't start{times}: {reason}")
        with trio.move_on_after(backoff.next_pause()):
            await generation.stop.requested.wait()


class WorkerProcess:
    """One worker's process, its link and its end."""

    def __init__(self, name: str, generation: Generation, hub: Hub) -> None:
        self.name = name
        self._generation = generation
        self._hub = hub
        self.member: Member

    async def run(self, on_ready: Callable[[], None]) -> int:
        """Spawns it and stays until it has ended; returns its exit status (negative: the signal). Cancelled: it is
        killed."""
        generation = self._generation
        shared = [*generation.api, *generation.enrollment]
        module = "wazuh_comms_trio.daemon.worker_start"
        async with generation.start_worker(module, self.name, pass_fds=shared) as (process, link):
            self.member = Member(self.name, link, generation.number)
            link.send_nowait(generation.for_new_worker())

            def ready(message: messages.Ready) -> None:
                generation.public_key = message.public_key
                logger.info("worker %s serves (process %d)", self.name, process.pid)
                on_ready()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(link.run)
                nursery.start_soon(self._hub.serve, self.member, ready)
                nursery.start_soon(self._watch, process)
                nursery.start_soon(self._stop_when_told, process, link)
                status = await process.wait()
                with trio.move_on_after(0.5):  # its last messages
                    await self.member.left.wait()
                nursery.cancel_scope.cancel()
        return status

    async def _watch(self, process: Process) -> None:
        """Kills a worker that doesn't get ready, or hangs."""
        member = self.member
        with trio.move_on_after(START_TIMEOUT):
            await member.ready.wait()
        if not member.ready.is_set():
            logger.error("worker %s didn't get ready within %.0f s; it is killed", self.name, START_TIMEOUT)
            return process.kill()
        while True:
            due = await sleep_until_next_tick(WATCH_INTERVAL)
            if trio.current_time() - due > HUNG_AFTER / 5:
                member.heard = trio.current_time()  # the supervisor stood still, not the worker
            elif trio.current_time() - member.heard > HUNG_AFTER:
                logger.error("worker %s hangs: nothing was heard of it for %.0f s; it is killed", self.name, HUNG_AFTER)
                return process.kill()

    async def _stop_when_told(self, process: Process, link: Link) -> None:
        stop, shutdown = self._generation.stop, self._generation.settings.shutdown
        await stop.requested.wait()
        self._hub.dismiss(self.member)
        if not self.member.ready.is_set():
            return process.kill()  # the worker has nothing yet that could be lost
        grace = shutdown.grace if stop.grace is None else stop.grace
        link.send_nowait(messages.Stop(spread=stop.spread, grace=stop.grace))
        with trio.move_on_after(stop.spread + grace + STOP_MARGIN) as limit:
            await stop.shortened.wait()
            link.send_nowait(messages.ShortenStop())
            limit.deadline = min(limit.deadline, trio.current_time() + shutdown.grace + STOP_MARGIN)
            await stop.hurried.wait()
            link.send_nowait(messages.HurryStop())
            await trio.sleep(HURRIED_MARGIN)
        logger.error("worker %s doesn't end; it is killed", self.name)
        return process.kill()
