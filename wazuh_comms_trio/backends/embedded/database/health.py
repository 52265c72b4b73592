"""Whether a database file can be used now, and what callers and the log are told when it can't."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NoReturn

import apsw
import trio

from wazuh_comms_trio.backends.embedded.database.faults import Fault, fault_of, told
from wazuh_comms_trio.backends.unavailable import reported
from wazuh_comms_trio.foundation.outage_log import QUIET, OutageLog

logger = logging.getLogger(__name__)


class Health:
    """Shared by the parts of one ``Database``. A file is unusable from a fault after which its connections have to be
    closed, until the recovery has opened it again."""

    def __init__(self, path: Path) -> None:
        self.outage = OutageLog(logger, path.name, quiet=QUIET)
        self.damaged = False
        self._path = path
        self._unusable = trio.Event()

    @property
    def usable(self) -> bool:
        return not self._unusable.is_set()

    async def wait_unusable(self) -> None:
        await self._unusable.wait()

    def report(self, fault: Fault) -> None:
        """Logs the fault, once in an outage, and keeps in mind what it says of the file."""
        self.outage.failed(fault.advice, kind=fault.kind, level=fault.level)
        self.damaged = self.damaged or fault.damaged

    def mark_unusable(self, fault: Fault) -> None:
        """No caller gets to the connections any more; the recovery closes them."""
        self.report(fault)
        self._unusable.set()

    def mark_usable(self) -> None:
        """The file is open again, and was found well."""
        self._unusable = trio.Event()
        self.damaged = False
        self.outage.worked()

    def translated(self, exc: Exception) -> Exception:
        """The error as the caller is to see it: a fault of the store becomes ``BackendUnavailable``, is logged, and may
        make the file unusable; the caller's own error is returned as it is."""
        if isinstance(exc, apsw.ConnectionClosedError):
            return reported()  # the recovery closed it, and the fault that made it do so was logged
        fault = fault_of(exc)
        if fault is None:
            return exc
        logger.debug("%s: %r", self._path, exc)
        if fault.reopen:
            self.mark_unusable(fault)
        else:
            self.outage.failed(fault.advice, kind=fault.kind, level=fault.level)
        return told(fault)

    def raise_translated(self, exc: Exception) -> NoReturn:
        error = self.translated(exc)
        if error is exc:
            raise exc
        raise error from exc
