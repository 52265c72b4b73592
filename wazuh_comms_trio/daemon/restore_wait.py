"""A start in the middle of a restore waits for its end: the service manager may start the daemon at any moment, for the
first agent that connects."""

from __future__ import annotations

import logging
import time
from typing import Final

from wazuh_comms_trio.backends.embedded.state_lock import is_being_restored
from wazuh_comms_trio.backup.leavings import remove_leavings
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.daemon.systemd import Notifier
from wazuh_comms_trio.quarantine.opening import quarantine_folder

__all__ = ["wait_for_restore"]

logger = logging.getLogger(__name__)

#: Seconds between two looks, and what the service manager is asked for with each.
INTERVAL: Final = 0.2
MORE_TIME: Final = 30.0


def wait_for_restore(config: Config) -> None:
    """Blocks, before the event loop is there; a signal ends the process meanwhile. A restore takes as long as it
    takes: the service manager hears that we wait for it."""
    folders = [quarantine_folder(config)]
    if config.communications_api.backend == "embedded":
        folders.insert(0, config.communications_api.embedded.path)
    notifier = Notifier()
    waited = False
    while (busy := next((folder for folder in folders if is_being_restored(folder)), None)) is not None:
        if not waited:
            logger.warning("%s is being restored; waiting for the end of that", busy)
            notifier.status(f"{busy} is being restored; waiting for the end of that")
            waited = True
        notifier.extend_timeout(MORE_TIME)
        time.sleep(INTERVAL)
    if waited:
        logger.info("the restore has ended")
    remove_leavings(config.communications_api.embedded.path)
