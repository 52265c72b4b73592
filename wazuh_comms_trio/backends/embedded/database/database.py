"""One SQLite file, shared by all tasks of this process and with other processes.

``Database`` is what stores use. Its parts: ``Connections`` opens and closes the file, ``Writer`` groups what is
written, ``Health`` says whether the file can be used, ``run_recovery`` opens it again after a fault. What SQLite can't
do becomes ``BackendUnavailable`` for the callers and one line in the log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import apsw
import trio

from wazuh_comms_trio.backends.embedded.database.connections import Connections, open_in_turn
from wazuh_comms_trio.backends.embedded.database.faults import FileGone, fault_of
from wazuh_comms_trio.backends.embedded.database.file_watch import FileWatch, MadeMark
from wazuh_comms_trio.backends.embedded.database.health import Health
from wazuh_comms_trio.backends.embedded.database.log.log_check import LogNotKept
from wazuh_comms_trio.backends.embedded.database.opening import in_thread
from wazuh_comms_trio.backends.embedded.database.page_cache import PageCache, shrink
from wazuh_comms_trio.backends.embedded.database.recovery import run_recovery
from wazuh_comms_trio.backends.embedded.database.schema import Schema
from wazuh_comms_trio.backends.embedded.database.transaction import Work
from wazuh_comms_trio.backends.embedded.database.writer import Writer
from wazuh_comms_trio.backends.unavailable import StateUnusable, reported
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.nurseries import BackgroundNursery

T = TypeVar("T")


class Database:
    """Use ``open_database``."""

    def __init__(self, connections: Connections, writer: Writer, health: Health) -> None:
        self.path = connections.path
        self._connections = connections
        self._writer = writer
        self._health = health
        self._reader_cache, self._loop_reader_cache = PageCache(), PageCache()

    async def write(
        self, work: Work[T], *, weight: int = 0, durable: bool = True, urgent: bool = False, followed: bool = False
    ) -> T:
        """Runs ``work`` in a transaction, together with others' but not mixed with them: what it raises undoes only
        its own part, and goes through. Durable on return. Raises ``BackendUnavailable`` when nothing was written.

        ``durable=False`` spares the fsync: the write survives this process, not a power cut. ``urgent``: it doesn't
        wait for more than one other write, unless others that are urgent wait, too. ``followed``: by another urgent one
        in the next turn of the event loop, which comes after it in the same transaction.
        """
        return await self._writer.write(work, weight=weight, durable=durable, urgent=urgent, followed=followed)

    async def write_parts(self, parts: Sequence[tuple[Work[T], int]]) -> Sequence[T | BackendUnavailable]:
        """As ``write``, for work that is long and can be done in parts, each with its weight: they take effect in this
        order, others' writes in between, and not all may be in one transaction. What became of each, all durable."""
        return await self._writer.write_parts(parts)

    def write_soon(self, work: Work[object], *, within: float = 0.0) -> trio.Event | None:
        """As ``write`` with ``durable=False``, without waiting. ``within``: seconds for which it may wait for other
        writes, to be in one transaction with them. The event is set when the write is over, however it ended; a fault
        is in the log only. None when the write was left out: too many wait already."""
        return self._writer.write_soon(work, within=within)

    async def read(self, work: Work[T]) -> T:
        """Runs ``work`` on the reader's thread; each statement sees what was committed before it. Raises
        ``BackendUnavailable``, and what ``work`` raises."""
        reader = self._connections.reader
        if reader is None or not self._health.usable:
            raise reported()
        try:
            if self._reader_cache.is_due():
                await in_thread(reader, shrink)
            return await in_thread(reader, work)
        except Exception as exc:
            self._health.raise_translated(exc)

    async def read_now(self, work: Work[T], otherwise: Work[T] | None = None) -> T:
        """As ``read`` for what needs microseconds: on this thread if that can be without waiting, else on the reader's
        (``otherwise``, when ``work`` touches what belongs to this thread)."""
        loop_reader = self._connections.loop_reader
        if loop_reader is None or not self._health.usable:
            raise reported()
        try:
            return self._do_now(loop_reader, work)
        except apsw.BusyError:
            return await self.read(otherwise or work)
        except Exception as exc:
            self._health.raise_translated(exc)

    def read_at_once(self, work: Work[T | None]) -> T | None:
        """As ``read_now``, if that can be without waiting; None where it can't, or fails: ``read_now`` says why."""
        loop_reader = self._connections.loop_reader
        if loop_reader is None or not self._health.usable:
            return None
        try:
            return self._do_now(loop_reader, work)
        except (apsw.Error, MemoryError):
            return None

    def _do_now(self, loop_reader: apsw.Connection, work: Work[T]) -> T:
        if self._loop_reader_cache.is_due():
            shrink(loop_reader)
        return work(loop_reader)

    @property
    def outage(self) -> str | None:
        """What is wrong with the file, or was a moment ago; None when it is well."""
        return self._health.outage.kind

    @property
    def commits(self) -> tuple[int, int]:
        """How many writes there were, and in how many transactions."""
        return self._writer.commits


@asynccontextmanager
async def open_database(
    path: Path, schema: Schema, *, tolerant: bool = False, made: MadeMark | None = None
) -> AsyncIterator[Database]:
    """The file, made if it isn't there. Raises ``StateUnusable`` when it can't be opened; ``tolerant``: only when
    the operator alone can mend it; after other faults every call raises ``BackendUnavailable`` until they are over.
    On leaving, what was accepted is written. ``made``: where it is noted that there is one."""
    watch = FileWatch(path)
    health = Health(path)
    connections = Connections(path, schema, watch, health, made)
    writer = Writer(connections, watch, health)
    try:
        await open_in_turn(connections)
    except StateUnusable:
        raise
    except (apsw.Error, FileGone, LogNotKept, OSError) as exc:
        fault = fault_of(exc)
        if not tolerant or fault is None:
            reason = str(exc) if fault is None else f"{fault.kind} ({exc})"
            raise StateUnusable(f"{path}: {reason}") from exc
        if watch.size > 0:
            connections.never_create()  # it held agents' state: if it is taken away, it isn't made anew
        health.mark_unusable(fault)
    try:
        async with BackgroundNursery() as recovery:
            recovery.start_soon(run_recovery, connections, watch, health)
            recovery.start_soon(connections.log.run)
            async with BackgroundNursery(wait=True) as writing:
                writing.start_soon(writer.run)
                try:
                    yield Database(connections, writer, health)
                finally:
                    connections.shorten_waits()
                    writer.close()
    finally:
        await connections.close()
