"""Group commit: many callers, one fsync.

Callers hand in jobs and wait. One task takes all that wait and gives them to ``commit`` in one call; while that works
(and waits for the disk) the next group gathers by itself. So a lone caller waits for its own fsync only, and under load
groups grow until they keep up.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

import outcome
import trio

from wazuh_comms_trio.errors import BackendUnavailable

logger = logging.getLogger(__name__)

W = TypeVar("W")

#: Jobs that wait for the group under way. A job is held by the request that waits for it, so this bounds nothing but
#: the queue itself; callers that find it full wait for a place, in order.
QUEUE_SIZE: Final = 1024

#: What one group may hold: jobs, and their weight in bytes (soft: one job may weigh more). A heavier group would make
#: its members wait for each other longer than the saved fsync is worth.
GROUP_JOBS: Final = 256
GROUP_BYTES: Final = 8 * 1024 * 1024


class Job(Generic[W]):
    """One caller's part of a group. ``commit`` sets ``outcome``; ``abandoned`` when the caller was cancelled before the
    group began."""

    __slots__ = ("abandoned", "done", "outcome", "weight", "work")

    def __init__(self, work: W, weight: int) -> None:
        self.work = work
        self.weight = weight
        self.outcome: outcome.Value[object] | outcome.Error | None = None
        self.abandoned = False
        self.done = trio.Event()


class GroupCommit(Generic[W]):
    """``submit`` from any task, ``run`` in one. ``commit`` is given at least one job, in the order they came; a job
    that it leaves without an outcome, or that it raises on, ends as ``BackendUnavailable``."""

    def __init__(self, commit: Callable[[Sequence[Job[W]]], Awaitable[None]], *, name: str) -> None:
        self._commit = commit
        self._name = name
        self._send, self._receive = trio.open_memory_channel[Job[W]](QUEUE_SIZE)
        self.jobs_done = 0
        self.groups_done = 0

    async def submit(self, work: W, *, weight: int = 0) -> object:
        """What ``commit`` made of it, after it is durable. Cancelled: it may have happened all the same."""
        job = Job(work, weight)
        try:
            await self._send.send(job)
            await job.done.wait()
        except trio.ClosedResourceError:
            raise BackendUnavailable("The service is stopping") from None
        except BaseException:
            job.abandoned = True
            raise
        assert job.outcome is not None
        return job.outcome.unwrap()

    def submit_soon(self, work: W, *, weight: int = 0) -> Job[W]:
        """Hands a job in and doesn't wait. Raises ``trio.WouldBlock`` when the queue is full."""
        job = Job(work, weight)
        try:
            self._send.send_nowait(job)
        except trio.ClosedResourceError:
            raise BackendUnavailable("The service is stopping") from None
        return job

    def close(self) -> None:
        """No new jobs; ``run`` ends when the waiting ones are done."""
        self._send.close()

    async def run(self) -> None:
        """Until ``close``. A cancelled ``run`` leaves no caller waiting: their jobs end as ``BackendUnavailable``."""
        group: list[Job[W]] = []
        try:
            async for first in self._receive:
                group = self._gather(first)
                if group:
                    await self._run_group(group)
        finally:
            self._send.close()
            while True:
                try:
                    group.append(self._receive.receive_nowait())
                except (trio.WouldBlock, trio.EndOfChannel):
                    break
            self._settle(group)
            self._receive.close()

    def _gather(self, first: Job[W]) -> list[Job[W]]:
        group = [first]
        weight = first.weight
        while len(group) < GROUP_JOBS and weight < GROUP_BYTES:
            try:
                job = self._receive.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                break
            group.append(job)
            weight += job.weight
        return [job for job in group if not job.abandoned]

    async def _run_group(self, group: Sequence[Job[W]]) -> None:
        try:
            await self._commit(group)
        except Exception:  # a bug: this group's callers are told, the next group is another matter
            logger.exception("%s: a write ended unexpectedly", self._name)
        self._settle(group)
        self.jobs_done += len(group)
        self.groups_done += 1

    def _settle(self, group: Sequence[Job[W]]) -> None:
        for job in group:
            if not job.done.is_set():
                job.outcome = job.outcome or outcome.Error(BackendUnavailable())
                job.done.set()
