"""One SQLite file, shared by all tasks of this process and with other processes.

Three connections. The *writer* belongs to one task, which groups transactions (APSW's async connections isolate nothing
between tasks: a rollback of one would take back what another was told is done). The *reader* runs what may take long.
The *glance* runs on the event loop, for single rows by key: microseconds, where a thread costs a hundred.

Faults: what SQLite can't do becomes ``BackendUnavailable`` for the callers and one line in the log. A file that was
damaged, replaced or taken away isn't written to any more (no promise would hold); its connections are closed, and
opened again when it is well. A file that is gone isn't made anew while we run: every agent would be told that it
doesn't exist.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NoReturn, TypeVar, cast

import apsw
import apsw.aio
import outcome
import trio

from wazuh_comms_trio.backends.embedded.database.faults import Fault, FileGone, fault_of, told
from wazuh_comms_trio.backends.embedded.database.file_watch import FileWatch
from wazuh_comms_trio.backends.embedded.database.group_commit import GroupCommit, Job
from wazuh_comms_trio.backends.embedded.database.opening import (
    FULL_SYNC,
    LAZY_SYNC,
    Patience,
    in_thread,
    open_connection,
    open_glance,
    prepare_reader,
    prepare_writer,
    set_sync,
    write_log_back,
)
from wazuh_comms_trio.backends.embedded.database.schema import Schema, migrate
from wazuh_comms_trio.backends.embedded.database.transaction import Work, Write, transact
from wazuh_comms_trio.backends.unavailable import StateUnusable, reported
from wazuh_comms_trio.errors import BackendUnavailable, StorageFull
from wazuh_comms_trio.foundation.folders import open_folder, try_lock
from wazuh_comms_trio.foundation.nurseries import BackgroundNursery
from wazuh_comms_trio.foundation.outage_log import QUIET, OutageLog

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds that a write waits for another process to let go of the file; the operator's tool needs milliseconds.
BUSY_TIMEOUT: Final[float] = 5.0
#: ... and while it was seen locked already.
BUSY_TIMEOUT_AGAIN: Final = 0.5

#: Seconds between looks at a file that can't be used.
RETRY_INTERVAL: Final = 0.25

#: After damage a file up to this size is checked through before it is trusted again.
CHECKED_BYTES: Final = 1024 * 1024 * 1024


class Database:
    """Use ``open_database``. ``name`` is what the log calls it."""

    def __init__(self, path: Path, schema: Schema) -> None:
        self.path = path
        self.outage = OutageLog(logger, path.name, quiet=QUIET)
        self._schema = schema
        self._commits: GroupCommit[Write] = GroupCommit(self._commit, name=path.name)
        self._writer: apsw.AsyncConnection | None = None
        self._reader: apsw.AsyncConnection | None = None
        self._glance: apsw.Connection | None = None
        self._broken = trio.Event()
        self._damaged = False
        self._watch = FileWatch(path)
        self._sync_mode = FULL_SYNC
        self._failed_look: object = None
        self._busy_timeout = BUSY_TIMEOUT
        self._is_new = True  # to us: it wasn't open yet

    # --- for the stores ------------------------------------------------------------------------------------------

    async def write(self, work: Work[T], *, weight: int = 0, durable: bool = True) -> T:
        """Runs ``work`` in a transaction, together with others' but not mixed with them: what it raises undoes only
        its own part, and goes through. Durable on return. Raises ``BackendUnavailable`` when nothing was written.

        ``durable=False`` spares the fsync: the write survives this process, not a power cut.
        """
        return cast(T, await self._commits.submit(Write(work, durable), weight=weight))

    def write_soon(self, work: Work[object]) -> trio.Event | None:
        """As ``write`` with ``durable=False``, without waiting. The event comes when it is over, None at once; nobody
        is told how it ended, but the log of a fault."""
        try:
            return self._commits.submit_soon(Write(work, False)).done
        except (trio.WouldBlock, BackendUnavailable) as exc:
            logger.debug("%s: a lesser write was left out: %r", self.path.name, exc)
            return None

    async def read(self, work: Work[T]) -> T:
        """Runs ``work`` on the reader's thread; each statement sees what was committed before it."""
        reader = self._reader
        if reader is None or self._broken.is_set():
            raise reported()
        try:
            return await in_thread(reader, work)
        except Exception as exc:
            self._raise_translated(exc)

    async def read_now(self, work: Work[T], otherwise: Work[T] | None = None) -> T:
        """As ``read`` for what needs microseconds: on this thread if that can be without waiting, else on the reader's
        (``otherwise``, when ``work`` touches what belongs to this thread)."""
        glance = self._glance
        if glance is None or self._broken.is_set():
            raise reported()
        try:
            return work(glance)
        except apsw.BusyError:
            return await self.read(otherwise or work)
        except Exception as exc:
            self._raise_translated(exc)

    @property
    def commits(self) -> tuple[int, int]:
        """How many writes there were, and in how many transactions."""
        return self._commits.jobs_done, self._commits.groups_done

    # --- opening and closing -------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Opens the file; the first time it is made if it isn't there. Raises SQLite's errors, ``FileGone``,
        ``StateUnusable``, ``OSError``; nothing stays open then."""
        if self._is_new:
            self._watch.create()
        self._watch.check_before_opening(is_new=self._is_new)
        try:
            self._writer = await open_connection(self.path, "writes")
            await in_thread(self._writer, self._prepare_writer)
            self._reader = await open_connection(self.path, "reads")
            await in_thread(self._reader, prepare_reader, Patience(lambda: self._busy_timeout))
            self._glance = open_glance(self.path)
            self._is_new = False
        except BaseException:
            await self.disconnect()
            raise

    def _prepare_writer(self, connection: apsw.Connection) -> None:
        patience = Patience(lambda: BUSY_TIMEOUT_AGAIN if self.outage.failing else self._busy_timeout)
        if not prepare_writer(connection, patience):
            raise StateUnusable(f"{self.path}: SQLite can't use a write-ahead log here (a network file system?)")
        self._sync_mode = FULL_SYNC
        if migrate(connection, self._schema):
            write_log_back(connection, "PASSIVE")
        if self._damaged and self._watch.size <= CHECKED_BYTES:
            verdict = connection.execute("PRAGMA quick_check(1)").get
            if verdict != "ok":
                raise apsw.CorruptError(str(verdict))
        self._watch.remember(connection)
        self._watch.check(connection)
        if self._broken.is_set():
            # A write, for the sake of knowing that one is possible.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE compatibility SET usable_since = usable_since")
            connection.execute("COMMIT")
            # After a failed fsync nobody knows what of the log is on the disk: what follows begins a new one.
            write_log_back(connection, "TRUNCATE")

    async def disconnect(self) -> None:
        """Closes what is open. A damaged file gets nothing written to it: its log stays beside it."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 2 * BUSY_TIMEOUT):
            glance, self._glance = self._glance, None
            if glance is not None:
                self._leave_log(glance)
                glance.close(force=True)
            reader, self._reader = self._reader, None
            writer, self._writer = self._writer, None
            for connection in (reader, writer):
                if connection is not None:
                    await in_thread(connection, self._leave_log)
                    await connection.aclose(force=True)

    def _leave_log(self, connection: apsw.Connection) -> None:
        if self._damaged:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)

    def close(self) -> None:
        """What waits is still written. A locked file isn't waited for any longer: nobody is told any more."""
        self._busy_timeout = BUSY_TIMEOUT_AGAIN
        self._commits.close()

    # --- the writer's task ---------------------------------------------------------------------------------------

    async def run_writer(self) -> None:
        """Until ``close``, then what waits is still written."""
        apsw.aio.deadline.set(math.inf)
        await self._commits.run()

    async def _commit(self, jobs: Sequence[Job[Write]]) -> None:
        writer = self._writer
        if writer is None or self._broken.is_set():
            for job in jobs:
                job.outcome = outcome.Error(reported())
            return
        try:
            await in_thread(writer, self._transact, jobs)
        except Exception as exc:
            error = self._translated(exc)
            if isinstance(error, StorageFull) and len(jobs) > 1:
                # One that is too large for what is left must not keep out those that aren't.
                for job in jobs:
                    await self._commit([job])
                return
            for job in jobs:  # each gets one of its own: raised in several tasks it would gather their tracebacks
                job.outcome = outcome.Error(self._translated(exc))
        else:
            self.outage.worked()

    def _transact(self, connection: apsw.Connection, jobs: Sequence[Job[Write]]) -> None:
        """In the writer's thread. Sets outcomes; what it raises is the whole group's."""
        self._watch.check(connection)
        sync_mode = FULL_SYNC if any(job.work.durable for job in jobs) else LAZY_SYNC
        if sync_mode != self._sync_mode:
            set_sync(connection, sync_mode)
            self._sync_mode = sync_mode
        transact(connection, jobs)
        self._watch.check(connection)

    # --- faults --------------------------------------------------------------------------------------------------

    def _raise_translated(self, exc: Exception) -> NoReturn:
        error = self._translated(exc)
        if error is exc:
            raise exc
        raise error from exc

    def _translated(self, exc: Exception) -> Exception:
        """``exc`` as the caller is to see it; the log is told, and the connections are given up if they are of no
        use."""
        if isinstance(exc, apsw.ConnectionClosedError):
            return reported()  # closed under our hands, by who also told the log
        fault = fault_of(exc)
        if fault is None:
            return exc
        logger.debug("%s: %r", self.path, exc)
        if fault.reopen:
            self._give_up(fault)
        else:
            self.outage.failed(fault.advice, kind=fault.kind, level=fault.level)
        return told(fault)

    def _give_up(self, fault: Fault) -> None:
        """The connections are of no use any more: nobody gets to them, and the recovery closes them."""
        self.outage.failed(fault.advice, kind=fault.kind, level=fault.level)
        self._damaged = self._damaged or fault.damaged
        self._broken.set()

    def give_up_for_now(self, exc: Exception) -> bool:
        """After a ``connect`` that failed: whether ``run_recovery`` may succeed later, and then everything waits for
        it."""
        fault = fault_of(exc)
        if fault is None:
            return False
        if self._watch.size > 0:
            self._is_new = False  # somebody's state stood here: if it is taken away, it isn't made anew
        self._give_up(fault)
        return True

    async def run_recovery(self) -> None:
        """Opens the file again after a fault, when it can be. Never ends."""
        while True:
            await self._broken.wait()
            self._failed_look = None
            await self.disconnect()
            while not await self._reopen():  # noqa: ASYNC110  # files announce nothing
                await trio.sleep(RETRY_INTERVAL)
            self._broken = trio.Event()
            self._damaged = False
            self.outage.worked()

    async def _reopen(self) -> bool:
        look = self._watch.look()
        if self._damaged and look == self._failed_look:
            return False  # nobody has touched it since
        try:
            self._watch.set_log_aside()
            with trio.CancelScope(shield=True):  # as in _connect
                await self.connect()
        except Exception as exc:
            self._failed_look = self._watch.look()
            fault = fault_of(exc)
            if fault is not None:
                self.outage.failed(fault.advice, kind=fault.kind, level=fault.level)
                self._damaged = self._damaged or fault.damaged
            elif isinstance(exc, StateUnusable):
                self.outage.failed(exc, kind="another database stands in its place", level=logging.ERROR)
            elif not isinstance(exc, OSError):
                raise
            return False
        return True


async def _connect(database: Database) -> None:
    """One after the other, in all processes: who makes a new file needs it for itself, and where SQLite's own waiting
    could be a deadlock it gives up at once."""
    deadline = trio.current_time() + BUSY_TIMEOUT
    with open_folder(database.path.parent) as folder:
        while not try_lock(folder) and trio.current_time() < deadline:  # noqa: ASYNC110  # locks announce nothing
            await trio.sleep(0.005)
        # Bounded by the busy timeouts. A cancelled opening would leave a thread behind, for ever.
        with trio.CancelScope(shield=True):
            await database.connect()


@asynccontextmanager
async def open_database(path: Path, schema: Schema, *, tolerant: bool = False) -> AsyncIterator[Database]:
    """The file, made if it isn't there. Raises ``StateUnusable`` when it can't be opened; ``tolerant``: only for what
    nobody but the operator can change, and after other faults everything is ``BackendUnavailable`` until they are over.
    On leaving, what was accepted is written."""
    database = Database(path, schema)
    try:
        await _connect(database)
    except StateUnusable:
        raise
    except (apsw.Error, FileGone, OSError) as exc:
        if not (tolerant and database.give_up_for_now(exc)):
            fault = fault_of(exc)
            reason = str(exc) if fault is None else f"{fault.kind} ({exc})"
            raise StateUnusable(f"{path}: {reason}") from exc
    try:
        async with BackgroundNursery() as recovery:
            recovery.start_soon(database.run_recovery)
            async with BackgroundNursery(wait=True) as writer:
                writer.start_soon(database.run_writer)
                try:
                    yield database
                finally:
                    database.close()
    finally:
        await database.disconnect()
