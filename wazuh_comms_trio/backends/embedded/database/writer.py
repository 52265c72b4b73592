"""The writer's task: groups transactions and commits each group with one fsync.

All writes of a process go through it: APSW's async connections isolate nothing between tasks, so that a rollback of one
task would take back what another was told is done.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TypeVar, cast

import apsw
import apsw.aio
import outcome
import trio

from wazuh_comms_trio.backends.embedded.database.connections import Connections
from wazuh_comms_trio.backends.embedded.database.file_watch import FileWatch
from wazuh_comms_trio.backends.embedded.database.group_commit import GroupCommit, Job
from wazuh_comms_trio.backends.embedded.database.health import Health
from wazuh_comms_trio.backends.embedded.database.opening import in_thread
from wazuh_comms_trio.backends.embedded.database.page_cache import PageCache, shrink
from wazuh_comms_trio.backends.embedded.database.transaction import Work, Write, transact
from wazuh_comms_trio.backends.unavailable import reported
from wazuh_comms_trio.errors import BackendUnavailable, StorageFull

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Writer:
    """``write`` from any task, ``run`` in one."""

    def __init__(self, connections: Connections, watch: FileWatch, health: Health) -> None:
        self._connections = connections
        self._watch = watch
        self._health = health
        self._name = connections.path.name
        self._page_cache = PageCache()
        self._commits: GroupCommit[Write] = GroupCommit(self._commit, name=self._name)

    async def write(
        self, work: Work[T], *, weight: int = 0, durable: bool = True, urgent: bool = False, followed: bool = False
    ) -> T:
        """As ``Database.write``."""
        return cast(
            T, await self._commits.submit(Write(work, durable), weight=weight, urgent=urgent, followed=followed)
        )

    async def write_parts(self, parts: Sequence[tuple[Work[T], int]]) -> list[T | BackendUnavailable]:
        """As ``Database.write_parts``."""
        made = await self._commits.submit_parts([(Write(work, True), weight) for work, weight in parts])
        results: list[T | BackendUnavailable] = []
        for each in made:
            try:
                results.append(cast(T, each.unwrap()))
            except BackendUnavailable as exc:
                results.append(exc)
        return results

    def write_soon(self, work: Work[object], *, within: float = 0.0) -> trio.Event | None:
        """As ``Database.write_soon``."""
        try:
            return self._commits.submit_soon(Write(work, False), within=within).done
        except (trio.WouldBlock, BackendUnavailable) as exc:
            logger.debug("%s: a lesser write was left out: %r", self._name, exc)
            return None

    @property
    def commits(self) -> tuple[int, int]:
        """How many writes there were, and in how many transactions."""
        return self._commits.jobs_done, self._commits.groups_done

    async def run(self) -> None:
        """Writes until ``close`` is called, then what waits."""
        apsw.aio.deadline.set(math.inf)
        await self._commits.run()

    def close(self) -> None:
        """Nothing new is taken any more."""
        self._commits.close()

    async def _commit(self, jobs: Sequence[Job[Write]]) -> None:
        connection = self._connections.writer
        if connection is None or not self._health.usable:
            for job in jobs:
                job.outcome = outcome.Error(reported())
            return
        try:
            await in_thread(connection, self._transact, jobs, self._page_cache.is_due())
        except Exception as exc:
            error = self._health.translated(exc)
            if isinstance(error, StorageFull) and len(jobs) > 1:
                # A job that is too large for the space left must not keep out those that aren't.
                for job in jobs:
                    await self._commit([job])
                return
            for job in jobs:  # each gets one of its own: raised in several tasks it would gather their tracebacks
                job.outcome = outcome.Error(self._health.translated(exc))
        else:
            self._health.outage.worked()
            if self._connections.log.look(self._commits.resume):
                self._commits.hold()

    def _transact(self, connection: apsw.Connection, jobs: Sequence[Job[Write]], cache_is_due: bool) -> None:
        """In the writer's thread. Sets the jobs' outcomes; what it raises is the whole group's."""
        if cache_is_due:
            shrink(connection)
        self._watch.check(connection)
        self._connections.log.finish(connection)
        self._connections.sync_commits(connection, durable=any(job.work.durable for job in jobs))
        transact(connection, jobs, self._commits.lets_in)
        self._watch.check(connection)
