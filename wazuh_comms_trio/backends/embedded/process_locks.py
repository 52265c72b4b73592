"""Which processes on one state folder are alive.

Each holds a lock on a file of its own, whose name is the lock's *token*; the kernel releases the lock however the
process ends. No clock is asked.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from attrs import frozen

from wazuh_comms_trio.foundation.folders import adopt, make_folder, remove_if_unlocked

_TOKEN: Final = re.compile(r"\d+-[0-9a-f]{16}")


@frozen
class ProcessLock:
    """``token`` names the process that holds the lock; it is new each time."""

    token: str
    folder: Path

    def has_ended(self, token: str) -> bool:
        """Whether the process that held the lock ``token`` has ended; then its file is removed. False for one's own.
        What is no token is nobody's, and no file's name."""
        if _TOKEN.fullmatch(token) is None:
            return True
        return token != self.token and _remove_if_ended(self.folder / token)


@contextmanager
def hold_process_lock(folder: Path) -> Iterator[ProcessLock]:
    """This process counts as alive while the lock is held; ``folder`` is made if it isn't there. Raises ``OSError``."""
    make_folder(folder)
    for token in filter(_TOKEN.fullmatch, os.listdir(folder)):
        _remove_if_ended(folder / token)  # of killed processes: their claims are free with or without their files
    lock, descriptor = _take_lock(folder)
    try:
        yield lock
    finally:
        (folder / lock.token).unlink(missing_ok=True)
        os.close(descriptor)


def _take_lock(folder: Path) -> tuple[ProcessLock, int]:
    while True:
        token = f"{os.getpid()}-{secrets.token_hex(8)}"
        path = folder / token
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            adopt(descriptor, folder)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return ProcessLock(token, folder), descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # another process took the file for a dead one's, before the lock was held


def _remove_if_ended(path: Path) -> bool:
    """Whether no process holds the lock on ``path``; then the file is removed. What is no file stays, and is nobody's
    lock."""
    try:
        return remove_if_unlocked(path)
    except FileNotFoundError:
        return True
