"""How entries of the audit log hang together, as pure functions: each names the hash of the line before it, counts the
seconds that the log has lived through, and ends with a checksum of itself.

Entries that an earlier version appended have none of this; the chain goes over them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any, Final
from zlib import crc32

from wazuh_comms_trio.foundation.timestamps import from_iso

DAY: Final = 86_400

#: The entry that says that the oldest part was deleted; its ``last`` is the hash of that part's last line.
DROPPED: Final = "audit drop"

_PREVIOUS: Final = b', "prev": "'
_SUM: Final = b', "sum": "'


def line_hash(line: bytes) -> str:
    """The hash of a line without its newline."""
    return sha256(line).hexdigest()


def read_entry(line: bytes) -> dict[str, Any]:
    """An entry's members; none of what isn't one."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def lived(previous: Mapping[str, Any], now: float) -> int:
    """The seconds up to an entry made ``now``: of the time since the one before a day at most, whatever the clock."""
    age, when = previous.get("age"), from_iso(str(previous.get("time")))
    if not isinstance(age, int) or when is None:
        return 0
    return age + round(min(max(0.0, now - when), DAY))


def encode(entry: Mapping[str, object], previous: bytes | None, now: float) -> bytes:
    """The line of an entry, with its newline. ``previous``: the line before it, None where there is none."""
    members = dict(entry)
    members["age"] = lived(read_entry(previous or b""), now)
    members["prev"] = "" if previous is None else line_hash(previous)
    body = json.dumps(members).encode().removesuffix(b"}")
    return b'%s%s%08x"}\n' % (body, _SUM, crc32(body))


def is_sound(line: bytes) -> bool:
    """Whether an entry that is chained is as it was written."""
    body, _, rest = line.rpartition(_SUM)
    return rest == b'%08x"}' % crc32(body)


def faults(lines: Iterable[bytes]) -> Iterator[str]:
    """What isn't right in all lines of a log, the oldest first: each with the number of its line, from 1."""
    before: set[str] = set()  # hashes that the next entry may name
    begins_with = ""
    dropped: set[str] = set()
    seen = readable = False
    for number, line in enumerate(lines, 1):
        entry = read_entry(line)
        readable = readable or bool(entry)
        previous = entry.get("prev")
        if entry.get("action") == DROPPED:
            dropped.add(str(entry.get("last")))
        if (_PREVIOUS in line or _SUM in line) and not is_sound(line):
            yield f"line {number} was changed"
        if not isinstance(previous, str):
            before.add(line_hash(line))
            continue
        if not seen and not before:
            begins_with = previous
        elif previous not in before:
            yield f"what was before line {number} was changed, or is missing"
        seen = True
        before = {line_hash(line)}
    if before and not readable:
        yield "no line of it is an entry"
    if begins_with and begins_with not in dropped:
        yield "its beginning is missing, and no entry says that it was deleted"
