"""What SQLite's errors mean here: whose fault, what the caller is told, what the log says. Pure."""

from __future__ import annotations

import logging
from typing import Final

import apsw
from attrs import frozen

from wazuh_comms_trio.backends.embedded.database.log.log_check import LogNotKept
from wazuh_comms_trio.backends.unavailable import StateUnusable as StateUnusable
from wazuh_comms_trio.backends.unavailable import reported
from wazuh_comms_trio.errors import BackendUnavailable, StorageFull


class FileGone(Exception):
    """The database's file is not the one that was opened, or was damaged from outside. The text says how. Not
    ``damaged``: what the open connections hold can and should still be written back."""

    def __init__(self, text: str, *, damaged: bool = True) -> None:
        super().__init__(text)
        self.damaged = damaged


@frozen
class Fault:
    """``reopen``: the connections are of no use any more. ``damaged``: don't write back what they hold."""

    kind: str
    advice: str
    error: type[BackendUnavailable] = BackendUnavailable
    reopen: bool = False
    damaged: bool = False
    level: int = logging.ERROR


_REFUSED: Final = "requests that need it get 503 until"

_LOCKED: Final = Fault("locked by another program", f"{_REFUSED} it lets go", level=logging.WARNING)
_FULL: Final = Fault("the disk is full", f"{_REFUSED} there is room", error=StorageFull)
_DAMAGED: Final = Fault("the database is damaged", f"{_REFUSED} it is restored", reopen=True, damaged=True)
_READ_ONLY: Final = Fault("the database can't be written to", f"{_REFUSED} its permissions allow it", reopen=True)
_IO: Final = Fault("the disk reports errors", f"{_REFUSED} it can be read and written", reopen=True)
_CANT_OPEN: Final = Fault("the database can't be opened", f"{_REFUSED} it can", reopen=True)
_MEMORY: Final = Fault("out of memory", f"{_REFUSED} there is some")
_STOPPED: Final = Fault("interrupted", f"{_REFUSED} the next try", level=logging.DEBUG)

_FAULTS: Final[tuple[tuple[type[Exception], Fault], ...]] = (
    (apsw.BusyError, _LOCKED),
    (apsw.LockedError, _LOCKED),
    (apsw.ProtocolError, _LOCKED),
    (apsw.FullError, _FULL),
    (apsw.CorruptError, _DAMAGED),
    (apsw.NotADBError, _DAMAGED),
    (apsw.FormatError, _DAMAGED),
    (apsw.SQLError, _DAMAGED),  # our own tables are not there: another file stands in its place
    (apsw.SchemaChangeError, _DAMAGED),
    (apsw.ReadOnlyError, _READ_ONLY),
    (apsw.PermissionsError, _READ_ONLY),
    (apsw.IOError, _IO),
    (apsw.CantOpenError, _CANT_OPEN),
    (apsw.NoMemError, _MEMORY),
    (MemoryError, _MEMORY),
    (apsw.InterruptError, _STOPPED),
)


def fault_of(exc: BaseException) -> Fault | None:
    """The fault of the store behind ``exc``; None when it is the caller's own error."""
    if isinstance(exc, FileGone):
        return Fault(str(exc), f"{_REFUSED} it is back", reopen=True, damaged=exc.damaged)
    if isinstance(exc, LogNotKept):
        return Fault(str(exc), f"{_REFUSED} there is room for it", reopen=True)
    for kind, fault in _FAULTS:
        if isinstance(exc, kind):
            return fault
    return None


def told(fault: Fault) -> BackendUnavailable:
    """What the caller gets: no paths, no details; the log has them."""
    return reported(fault.error)
