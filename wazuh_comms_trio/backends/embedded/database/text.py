"""Which texts SQLite can keep: those that have a UTF-8 form. JSON's escapes and file names can make others."""

from __future__ import annotations


def storable(*texts: str) -> bool:
    """False when one contains half of a surrogate pair: nothing by that name can be there."""
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError:
        return False
    return True
