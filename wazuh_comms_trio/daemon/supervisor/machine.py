"""What the supervisor has of its machine: processes, files, the log and the service manager. What it decides knows none
of them, so that another machine can stand in for this one: the simulator's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import field, frozen

from wazuh_comms_trio.config.load import LoadedConfig, load_config
from wazuh_comms_trio.config.models import Logging
from wazuh_comms_trio.daemon.key_files import read_key_files
from wazuh_comms_trio.daemon.logging.formats import set_up_logs
from wazuh_comms_trio.daemon.logging.output import check_log_file
from wazuh_comms_trio.daemon.supervisor.child import StartChild, linked_child
from wazuh_comms_trio.daemon.systemd import Notifier

__all__ = ["Machine", "read_files"]


def read_files(file: Path) -> tuple[LoadedConfig, Mapping[str, str]]:
    """The configuration, and what its keys' and certificates' files hold, by path; the log file can be written. Blocks.
    Raises ``ConfigError``, ``StartError``, ``LogFileUnusable``."""
    loaded = load_config(file)
    key_files = read_key_files(loaded.config.communications_api)
    check_log_file(loaded.config.communications_api.logging.file)
    return loaded, key_files


@frozen
class Machine:
    """``start_worker`` starts a worker's process; ``read_files`` reads, for a reload, what the function above does."""

    start_worker: StartChild = linked_child
    read_files: Callable[[Path], tuple[LoadedConfig, Mapping[str, str]]] = read_files
    set_up_logs: Callable[[Logging], None] = set_up_logs
    notifier: Notifier = field(factory=Notifier)
