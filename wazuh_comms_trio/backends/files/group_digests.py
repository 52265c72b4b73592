"""What the group files hold, as digests: nodes that serve the same agents must serve the same."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

__all__ = ["GroupDigests"]

_EXTENSIONS: Final = (".yml", ".conf")
_UNREADABLE: Final = "unreadable"


class GroupDigests:
    """Digests of the folder's ``.yml`` and ``.conf`` files. A file is read again only when its inode, size or times
    changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[tuple[int, ...], str]] = {}

    def read(self) -> Mapping[str, str]:
        """SHA-256 in hex, or ``unreadable``, by file name; empty where there is no folder. Blocks: some 10 µs a file
        that didn't change."""
        found: dict[str, tuple[tuple[int, ...], str]] = {}
        try:
            with os.scandir(self._folder) as entries:
                names = [entry.name for entry in entries if entry.name.endswith(_EXTENSIONS)]
        except OSError:
            names = []
        for name in names:
            try:
                state = os.stat(self._folder / name)
            except OSError:
                continue  # gone meanwhile, or a link to nothing: no agent gets it either
            if not stat.S_ISREG(state.st_mode):
                continue
            mark = (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
            known = self._known.get(name)
            found[name] = known if known is not None and known[0] == mark else (mark, self._digest(name))
        self._known = found
        return {name: digest for name, (_, digest) in found.items()}

    def _digest(self, name: str) -> str:
        try:
            descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return _UNREADABLE
