"""The embedded engine: events are kept in rotated NDJSON files.

What comes at the same time shares one write and one fsync. A body is stored whole or not at all for every reader,
however the process ends. There is no scanner here: a scan's answer is 200 with an empty body.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from math import inf
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final, TypeVar

import outcome
import trio

from wazuh_comms_trio.backends.embedded.database.database import Database
from wazuh_comms_trio.backends.embedded.database.group_commit import GroupCommit, Job
from wazuh_comms_trio.backends.embedded.ndjson.folder_id import watch_folder
from wazuh_comms_trio.backends.embedded.ndjson.records import envelope_room
from wazuh_comms_trio.backends.embedded.ndjson.scrub import tell_damage
from wazuh_comms_trio.backends.embedded.ndjson.segments import (
    Appended,
    QuotaReached,
    Segments,
    ShareReached,
    is_full,
    looks_full,
    segment_files,
    take_in_segments,
)
from wazuh_comms_trio.backends.embedded.ndjson.spool import MEMORY_BYTES, LargeBody, remove_stale
from wazuh_comms_trio.backends.event_lines import find_bad_line
from wazuh_comms_trio.backends.interfaces import BodyRefused, ConsumedBody, EngineReply
from wazuh_comms_trio.backends.unavailable import StateUnusable, reported
from wazuh_comms_trio.config.models import EmbeddedEvents
from wazuh_comms_trio.errors import BackendUnavailable, EngineRefused, StorageFull
from wazuh_comms_trio.foundation.aligned_timer import sleep_until_next_tick
from wazuh_comms_trio.foundation.file_writes import sync, write_all
from wazuh_comms_trio.foundation.folders import make_folder
from wazuh_comms_trio.foundation.nurseries import BackgroundNursery
from wazuh_comms_trio.foundation.outage_log import QUIET, OutageLog

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Threads that take large bodies from memory to the disk. Not trio's shared ones, where other slow work would hold them
#: up; small bodies have a thread to themselves.
_SPOOLING_AT_ONCE: Final = 8

#: Large bodies that are checked and synced at a time: each has the disk and, between reads, a processor to itself.
_LARGE_AT_ONCE: Final = 2

#: What a probe writes, where it has to, into a file without a name, and what room it wants in the quota: where bodies
#: are refused seldom nothing is left of that.
_PROBE_BYTES: Final = 65536

#: Seconds between two counts of the agents, and for which one is believed where a body depends on it.
_COUNT_INTERVAL: Final = 60.0
_COUNT_VALID: Final = 1.0

#: Seconds between two lines in the log about one agent's share.
_REPEAT_WARNING: Final = 600.0

Part = Appended | LargeBody

#: How many agents are enrolled. Raises ``BackendUnavailable``.
CountAgents = Callable[[], Awaitable[int]]


class NdjsonEngine:
    """``Engine``. Use ``open_engine``."""

    keeps_refused = True

    def __init__(
        self,
        folder: Path,
        settings: EmbeddedEvents,
        *,
        wall_clock: Callable[[], float],
        count_agents: CountAgents | None = None,
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._now = wall_clock
        self._usual = max(1, min(_PROBE_BYTES, settings.max_bytes // 16))
        self.outage = OutageLog(logger, "events", quiet=QUIET)
        self._segments = Segments(folder, settings, wall_clock=wall_clock, logger=logger)
        self._commits: GroupCommit[Part] = GroupCommit(self._commit, name="events")
        self._one = trio.CapacityLimiter(1)
        self._spooling = trio.CapacityLimiter(_SPOOLING_AT_ONCE)
        self._large = trio.CapacityLimiter(_LARGE_AT_ONCE)
        self._warned_at: dict[str, float] = {}  # at most the agents' number
        self._count_agents = count_agents
        self._counted_at = -inf  # on trio's clock
        self._waiting = Counter[str]()  # by agent, what small bodies that aren't written yet take

    async def send_events(self, body: AsyncIterable[bytes], *, agent_id: str, length: int | None) -> None:
        held: list[bytes] = []
        held_bytes = 0
        large: LargeBody | None = None
        try:
            if length is not None and length > MEMORY_BYTES:
                await self._check_room(agent_id, length)
            async for chunk in body:
                held.append(chunk)
                held_bytes += len(chunk)
                if held_bytes > MEMORY_BYTES:
                    if large is None:
                        large = await self._blocking(LargeBody, self._folder, agent_id)
                    await self._spool(large, held, held_bytes)
                    held, held_bytes = [], 0
            if large is None:
                whole = b"".join(held)
                if whole:
                    await self._submit(Appended(agent_id, whole))
            else:
                await self._spool(large, held, held_bytes)
                held = []
                await self._blocking(large.finish, self._now(), limiter=self._large)
                # Until this is settled its descriptor is in use elsewhere. One turn of the disk, as the calls above.
                with trio.CancelScope(shield=True):
                    await self._commits.submit(large)
        except EngineRefused as exc:
            rest = b"".join(held)
            raise BodyRefused(
                exc.message, ConsumedBody(None, 0, 0, rest) if large is None else large.consumed(rest)
            ) from exc
        finally:
            if large is not None:
                large.close()

    async def _submit(self, small: Appended) -> None:
        self._check_size(small.room)
        agent_id = small.agent_id
        self._waiting[agent_id] += small.room
        try:
            await self._count_anew(agent_id, self._waiting[agent_id])  # they may be judged together
            await self._commits.submit(small, weight=len(small.body))
        finally:
            self._waiting[agent_id] -= small.room
            if not self._waiting[agent_id]:
                del self._waiting[agent_id]

    async def _spool(self, large: LargeBody, pieces: list[bytes], length: int) -> None:
        self._check_size(large.size + length)  # with its envelope
        await self._count_anew(large.agent_id, length)
        await self._blocking(self._write, large, pieces, length)

    def _write(self, large: LargeBody, pieces: list[bytes], length: int) -> None:
        """In a thread."""
        room = length if large.body_bytes else length + large.size  # that of its envelope is in the file from now on
        self._segments.take_room(large.agent_id, room)
        large.write(pieces)

    async def usage(self) -> tuple[int, int]:
        """How many bytes the segments take, and how many they may. Raises ``BackendUnavailable``."""
        return await self._blocking(self._segments.size), self._settings.max_bytes

    async def probe(self) -> None:
        """Checks whether the quota has room for a body, and after a fault or on a disk that looks full whether the
        folder can be written to: also a worker that has tried no write yet says that."""
        try:
            await self._blocking(self._try)
        except BackendUnavailable as exc:
            kind = self.outage.kind or exc.message
            raise BackendUnavailable(kind.replace(str(self._folder), "its folder")) from exc

    def _try(self) -> None:
        try:
            self._segments.check_room("", 1)
            is_short = not self._has_usual_room()
            if self.outage.failing or looks_full(self._folder, _PROBE_BYTES):
                with TemporaryFile(dir=self._folder) as file:
                    write_all(file.fileno(), bytes(_PROBE_BYTES))
                    sync(file.fileno())
                if not is_short:
                    self.outage.worked()
        except (OSError, QuotaReached) as exc:
            raise self._translated(exc) from exc
        if is_short:  # what is small finds room yet: the log is told when a body doesn't
            raise BackendUnavailable("the quota is reached")

    def _has_usual_room(self) -> bool:
        try:
            self._segments.check_room("", min(self._usual, self._segments.shares.limit))  # no agent's is larger
        except QuotaReached:
            return False
        return True

    async def scan(self, request: bytes) -> EngineReply:
        return EngineReply(200, b"")

    def remove_stale(self) -> None:
        """Forgets what was noted of segments that are gone. Raises ``OSError``."""
        self._segments.shares.remove_stale(segment.path.name for segment in segment_files(self._folder))

    @property
    def commits(self) -> tuple[int, int]:
        """How many bodies there were, and in how many groups they were synced."""
        return self._commits.jobs_done, self._commits.groups_done

    def close(self) -> None:
        self._commits.close()

    async def run(self) -> None:
        """Writes until ``close`` is called, then what waits."""
        try:
            await self._commits.run()
        finally:
            self._segments.rotate()

    async def _check_room(self, agent_id: str, length: int) -> None:
        """Refuses a large body before it comes, if there is no room to keep it."""
        self._check_size(envelope_room(agent_id) + length)
        await self._count_anew(agent_id, length)
        await self._blocking(self._segments.check_room, agent_id, length)

    def _check_size(self, room: int) -> None:
        if room > self._settings.max_bytes:
            raise EngineRefused(f"larger than all events may be together ({self._settings.max_bytes} bytes)")

    async def _blocking(
        self, function: Callable[..., T], *args: object, limiter: trio.CapacityLimiter | None = None
    ) -> T:
        try:
            return await trio.to_thread.run_sync(partial(function, *args), limiter=limiter or self._spooling)
        except (OSError, QuotaReached) as exc:
            raise self._translated(exc) from exc

    async def _commit(self, jobs: Sequence[Job[Part]]) -> None:
        try:
            await trio.to_thread.run_sync(self._store, jobs, limiter=self._one)
        except (OSError, QuotaReached) as exc:
            rest = [job for job in jobs if job.outcome is None]
            error = self._translated(exc)
            if isinstance(error, StorageFull) and len(rest) > 1:
                # A body that is too large for the room left must not keep out those that aren't.
                for job in rest:
                    await self._commit([job])
                return
            for job in rest:
                job.outcome = outcome.Error(self._translated(exc))
        else:
            self.outage.worked()

    def _store(self, jobs: Sequence[Job[Part]]) -> None:
        """In a thread. Sets the outcome of each job that is settled; what it raises is the others'."""
        added = Counter[str]()  # by agent, what these bodies take
        small: list[Job[Part]] = []
        bodies: list[Appended] = []
        for job in jobs:
            if isinstance(job.work, LargeBody):
                self._segments.publish(job.work.file, job.work.agent_id, job.work.size)
                job.outcome = outcome.Value(None)
                continue
            fault = find_bad_line(job.work.body)
            if fault is not None:
                job.outcome = outcome.Error(EngineRefused(fault))
                continue
            agent_id = job.work.agent_id
            try:
                self._segments.check_share(agent_id, added[agent_id] + job.work.room)
            except ShareReached as exc:
                job.outcome = outcome.Error(self._translated(exc))
                continue
            added[agent_id] += job.work.room
            small.append(job)
            bodies.append(job.work)
        while bodies:
            count = self._segments.append(bodies)
            for job in small[:count]:
                job.outcome = outcome.Value(None)
            del small[:count], bodies[:count]

    def _translated(self, exc: OSError | QuotaReached) -> BackendUnavailable:
        """The error for the caller; the cause is logged, once in an outage."""
        if isinstance(exc, ShareReached):
            self._warn_of_share(exc)
            return reported(StorageFull)
        if isinstance(exc, QuotaReached):
            limit = self._settings.max_bytes
            advice = f"events get 503 until some of the {limit} bytes in {self._folder} are removed"
            if self._settings.on_full == "delete_oldest":  # the others were deleted
                advice = f"events get 503 while what is being written has all {limit} bytes in {self._folder}"
            self.outage.failed(advice, kind="the quota is reached", level=logging.ERROR)
            return reported(StorageFull)
        if is_full(exc):
            self.outage.failed("events get 503 until there is room", kind="the disk is full", level=logging.ERROR)
            return reported(StorageFull)
        self.outage.failed(
            f"events get 503 until that works ({exc.strerror})",
            kind=f"can't write to {self._folder}",
            level=logging.ERROR,
        )
        return reported()

    def _warn_of_share(self, exc: ShareReached) -> None:
        now = time.monotonic()
        if now - self._warned_at.get(exc.agent_id, -_REPEAT_WARNING) >= _REPEAT_WARNING:
            self._warned_at[exc.agent_id] = now
            logger.warning(
                "events: agent %s has filled its share of %d bytes: its events get 503 until some in %s are removed",
                exc.agent_id,
                exc.limit,
                self._folder,
            )

    async def follow_agents(self) -> None:
        """Until cancelled: an agent's share depends on how many there are."""
        while True:
            await self._count()
            await sleep_until_next_tick(_COUNT_INTERVAL)

    async def _count_anew(self, agent_id: str, length: int) -> None:
        """Before ``length`` bytes of an agent are judged by a number of agents that may have grown: of a large fleet,
        or where the agent has little, it makes no difference."""
        is_fresh = self._segments.shares.agents and trio.current_time() - self._counted_at < _COUNT_VALID
        if not is_fresh and self._segments.depends_on_agents(agent_id, length):
            await self._count()

    async def _count(self) -> None:
        if self._count_agents is not None:
            with suppress(BackendUnavailable):
                self._segments.shares.agents = await self._count_agents()
                self._counted_at = trio.current_time()


@asynccontextmanager
async def open_engine(
    folder: Path,
    settings: EmbeddedEvents,
    *,
    wall_clock: Callable[[], float] = time.time,
    checked: bool = False,
    count_agents: CountAgents | None = None,
    database: Database | None = None,
) -> AsyncIterator[NdjsonEngine]:
    """The engine on ``folder``, which is made if it isn't there. Raises ``StateUnusable``. What was accepted is written
    before this ends. ``checked``, for a daemon: what is there is read through meanwhile, and the log told of damage.
    ``count_agents``: None where no agent's share is limited. ``database``, for a daemon: it knows whose folder this
    is."""
    try:
        make_folder(folder)
        remove_stale(folder)
        with suppress(OSError):  # without its ledger, a folder is as good as one of an earlier version
            take_in_segments(folder)
    except OSError as exc:
        raise StateUnusable(f"{folder}: events can't be kept here: {exc.strerror}") from exc
    engine = NdjsonEngine(folder, settings, wall_clock=wall_clock, count_agents=count_agents)
    with suppress(OSError):
        engine.remove_stale()
    async with BackgroundNursery() as looking, BackgroundNursery(wait=True) as nursery:
        nursery.start_soon(engine.run)
        if checked:
            looking.start_soon(tell_damage, folder)
        if database is not None:
            looking.start_soon(watch_folder, folder, database)
        if count_agents is not None:
            looking.start_soon(engine.follow_agents)
        try:
            yield engine
        finally:
            engine.close()
