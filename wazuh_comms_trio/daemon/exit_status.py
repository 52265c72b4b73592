"""How the daemon ends: exit statuses, and the line in the log that says why."""

from __future__ import annotations

import logging
from typing import Final

from wazuh_comms_trio.backends.unavailable import StateForeign
from wazuh_comms_trio.daemon.bound_sockets import StartError
from wazuh_comms_trio.errors import WazuhException
from wazuh_comms_trio.foundation.nurseries import exceptions_of

__all__ = ["EXIT_BAD_CONFIGURATION", "EXIT_FAILED", "EXIT_OK", "BadConfiguration", "report_failure"]

logger = logging.getLogger(__name__)

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_BAD_CONFIGURATION: Final = 78


class BadConfiguration(StartError):
    """Raised for what is wrong with a configuration and only shows when it is used: exit status 78."""


def report_failure(error: Exception) -> int:
    """Logs why the daemon ends, a line a reason, and returns the exit status: 78 for what trying again can't change.
    What has a name needs no traceback."""
    reasons = list(exceptions_of(error))
    for reason in reasons:
        if isinstance(reason, StartError):
            logger.critical("%s", reason)
        elif isinstance(reason, WazuhException):
            logger.critical("%s", reason.message)
        else:
            logger.critical("the daemon failed: %r", reason, exc_info=reason)
    if any(isinstance(reason, (BadConfiguration, StateForeign)) for reason in reasons):
        return EXIT_BAD_CONFIGURATION
    return EXIT_FAILED
