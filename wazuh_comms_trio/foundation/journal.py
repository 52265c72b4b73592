"""Lines that people read, on a terminal or in systemd's journal: texts of others in them, does the journal read a
stream, and how a line says its priority there.

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


def printable(text: str) -> str:
    """A text on one line, without anything that a terminal acts on: control characters, and those that change the order
    in which a line is read or have no width, are escaped. Names, ids and events come from anybody."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
