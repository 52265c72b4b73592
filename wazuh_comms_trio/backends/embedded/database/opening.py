"""How connections to a SQLite file are opened and set."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import apsw
import apsw.aio

from wazuh_comms_trio.backends.embedded.database.log.log_check import check_log

T = TypeVar("T")

FULL_SYNC: Final = 2
#: NORMAL: consistent after any crash, durable with the next full commit.
LAZY_SYNC: Final = 1

#: Half as many writes to the log as with SQLite's own 4096 when much is stored at once, hardly more for a single event.
_PAGE_BYTES: Final = 8192
#: What the log's file may keep when a new log begins in it.
_LOG_BYTES: Final = 64 * 1024 * 1024
#: Milliseconds for which a look from outside waits for a lock.
_LOOK_TIMEOUT: Final = 5000


class BusyHandler:
    """How long a locked file is waited for, in seconds, which may change meanwhile: SQLite's busy handler. SQLite's
    own sleeps up to 100 ms at a time, which several workers on one file would feel in every hundredth request."""

    def __init__(self, limit: Callable[[], float]) -> None:
        self._limit = limit
        self._began = 0.0

    def __call__(self, tries: int) -> bool:
        """In the connection's thread, with the number of tries so far; whether there is to be another."""
        now = time.monotonic()
        if tries == 0:
            self._began = now
        if now >= self._began + self._limit():
            return False
        time.sleep(min(0.0005 * (tries + 1), 0.005))
        return True


async def open_connection(path: Path, what: str) -> apsw.AsyncConnection:
    """A connection with a thread of its own. Raises SQLite's errors."""
    controller = partial(apsw.aio.Trio, thread_name=f"{path.stem}-{what}")
    token = apsw.async_controller.set(cast(Any, controller))  # the stub misses that it is a factory
    try:
        return await apsw.Connection.as_async(str(path), apsw.SQLITE_OPEN_READWRITE)
    finally:
        apsw.async_controller.reset(token)


async def in_thread(connection: apsw.AsyncConnection, function: Callable[..., T], *args: object) -> T:
    """``function(connection, *args)`` in the connection's thread, which sees it as an ordinary one."""
    token = apsw.aio.deadline.set(math.inf)  # deadlines are trio's to enforce
    try:
        return cast(T, await connection.async_run(function, cast(apsw.Connection, connection), *args))
    finally:
        apsw.aio.deadline.reset(token)


def open_loop_reader(path: Path) -> apsw.Connection:
    """A connection for the event loop's thread; it never waits for a lock. Raises SQLite's errors."""
    connection = apsw.Connection(str(path), apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(0)
    _prepare(connection, cache_kib=4000)
    _only_read(connection)
    return connection


@contextmanager
def looking_at(path: Path) -> Iterator[apsw.Connection]:
    """A connection for one look from outside of the daemon: it waits for locks and changes nothing. Raises SQLite's
    errors, and ``OSError``."""
    is_damaged = check_log(path) > 0
    connection = apsw.Connection(str(path), apsw.SQLITE_OPEN_READWRITE)
    try:
        if is_damaged:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # or the log would be gone then
        connection.set_busy_timeout(_LOOK_TIMEOUT)
        connection.execute("PRAGMA query_only = ON")
        yield connection
    finally:
        connection.close()


def prepare_reader(connection: apsw.Connection, busy_handler: BusyHandler) -> None:
    connection.set_busy_handler(busy_handler)
    _prepare(connection)
    _only_read(connection)


def prepare_log_writer(connection: apsw.Connection) -> None:
    """It waits for no lock: whoever has it does the same."""
    connection.set_busy_timeout(0)
    _prepare(connection, cache_kib=0)


def prepare_writer(connection: apsw.Connection, busy_handler: BusyHandler) -> bool:
    """False where SQLite can't use a write-ahead log."""
    connection.set_busy_handler(busy_handler)
    _prepare(connection)
    connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")  # of a new file
    if connection.execute("PRAGMA journal_mode = WAL").get != "wal":
        return False
    set_sync(connection, FULL_SYNC)
    connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
    return True


def set_sync(connection: apsw.Connection, mode: int) -> None:
    """Outside of a transaction."""
    connection.execute(f"PRAGMA synchronous = {mode}")


def _prepare(connection: apsw.Connection, *, cache_kib: int = 16000) -> None:
    connection.execute("PRAGMA mmap_size = 0")  # a file cut short by others must be an error, not a SIGBUS
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute(f"PRAGMA cache_size = -{cache_kib}")


def _only_read(connection: apsw.Connection) -> None:
    connection.execute("PRAGMA query_only = ON")
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # opens the log
