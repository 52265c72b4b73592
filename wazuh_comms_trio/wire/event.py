"""Events for analysisd: ``<queue char>:<location>:<message>``, one per datagram.

In the location ``:`` is written ``|:`` and ``|`` is written ``||``; the message isn't escaped. analysisd silently
cuts what is longer than 65535 bytes and fails on less than 4, so both are refused here, as is a header that would be
read differently from what it says.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from wazuh_comms_trio.errors import EventTooLarge, MessageInvalid
from wazuh_comms_trio.wire.text_rules import check_text

MAX_EVENT_BYTES: Final[int] = 65535

#: queue char -> what it stands for
QUEUES: Final[dict[str, str]] = {
    "1": "local file",
    "2": "syslog",
    "3": "hostinfo",
    "4": "secure",
    "5": "dbsync",
    "8": "syscheck",
    "9": "rootcheck",
    "d": "syscollector",
    "e": "ciscat",
    "f": "winevt",
    "p": "sca",
    "u": "upgrade",
}

_LOCATION: Final = re.compile(r"(?:[^|:\0\r\n]|\|[|:])+\Z")
_ENDS_LINE: Final = re.compile(r"[\0\r\n]")


def escape_location(location: str) -> str:
    """A location as it must stand in the header. 1012 when it is empty or has a NUL or the end of a line in it."""
    check_text(location, "a location")
    if not location:
        raise MessageInvalid(1012, "the location is empty")
    if found := _ENDS_LINE.search(location):
        raise MessageInvalid(1012, f"the location has {found.group()!r} at {found.start()}")
    return location.replace("|", "||").replace(":", "|:")


def unescape_location(location: str) -> str:
    """The location as it was meant."""
    return re.sub(r"\|([|:])", r"\1", location)


def create_event_header(queue: str, location: str) -> str:
    """``<queue>:<location>:`` with the location escaped. 1012 for a queue that analysisd doesn't know."""
    if not isinstance(queue, str) or queue not in QUEUES:
        raise MessageInvalid(1012, f"{queue!r:.60} is no queue of analysisd: {' '.join(QUEUES)}")
    return f"{queue}:{escape_location(location)}:"


def check_event_header(msg_header: object) -> str:
    """A header that is ready: a known queue char, a location without bare ``:`` or ``|``, and nothing after the last
    ``:``.
    """
    if not isinstance(msg_header, str):
        raise MessageInvalid(1012, f"an event's header is text, not {type(msg_header).__name__}")
    return _checked_header(msg_header)


@lru_cache(maxsize=256)  # a program's events come from a few places
def _checked_header(msg_header: str) -> str:
    queue, location = msg_header[:1], msg_header[2:-1]
    if msg_header[1:2] != ":" or msg_header[-1:] != ":" or not location:
        raise MessageInvalid(1012, f"{msg_header!r:.60} is no event header: '<queue char>:<location>:'")
    if queue not in QUEUES:
        raise MessageInvalid(1012, f"{queue!r} is no queue of analysisd: {' '.join(QUEUES)}")
    if found := _ENDS_LINE.search(location):
        raise MessageInvalid(1012, f"the event's location has {found.group()!r} at {found.start()}")
    if not _LOCATION.match(location):
        raise MessageInvalid(
            1012, f"the event's location {location!r:.60} isn't escaped: ':' is written '|:' and '|' is written '||'"
        )
    return msg_header


def encode_event(msg_header: str, msg: str, limit: int = MAX_EVENT_BYTES) -> bytes:
    """The datagram: header and message joined as they are, after checking.

    1012 for a header of another form, a message that is empty, no text or has a NUL (where the reader stops);
    :class:`EventTooLarge` (1012 too) above ``limit`` bytes, or above the 65535 that analysisd reads. A message may have
    several lines: one datagram is one event.
    """
    check_event_header(msg_header)
    if not isinstance(msg, str):
        raise MessageInvalid(1012, f"an event's message is text, not {type(msg).__name__}")
    if not msg:
        raise MessageInvalid(1012, "the event's message is empty")
    if "\0" in msg:
        raise MessageInvalid(1012, f"the event's message has a NUL at {msg.index(chr(0))}, where its reader stops")
    try:
        datagram = f"{msg_header}{msg}".encode()
    except UnicodeEncodeError as exc:
        raise MessageInvalid(1012, f"the event can't be written in UTF-8: {exc}") from exc
    if len(datagram) > limit or len(datagram) > MAX_EVENT_BYTES:
        raise EventTooLarge(1012, f"{len(datagram)} bytes, at most {min(limit, MAX_EVENT_BYTES)} are taken")
    return datagram
