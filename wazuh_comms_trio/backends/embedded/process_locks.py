"""Who of the processes on one state folder is alive.

Each holds a lock on a file of its own; the kernel lets go of it however the process ends. No clock is asked.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from wazuh_comms_trio.foundation.folders import adopt, make_folder


@frozen
class Owner:
    """``token`` names this holder; it is new each time."""

    token: str
    folder: Path

    def others_gone(self, token: str) -> bool:
        """Whether the holder of ``token`` is no more; then its file is removed."""
        if token == self.token:
            return False
        path = self.folder / token
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True


@contextmanager
def hold_owner(folder: Path) -> Iterator[Owner]:
    """One who is alive while this is entered; ``folder`` is made if it isn't there. Raises ``OSError``."""
    make_folder(folder)
    _remove_dead(folder)
    owner, descriptor = _become_owner(folder)
    try:
        yield owner
    finally:
        (folder / owner.token).unlink(missing_ok=True)
        os.close(descriptor)


def _become_owner(folder: Path) -> tuple[Owner, int]:
    while True:
        token = f"{os.getpid()}-{secrets.token_hex(8)}"
        path = folder / token
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            adopt(descriptor, folder)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return Owner(token, folder), descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # taken for dead by one who tidied up, between its making and its lock


def _remove_dead(folder: Path) -> None:
    """Tidies up after those who were killed: their claims are free with or without their files."""
    nobody = Owner("", folder)
    for token in os.listdir(folder):
        nobody.others_gone(token)
