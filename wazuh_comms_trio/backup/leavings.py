"""What killed backups and restores leave: copies as large as the state. No process has them locked."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from wazuh_comms_trio.backends.embedded.state_lock import hold_state
from wazuh_comms_trio.backends.unavailable import StateUnusable
from wazuh_comms_trio.foundation.folders import open_folder, remove_left_drafts, try_lock

__all__ = ["SCRATCH", "STAGING", "left_staging", "remove_leavings", "remove_left_scratch"]

#: Folders for copies of databases, beside a backup that is being made.
SCRATCH: Final = ".backup-"
#: Folders that a restore unpacks to, in the state.
STAGING: Final = ".restore-"

_SCRATCH_NAME: Final = re.compile(rf"{re.escape(SCRATCH)}[a-z0-9_]{{8}}")
_COPY: Final = re.compile(r"(state|quarantine)\.db(-journal|-wal|-shm)?")
_STAGING_NAME: Final = re.compile(rf"{re.escape(STAGING)}[0-9a-f]{{16}}")
_KEPT_DRAFT: Final = re.compile(r"\.replaced-[0-9TZ-]+\.backup\.[0-9a-f]{8}")


def remove_left_scratch(parent: Path) -> None:
    """Removes folders for copies that hold nothing else and that no process has locked. Raises nothing."""
    for folder in _folders(parent, _SCRATCH_NAME):
        with suppress(OSError), open_folder(folder) as opened:
            if try_lock(opened) and all(map(_COPY.fullmatch, os.listdir(opened))):
                shutil.rmtree(folder, ignore_errors=True)


def remove_leavings(state: Path) -> None:
    """Removes what a restore left in a state folder, unless one is under way or was interrupted in the middle of
    putting things in their places: that is the next restore's to finish. Raises nothing."""
    remove_left_drafts(state, _KEPT_DRAFT)
    remove_left_scratch(state)
    staging = left_staging(state)
    if staging:
        with suppress(StateUnusable), hold_state(state):  # a restore has it for itself
            for folder in staging:
                shutil.rmtree(folder, ignore_errors=True)


def left_staging(state: Path) -> list[Path]:
    """What restores have unpacked to, perhaps one that is under way; nothing else whose name begins like that."""
    return _folders(state, _STAGING_NAME)


def _folders(parent: Path, own_name: re.Pattern[str]) -> list[Path]:
    try:
        with os.scandir(parent) as entries:
            return [
                Path(entry)
                for entry in entries
                if own_name.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
            ]
    except OSError:
        return []
