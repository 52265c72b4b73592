"""Group commit: many callers, one fsync.

Callers hand in jobs and wait. One task takes all that wait and gives them to ``commit`` in one call; while that works
(and waits for the disk) the next group gathers by itself. So a lone caller waits for its own fsync only, and under load
groups grow until they keep up.

A *preemptible* job is a part of something big, an *urgent* one somebody waits for who can't go on without; all others
are of a kind. Each kind forms groups of its own. Whenever jobs of a more urgent kind wait, these have the next group,
or every second one, and ``commit`` may end a group early for them (``lets_in``) and hand back what it hasn't begun. Of
groups that end early for urgent jobs one after the other each is longer than the one before, up to 16 jobs or 2 ms:
urgent jobs without end leave the others that much of each commit, and wait for no more of them. Between ``hold`` and
``resume`` no preemptible group begins.

A *patient* job, which nobody waits for, has no group of its own until its time is over: it goes with others' before.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import Final, Generic, TypeAlias, TypeVar

import outcome
import trio

from wazuh_comms_trio.backends.loop_turns import pass_turns
from wazuh_comms_trio.errors import BackendUnavailable

logger = logging.getLogger(__name__)

W = TypeVar("W")
Outcome: TypeAlias = "outcome.Value[object] | outcome.Error"

#: Jobs that wait for the group under way. A job is held by the request that waits for it, so this bounds nothing but
#: the queue itself; callers that find it full wait for a place, in order.
QUEUE_SIZE: Final = 1024

#: What one group may hold: jobs, and their weight in bytes (soft: one job may weigh more). A heavier group would make
#: its members wait for each other longer than the saved fsync is worth.
GROUP_JOBS: Final = 256
GROUP_BYTES: Final = 8 * 1024 * 1024
#: How many times as many jobs a group has at least that comes after one that ended early, up to so many, and to those
#: that are begun in so many seconds: a packet of events takes as long as ten small jobs, and more on a slow processor.
KEPT_GROWTH: Final = 4
MOST_KEPT: Final = 16
KEPT_SECONDS: Final = 0.002


class Job(Generic[W]):
    """One caller's part of a group. ``commit`` sets ``outcome``, or ``postponed`` when it didn't begin with the job and
    another group shall; ``abandoned`` when the caller was cancelled before the group began. ``kept``: it stays in its
    group, whatever waits. ``followed``: another one comes in the next turn of the event loop, for the same group.
    ``begin_by``: a patient one's time, on trio's clock."""

    __slots__ = (
        "abandoned",
        "begin_by",
        "done",
        "followed",
        "kept",
        "outcome",
        "postponed",
        "preemptible",
        "urgent",
        "weight",
        "work",
    )

    def __init__(
        self, work: W, weight: int, *, preemptible: bool = False, urgent: bool = False, followed: bool = False
    ) -> None:
        self.work = work
        self.weight = weight
        self.preemptible = preemptible
        self.urgent = urgent
        self.followed = followed
        self.begin_by: float | None = None
        self.kept = False
        self.postponed = False
        self.outcome: Outcome | None = None
        self.abandoned = False
        self.done = trio.Event()


class GroupCommit(Generic[W]):
    """``submit`` from any task, ``run`` in one. ``commit`` is given at least one job, in the order they came; a job
    that it leaves without an outcome, or that it raises on, ends as ``BackendUnavailable``."""

    def __init__(self, commit: Callable[[Sequence[Job[W]]], Awaitable[None]], *, name: str) -> None:
        self._commit = commit
        self._name = name
        self._send, self._receive = trio.open_memory_channel[Job[W]](QUEUE_SIZE)
        # What was taken from the channel: callers wait for all of it, so it is no more than they are.
        self._urgent: deque[Job[W]] = deque()
        self._others: deque[Job[W]] = deque()
        self._preemptible: deque[Job[W]] = deque()
        self._patient: deque[Job[W]] = deque()
        self._patient_until = inf  # the first of their times
        self._urgent_next = True
        self._preemptible_next = False
        self._urgent_count = 0
        self._others_count = 0
        self._held = False
        self._last_size = 0  # of the last group of others
        self._wait = trio.CancelScope()  # around the wait for the next job
        self._kept = 1  # of the next group of others: each in a row that ended early makes it more
        self._kept_until: float | None = None  # of the group under way, once it has begun
        self._clock: Callable[[], float] = lambda: -inf  # until ``run``
        self.jobs_done = 0
        self.groups_done = 0

    @property
    def others_wait(self) -> bool:
        """Whether jobs wait that aren't preemptible. From any thread."""
        return self._others_count + self._urgent_count > 0

    def lets_in(self, job: Job[W]) -> bool:
        """Whether jobs wait that are more urgent than this one. Asked as each job of a group is begun; the first stays
        in it, whatever the answer. From any thread."""
        if self._kept_until is None:  # the first: before it the file's lock may have been waited for
            self._kept_until = self._clock() + KEPT_SECONDS
        if job.kept and self._clock() < self._kept_until:
            return False
        return self.others_wait if job.preemptible else self._urgent_count > 0 and not job.urgent

    async def submit(self, work: W, *, weight: int = 0, urgent: bool = False, followed: bool = False) -> object:
        """What ``commit`` made of it, after it is durable. Cancelled: it may have happened all the same."""
        job = Job(work, weight, urgent=urgent, followed=followed)
        try:
            try:
                self._send.send_nowait(job)  # without a checkpoint, which would be another turn of the event loop
            except trio.WouldBlock:
                await self._send.send(job)
            self._count(job, 1)
            await job.done.wait()
        except trio.ClosedResourceError:
            raise BackendUnavailable("The service is stopping") from None
        except BaseException:
            job.abandoned = True
            raise
        assert job.outcome is not None
        return job.outcome.unwrap()

    async def submit_parts(self, parts: Sequence[tuple[W, int]]) -> list[Outcome]:
        """As ``submit``, for the parts of one caller's work, each with its weight: preemptible jobs, done in this
        order. What became of each. Raises ``BackendUnavailable`` when no more are taken; some may be done then."""
        jobs = [Job(work, weight, preemptible=True) for work, weight in parts]
        try:
            for job in jobs:
                try:
                    self._send.send_nowait(job)  # without a checkpoint, so that the first has the others beside it
                except trio.WouldBlock:
                    await self._send.send(job)
            for job in jobs:
                await job.done.wait()
        except trio.ClosedResourceError:
            raise BackendUnavailable("The service is stopping") from None
        except BaseException:
            for job in jobs:
                job.abandoned = True
            raise
        return [job.outcome for job in jobs if job.outcome is not None]

    def submit_soon(self, work: W, *, weight: int = 0, within: float = 0.0) -> Job[W]:
        """Hands a job in and doesn't wait. ``within``: seconds for which it may wait for others, to go with them.
        Raises ``trio.WouldBlock`` when the queue is full."""
        job = Job(work, weight)
        job.begin_by = trio.current_time() + within if within > 0 else None
        try:
            self._send.send_nowait(job)
        except trio.ClosedResourceError:
            raise BackendUnavailable("The service is stopping") from None
        if job.begin_by is None:
            self._count(job, 1)
        return job

    def _count(self, job: Job[W], by: int) -> None:
        """Counts jobs that wait, or that don't any more."""
        if job.urgent:
            self._urgent_count += by
        elif not job.preemptible:
            self._others_count += by

    def hold(self) -> None:
        """No preemptible group begins until ``resume``; after ``close`` that makes no difference."""
        self._held = True

    def resume(self) -> None:
        """Preemptible groups may begin again."""
        self._held = False
        self._wait.cancel()

    def close(self) -> None:
        """No new jobs; ``run`` ends when the waiting ones are done."""
        self._send.close()

    async def run(self) -> None:
        """Until ``close``. A cancelled ``run`` leaves no caller waiting: their jobs end as ``BackendUnavailable``."""
        group: list[Job[W]] = []
        self._clock = trio.lowlevel.current_clock().current_time  # asked in threads, too
        try:
            while True:
                self._take_queued()
                if not self._urgent and not self._others and (self._held or not self._preemptible):
                    try:
                        with trio.CancelScope(deadline=self._patient_until) as self._wait:
                            self._take(await self._receive.receive())
                    except trio.EndOfChannel:
                        if not self._preemptible and not self._patient:
                            return
                        self._held = False
                        if self._patient:
                            self._patient_until = -inf
                    continue  # others may have come with it
                await self._wait_for_more()
                await self._wait_for_followers()
                group = self._gather()
                if group:
                    await self._run_group(group)
        finally:
            self._send.close()
            self._take_queued()
            self._settle([*group, *self._urgent, *self._others, *self._preemptible, *self._patient])
            self._receive.close()

    async def _wait_for_more(self) -> None:
        """Lets turns of the event loop go by in which requests get on that are about to hand in jobs, too: a group of
        many costs the processor hardly more than one of a single job. Jobs that come one by one don't wait, nor do any
        while urgent ones do."""
        if len(self._others) + self._last_size < 3:
            return
        await pass_turns(self._may_wait)
        self._take_queued()

    def _may_wait(self) -> bool:
        self._take_queued()
        return not self._urgent and 0 < len(self._others) < GROUP_JOBS

    async def _wait_for_followers(self) -> None:
        """Lets one turn of the event loop go by, in which those come that follow urgent jobs; one for each group,
        whatever comes in it."""
        if any(job.followed for job in self._urgent):
            for job in self._urgent:
                job.followed = False
            await trio.lowlevel.checkpoint()
            self._take_queued()

    def _take_queued(self) -> None:
        try:
            while True:
                self._take(self._receive.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel):
            pass
        if self._patient and (self._others or self._patient_until <= self._clock()):
            for job in self._patient:
                self._count(job, 1)
            self._others.extendleft(reversed(self._patient))
            self._patient.clear()
            self._patient_until = inf

    def _take(self, job: Job[W]) -> None:
        if job.begin_by is not None:
            self._patient.append(job)
            self._patient_until = min(self._patient_until, job.begin_by)
        else:
            self._queue_of(job).append(job)

    def _queue_of(self, job: Job[W]) -> deque[Job[W]]:
        return self._urgent if job.urgent else self._preemptible if job.preemptible else self._others

    def _next_queue(self) -> deque[Job[W]]:
        """Urgent jobs and those that aren't have a group in turn, where there are both; so have, of these, preemptible
        jobs and others."""
        may_preemptible = bool(self._preemptible) and not self._held
        if self._urgent and (self._urgent_next or not (self._others or may_preemptible)):
            self._urgent_next = False
            return self._urgent
        self._urgent_next = True
        preemptible = may_preemptible and (self._preemptible_next or not self._others)
        self._preemptible_next = not preemptible
        return self._preemptible if preemptible else self._others

    def _gather(self) -> list[Job[W]]:
        waiting = self._next_queue()
        group: list[Job[W]] = []
        weight = 0
        while waiting and len(group) < GROUP_JOBS and weight < GROUP_BYTES:
            job = waiting.popleft()
            self._count(job, -1)
            if not job.abandoned:
                job.kept = not job.preemptible and len(group) < self._kept
                group.append(job)
                weight += job.weight
        return group

    async def _run_group(self, group: Sequence[Job[W]]) -> None:
        self._kept_until = None
        try:
            await self._commit(group)
        except Exception:  # a bug: this group's callers are told, the next group is another matter
            logger.exception("%s: a write ended unexpectedly", self._name)
        postponed = [job for job in group if job.postponed]
        for job in reversed(postponed):
            job.postponed = False
            self._count(job, 1)
            self._queue_of(job).appendleft(job)
        if not group[0].urgent and not group[0].preemptible:
            if postponed:
                self._kept = min(self._kept * KEPT_GROWTH, MOST_KEPT)
            elif not self._urgent_count:
                self._kept = 1
            self._last_size = len(group)
        done = [job for job in group if job not in postponed]
        self._settle(done)
        self.jobs_done += len(done)
        self.groups_done += 1

    def _settle(self, group: Sequence[Job[W]]) -> None:
        for job in group:
            if not job.done.is_set():
                job.outcome = job.outcome or outcome.Error(BackendUnavailable())
                job.done.set()
