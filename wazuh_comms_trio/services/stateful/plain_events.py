"""Events of the form that real agents write, many at a time. Pure.

Nearly all events are such: a header with nothing but its fields, and one object on the line after it. What has to be
checked is checked for all lines at once, in half the time that one event after another takes. Nothing is decided here
but that events are plain: whatever isn't of this form, sound or not, is left to the packet reader, which
reads event by event.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Final

import msgspec

from wazuh_comms_trio.backends.interfaces import DocumentOperation
from wazuh_comms_trio.foundation.bodies import Body
from wazuh_comms_trio.services.stateful.event import Event
from wazuh_comms_trio.services.stateful.event_header import PLAIN_FORMS, SHORT_ID, TYPED_FORMS, Header

__all__ = ["LONGEST_DATA", "is_plain_text", "may_name_agent", "read_plain_events"]

#: Longer data lines are merged with care for memory, one by one.
LONGEST_DATA: Final = 65536

#: How the header of an event without a data line ends, as agents write it.
_DELETE: Final = b'"operation":"delete"}'
_BRACE: Final = ord("}")


#: No value is of it: an object with such a member isn't decoded.
_Never = Annotated[int, msgspec.Meta(gt=0, lt=0)]


class _Data(msgspec.Struct, gc=False):
    """A data line without an agent of its own, and without an operation: with one it may be a header. Everything else
    in it is only checked to be JSON."""

    agent: _Never | msgspec.UnsetType = msgspec.UNSET
    operation: _Never | msgspec.UnsetType = msgspec.UNSET


_decode_headers: Final[Callable[[bytes], list[Header]]] = msgspec.json.Decoder(Header).decode_lines
_decode_data: Final[Callable[[bytes], list[_Data]]] = msgspec.json.Decoder(_Data).decode_lines


def is_plain_text(text: str) -> bool:
    """Whether a text is ASCII that stands in JSON as it is."""
    return text.isascii() and len(msgspec.json.encode(text)) == len(text) + 2


_REACHES: Final = re.compile(rb'"agent\.')  # in one go; `in` takes half as long again
_NAMES: Final = re.compile(rb'"agent')


def may_name_agent(data: bytes, *, reaching: bool = False) -> bool:
    """Whether a member's name may be ``agent`` or begin with ``agent.``, which is a way to write a member of ``agent``;
    ``reaching``: only the latter. The letters can be escaped."""
    return (_REACHES if reaching else _NAMES).search(data) is not None or (
        b"\\" in data and b"\\u00" in data and (b"\\u006" in data or b"\\u007" in data or b"\\u002" in data)
    )


def read_plain_events(
    body: Body,
    position: int,
    stop: int,
    end: int,
    *,
    prefix: bytes,
    id_prefix: str,
    max_events: int,
    own: bool = False,
) -> tuple[list[Event], list[DocumentOperation]] | None:
    """The events of ``body[:end]`` that begin at ``position`` and before ``stop``, perhaps without the last of them;
    None when one of them isn't plain, or none is whole.

    ``prefix``: what documents begin with, an object's only other member, ``agent``, and a comma. ``id_prefix`` comes
    before each id and is plain text. ``own``: the documents are the agent's alone. The operations are the events' own:
    a caller that needs only them needn't look for them in a thousand places of memory.
    """
    found = _lines(body, position, stop, end)
    if found is None:
        return None
    lines, cut = found
    try:
        if body.find(_DELETE, position, cut) >= 0:  # mostly there is none
            headers, data, complete = _told_apart(lines)
            whole = complete and cut == end
            return _read(headers, data, position, max_events, prefix, id_prefix, own=own, whole=whole)
        return _read(lines[0::2], lines[1::2], position, max_events, prefix, id_prefix, own=own, whole=True)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _lines(body: Body, position: int, stop: int, end: int) -> tuple[list[bytes], int] | None:
    """The lines that begin before ``stop`` and one more, the last event's data, or a header that is left out; and where
    they end."""
    cut = body.find(b"\n", stop - 1, end)
    if cut >= 0:
        cut = body.find(b"\n", cut + 1, end)
    if cut < 0:
        cut = end
    if cut > stop + LONGEST_DATA:
        return None
    with memoryview(body) as view:
        return bytes(view[position:cut]).split(b"\n"), cut


def _told_apart(lines: Sequence[bytes]) -> tuple[list[bytes], list[bytes | None], bool]:
    """Lines told apart into headers and the data of each: None for a delete. What only looks like one is noticed when
    it is decoded. And whether these are all the lines: a last one without data is left out, unless it is blank."""
    headers: list[bytes] = []
    data: list[bytes | None] = []
    rest = iter(lines)
    for header in rest:
        line = None
        if not header.endswith(_DELETE) and (line := next(rest, None)) is None:
            return headers, data, not header
        headers.append(header)
        data.append(line)
    return headers, data, True


def _read(
    headers: Sequence[bytes],
    data: Sequence[bytes | None],
    position: int,
    max_events: int,
    prefix: bytes,
    id_prefix: str,
    *,
    own: bool,
    whole: bool,
) -> tuple[list[Event], list[DocumentOperation]] | None:
    """``whole``: nothing that follows these lines can be the last one's data."""
    count = min(len(data), max_events + 1)  # the next header is read, too: that it isn't a delete's data
    headers, data = headers[:count], data[:count]
    try:
        decoded = _decode_headers(b"\n".join(headers))
    except msgspec.MsgspecError:
        return None  # data lines, perhaps, behind a delete
    if not decoded or len(decoded) != count or (None not in data and "delete" in [line.operation for line in decoded]):
        return None
    documents = _documents(data, prefix)
    if documents is None:
        return None
    events: list[Event] = []
    operations: list[DocumentOperation] = []
    for line, header, rest, document in zip(headers, decoded, data, documents, strict=True):
        form = PLAIN_FORMS.get((header.module, header.collector, header.operation, document is None))
        if form is None and header.collector is None:
            form = TYPED_FORMS.get((header.module, header.type, header.operation, document is None))
        event_id = header.id
        if form is None or not event_id or len(event_id) > SHORT_ID:
            return None
        index, action, marks = form
        # As long as its fields alone: then there is nothing else in the line, nothing twice, and nothing escaped. (A
        # NUL can't come but escaped.) And if that is so of each line, each header is of its line and no other.
        if len(line) != marks + len(event_id):
            return None
        end = position + len(line) if rest is None else position + len(line) + len(rest) + 1
        write = DocumentOperation(action, index, id_prefix + event_id, document, True, own)
        operations.append(write)
        events.append(Event(index, event_id, position, end, write))
        position = end + 1
    if count > max_events:
        del events[max_events:], operations[max_events:]
    elif data[-1] is None and not whole:
        events.pop()
        operations.pop()
    return (events, operations) if events else None


def _documents(data: Sequence[bytes | None], prefix: bytes) -> Sequence[bytes | None] | None:
    """The data lines with the metadata before them. None when one isn't an object with a member, on one line of its
    own, has an ``agent``, or may be a header. Raises ``MsgspecError``, ``UnicodeDecodeError``."""
    present = [line for line in data if line is not None]
    if not present:
        return data
    if max(map(len, present)) > LONGEST_DATA or not all(present):
        return None
    # Each begins an object with a member and ends one. Between "}" and "{" no JSON value goes on, so if there are as
    # many objects as lines, each line is one.
    ends = {line[-1] for line in present}
    if {line[:2] for line in present} != {b'{"'} or ends != {_BRACE}:
        return None
    joined = b"\n".join(present)
    if not joined.isascii():
        joined.decode()  # the decoder doesn't look at the encoding of what it skips
    if may_name_agent(joined, reaching=True):
        return None
    decoded = _decode_data(joined)
    if len(decoded) != len(present):
        return None
    return [None if line is None else prefix + line[1:] for line in data]
