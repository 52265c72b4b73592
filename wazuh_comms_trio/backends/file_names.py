"""What a file's name may be, before anything is looked at on disk."""

from __future__ import annotations

from wazuh_comms_trio.errors import FileNameHasFolders


def check_name(name: str) -> None:
    """Raises ``FileNameHasFolders`` for a name that could lead out of its folder."""
    if "/" in name or ".." in name or "\0" in name:
        raise FileNameHasFolders
