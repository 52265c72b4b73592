"""The connections to one SQLite file, opened and closed together.

The *writer* belongs to the writer's task. The *reader* has a thread, for what may take long. The *loop reader* is used
on the event loop, for single rows by key: microseconds, where a thread costs a hundred. The *log writer* writes the log
back into the file while others write.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

import apsw
import trio

from wazuh_comms_trio.backends.embedded.database.file_watch import FileWatch, MadeMark
from wazuh_comms_trio.backends.embedded.database.health import Health
from wazuh_comms_trio.backends.embedded.database.log.log_check import LogNotKept, keep_damaged_log, open_here
from wazuh_comms_trio.backends.embedded.database.log.write_back import LogWriteBack, write_log_back
from wazuh_comms_trio.backends.embedded.database.opening import (
    FULL_SYNC,
    LAZY_SYNC,
    BusyHandler,
    in_thread,
    open_connection,
    open_loop_reader,
    prepare_log_writer,
    prepare_reader,
    prepare_writer,
    set_sync,
)
from wazuh_comms_trio.backends.embedded.database.schema import Schema, migrate
from wazuh_comms_trio.backends.unavailable import StateUnusable
from wazuh_comms_trio.foundation.folders import open_folder, try_lock

#: Seconds that a write waits for another process to release the file; the operator's tool needs milliseconds.
BUSY_TIMEOUT: Final[float] = 5.0
#: ... and while an earlier write found it locked.
BUSY_TIMEOUT_IN_OUTAGE: Final = 0.5

#: Seconds until a damaged log that couldn't be kept is read again, which takes a while.
KEPT_INTERVAL: Final = 5.0

#: After damage a file up to this size is checked through before it is trusted again.
CHECKED_BYTES: Final = 1024 * 1024 * 1024


class Connections:
    """The connections; each is None between ``close`` and the next ``open``. A file is made by the first ``open``
    only: one that is gone while we run stays gone, since every agent would be told that it doesn't exist."""

    def __init__(
        self, path: Path, schema: Schema, watch: FileWatch, health: Health, made: MadeMark | None = None
    ) -> None:
        self.path = path
        self.writer: apsw.AsyncConnection | None = None
        self.reader: apsw.AsyncConnection | None = None
        self.loop_reader: apsw.Connection | None = None
        self.log = LogWriteBack(self._write_log_back, name=path.name)
        self._schema = schema
        self._watch = watch
        self._health = health
        self._made = made
        self._sync_mode = FULL_SYNC
        self._busy_timeout = BUSY_TIMEOUT
        self._may_create = True
        self._counted = False
        self._not_kept: LogNotKept | None = None
        self._look_again_at = 0.0
        self._log_writer: apsw.AsyncConnection | None = None

    async def open(self) -> None:
        """Raises SQLite's errors, ``FileGone``, ``LogNotKept``, ``StateUnusable``, ``OSError``; nothing stays open
        then."""
        if self._may_create:
            if self._made is not None:
                self._made.check()
            self._watch.create()
        self._watch.check_before_opening(is_new=self._may_create)
        try:
            await self._keep_damaged_log()
            open_here[self.path] += 1
            self._counted = True
            self.writer = await open_connection(self.path, "writes")
            await in_thread(self.writer, self._prepare_writer)
            self.reader = await open_connection(self.path, "reads")
            await in_thread(self.reader, prepare_reader, BusyHandler(lambda: self._busy_timeout))
            self._log_writer = await open_connection(self.path, "log")
            await in_thread(self._log_writer, prepare_log_writer)
            self.loop_reader = open_loop_reader(self.path)
            self._may_create = False
            if self._made is not None:
                self._made.note()
        except BaseException:
            await self.close()
            raise

    async def _keep_damaged_log(self) -> None:
        """Raises ``LogNotKept``, for a while without looking again."""
        if self._not_kept is not None and trio.current_time() < self._look_again_at:
            raise self._not_kept
        try:
            await trio.to_thread.run_sync(keep_damaged_log, self.path)
        except LogNotKept as exc:
            self._not_kept, self._look_again_at = exc, trio.current_time() + KEPT_INTERVAL
            raise
        self._not_kept = None

    async def close(self) -> None:
        """Closes the connections; nothing is written to a damaged file, whose log stays beside it."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 2 * BUSY_TIMEOUT):
            loop_reader, self.loop_reader = self.loop_reader, None
            if loop_reader is not None:
                self._keep_log_if_damaged(loop_reader)
                with suppress(apsw.Error):
                    loop_reader.close(force=True)
            reader, self.reader = self.reader, None
            writer, self.writer = self.writer, None
            log_writer, self._log_writer = self._log_writer, None
            for connection in (log_writer, reader, writer):
                if connection is not None:
                    await in_thread(connection, self._keep_log_if_damaged)
                    with suppress(apsw.Error):  # the log couldn't be written back; it is as good where it is
                        await connection.aclose(force=True)
        if self._counted:
            open_here[self.path] -= 1
            self._counted = False

    def never_create(self) -> None:
        """The file was seen: from now on one that is gone isn't made anew."""
        self._may_create = False

    def shorten_waits(self) -> None:
        """Called at the end: a locked file isn't waited for any longer than in an outage."""
        self._busy_timeout = BUSY_TIMEOUT_IN_OUTAGE

    def sync_commits(self, connection: apsw.Connection, *, durable: bool) -> None:
        """In the writer's thread, outside of a transaction: whether the next commit waits for an fsync."""
        sync_mode = FULL_SYNC if durable else LAZY_SYNC
        if sync_mode != self._sync_mode:
            set_sync(connection, sync_mode)
            self._sync_mode = sync_mode

    def _prepare_writer(self, connection: apsw.Connection) -> None:
        """In the writer's thread."""
        busy_handler = BusyHandler(
            lambda: BUSY_TIMEOUT_IN_OUTAGE if self._health.outage.failing else self._busy_timeout
        )
        if not prepare_writer(connection, busy_handler):
            raise StateUnusable(f"{self.path}: SQLite can't use a write-ahead log here (a network file system?)")
        connection.set_wal_hook(self.log.committed)  # in place of SQLite's own, which writes the log back in a commit
        self._sync_mode = FULL_SYNC
        if migrate(connection, self._schema):
            write_log_back(connection, "PASSIVE")
        if self._health.damaged and self._watch.size <= CHECKED_BYTES:
            try:
                verdict = connection.execute("PRAGMA quick_check(1)").get
            except UnicodeDecodeError as exc:  # it names what is damaged
                raise apsw.CorruptError(str(exc)) from exc
            if verdict != "ok":
                raise apsw.CorruptError(str(verdict))
        self._watch.remember(connection)
        self._watch.check(connection)
        if not self._health.usable:
            # A write, for the sake of knowing that one is possible.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE compatibility SET usable_since = usable_since")
            connection.execute("COMMIT")
            # After a failed fsync it isn't known what of the log is on the disk: later commits begin a new log.
            write_log_back(connection, "TRUNCATE")

    async def _write_log_back(self) -> int:
        connection = self._log_writer
        return 0 if connection is None else await in_thread(connection, write_log_back, "PASSIVE")

    def _keep_log_if_damaged(self, connection: apsw.Connection) -> None:
        if self._health.damaged:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)


async def open_in_turn(connections: Connections) -> None:
    """Processes open the file one after the other: the process that makes a new file needs it for itself, and where
    SQLite's own waiting could be a deadlock it gives up at once."""
    deadline = trio.current_time() + BUSY_TIMEOUT
    with open_folder(connections.path.parent) as folder:
        while not try_lock(folder) and trio.current_time() < deadline:  # noqa: ASYNC110  # locks announce nothing
            await trio.sleep(0.005)
        # Bounded by the busy timeouts. A cancelled opening would leave a thread behind, for ever.
        with trio.CancelScope(shield=True):
            await connections.open()
