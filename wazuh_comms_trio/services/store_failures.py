"""How a task that goes on whatever happens words the failures of its store."""

from __future__ import annotations

import logging

import trio

from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.outage_log import OutageLog

__all__ = ["StoreFailures"]


class StoreFailures:
    """A store that is unavailable is an outage, logged when it begins and when it ends; anything else is an error of
    ours, logged each time. ``what`` can't be done then, in the log's words."""

    def __init__(self, logger: logging.Logger, what: str) -> None:
        self._logger = logger
        self._what = what
        self._outage = OutageLog(logger, what, clock=trio.current_time)

    def failed(self, error: Exception) -> None:
        if isinstance(error, BackendUnavailable):
            self._outage.failed(error)
        else:
            self._logger.error("%s: an error of ours", self._what, exc_info=error)

    def worked(self) -> None:
        self._outage.worked()
