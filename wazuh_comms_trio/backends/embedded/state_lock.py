"""The lock of a state folder: any number of processes at a time, or one alone that replaces it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from wazuh_comms_trio.backends.unavailable import StateUnusable
from wazuh_comms_trio.foundation.folders import adopt, make_folder

LOCK: Final = "state.lock"

#: Is there while a restore is under way: what it left when it was interrupted is no whole state.
RESTORING: Final = "restore-under-way"


def is_being_restored(folder: Path) -> bool:
    """Does a restore have the folder for itself at this moment? Makes nothing, and what can't be opened isn't."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def hold_state(folder: Path, *, alone: bool = False) -> Iterator[None]:
    """The folder is in use while this is entered; it is made if it isn't there. Raises ``StateUnusable`` when that
    can't be."""
    try:
        make_folder(folder)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as exc:
        raise StateUnusable(f"{folder}: the state can't be opened: {exc.strerror}") from exc
    try:
        adopt(descriptor, folder)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            reason = "the daemon or another tool uses it" if alone else "it is being restored"
            raise StateUnusable(f"{folder}: {reason}; try again when that has ended") from None
        if not alone and (folder / RESTORING).exists():
            raise StateUnusable(f"{folder}: a restore was interrupted; run it again")
        yield
    finally:
        os.close(descriptor)
