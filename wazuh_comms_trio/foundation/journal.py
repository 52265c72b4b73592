"""systemd's journal: does it read a stream, and how a line says its priority there.

Facts: systemd.exec(5) (``$JOURNAL_STREAM``), sd-daemon(3).
"""

from __future__ import annotations

import os
from typing import Final, TextIO

ERROR: Final = 3
WARNING: Final = 4


def is_journal(stream: TextIO | None) -> bool:
    """Whether systemd's journal reads this stream. (``JOURNAL_STREAM`` names its device and inode.)"""
    if stream is None:
        return False
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def with_priority(priority: int, text: str) -> str:
    """``text`` as the journal reads it: each line begins with its syslog priority (``<3>``)."""
    return "\n".join(f"<{priority}>{line}" for line in text.split("\n"))
