"""Which texts SQLite can keep: those that have a UTF-8 form. JSON's escapes and file names can make others, and a disk
that is damaged."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any


def storable(*texts: str) -> bool:
    """False when one contains half of a surrogate pair: nothing by that name can be there."""
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError:
        return False
    return True


def texts(column: Iterable[Any]) -> list[str]:
    """Of rows with one column, a text that was read as a BLOB: those that are UTF-8. A damaged one, also one that is
    NULL where there can be none, costs no other."""
    found = []
    for (raw,) in column:
        with suppress(UnicodeDecodeError):
            if isinstance(raw, bytes):
                found.append(raw.decode())
    return found
