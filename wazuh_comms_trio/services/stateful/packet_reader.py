"""A stateful request's body, read into events. Pure: bytes in, events out; every byte after the metadata line belongs
to one event, apart from line ends and blank lines.

    metadata line
    header line        one event each
    data line          left out where the data is ``{}``
    ...

Blank lines are skipped. After a header, whatever its operation, the next line is its data unless it is a header, too,
or the body ends: then the data is ``{}``. A delete's data is dropped. Each event stands on its own: one that can never
be taken carries the reason, and the next one begins after it. Where a header is due and isn't there, the lines up to
the next header are a *gap*, one event that can't be taken (or several, where they are many).

A line is looked at once as a header and once as data, so the time is linear in the body's length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from wazuh_comms_trio.backends.interfaces import CommandReport, CommandResult, DocumentOperation
from wazuh_comms_trio.backends.json_size import MANY, check_utf8, has_many_members, has_many_values
from wazuh_comms_trio.config.models import Events
from wazuh_comms_trio.errors import MalformedBody
from wazuh_comms_trio.foundation.bodies import Body
from wazuh_comms_trio.metrics.refusal_log import RefusalLog
from wazuh_comms_trio.services.metadata import METADATA_LIMIT, Metadata, check_agent, read_metadata
from wazuh_comms_trio.services.stateful.event import Event, Unusable
from wazuh_comms_trio.services.stateful.event_header import (
    COMMANDS_INDEX,
    HEADER_LIMIT,
    Header,
    Unsound,
    index_of,
    needs_collector,
    read_header,
)
from wazuh_comms_trio.services.stateful.lines import BLANKS, end_of, has_long_line, next_line
from wazuh_comms_trio.services.stateful.plain_events import (
    is_plain_text,
    may_name_agent,
    read_plain_events,
)
from wazuh_comms_trio.services.strict_json import is_too_deep

__all__ = ["DOCUMENT_ID_LIMIT", "GAP_LIMIT", "Event", "PacketReader", "Unusable", "open_packet"]

DOCUMENT_ID_LIMIT: Final = 512

#: A longer gap is cut, at a line's end.
GAP_LIMIT: Final = 8 * 1024 * 1024

_NO_HEADER: Final = "These lines belong to no event: where its header was due, there was none"

#: How many plain bytes could be read in the time that one byte of an unusable line may take.
_UNUSABLE_WEIGHT: Final = 64

#: Bytes of plain events that are read together, and how few when some of them turn out not to be plain.
_PLAIN_STEP: Final = 65536
_SMALL_STEP: Final = 4096

_OPERATION: Final = b'"operation"'


class _Object(msgspec.Struct, gc=False):
    """A data line that is only checked to be a JSON object."""


class _Agent(msgspec.Struct, gc=False):
    """A data line's own ``agent``."""

    agent: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Result(msgspec.Struct, gc=False):
    code: int | None = None
    message: str | None = None
    data: object = None


class _Outcome(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    result: _Result


class _Report(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """An agent may change a command's result and nothing else. Its own description is allowed to come along."""

    command: _Outcome
    agent: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_check_object: Final[Callable[[bytes | bytearray], _Object]] = msgspec.json.Decoder(_Object).decode
_decode_agent: Final[Callable[[bytes], _Agent]] = msgspec.json.Decoder(_Agent).decode
_decode_members: Final[Callable[[bytes], dict[str, msgspec.Raw]]] = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_report: Final[Callable[[bytes], _Report]] = msgspec.json.Decoder(_Report).decode

_NOT_DECODED: Final = (msgspec.MsgspecError, UnicodeDecodeError)


def open_packet(body: Body, agent_id: str, settings: Events, refusals: RefusalLog | None = None) -> PacketReader:
    """Checks the metadata line against ``agent_id``, the token's. Raises ``MalformedBody``."""
    end = end_of(body)
    if end == 0:
        raise MalformedBody("The request body is empty")
    start, first = next_line(body, 0, end)
    # One byte too many is enough to be refused for its length.
    metadata = read_metadata(bytes(body[start : min(first, start + METADATA_LIMIT + 1)]))
    check_agent(metadata, agent_id, settings.foreign_agent, refusals)
    return PacketReader(body, metadata, agent_id, first + 1, end, own_ids=settings.document_id == "agent")


class PacketReader:
    """Reads one body's events, a few at a time, so that a big one can be read with pauses and in bounded memory."""

    def __init__(
        self,
        body: Body,
        metadata: Metadata,
        agent_id: str,
        position: int,
        end: int,
        *,
        own_ids: bool,
    ) -> None:
        self.body = body
        self.metadata = metadata
        self.agent_id = agent_id
        self._first = self._position = position
        self._end = end
        self._own_ids = own_ids
        self._id_prefix = f"{agent_id}_" if own_ids else ""
        self._only_agent = metadata.keys == {"agent"}
        self._plain_prefix = metadata.prefix + b","
        self._step = _PLAIN_STEP
        self._one_by_one = not (self._only_agent and is_plain_text(self._id_prefix))
        self._careful = end if self._one_by_one else position  # up to here, at least
        self._irregular_to = position  # up to here there is something that isn't plain
        self._gap: tuple[int, int] | None = None  # where the gap that is being read begins, and its last line ends
        self._known: Header | None = None  # the next line, when it was found to be a header

    @property
    def exhausted(self) -> bool:
        return self._position >= self._end and self._gap is None

    def is_long_ahead(self, max_bytes: int) -> bool:
        """Whether ``read(..., max_bytes)`` may come to a line so long that reading it takes a while."""
        return has_long_line(self.body, self._position + max_bytes, self._end)

    def rewind(self) -> None:
        """Goes back to the first event."""
        self._position = self._first
        self._gap = self._known = None
        self._careful = self._end if self._one_by_one else self._first

    def bytes_of(self, event: Event) -> bytes:
        return bytes(self.body[event.start : event.end])

    def read(self, max_events: int, max_bytes: int, operations: list[DocumentOperation] | None = None) -> list[Event]:
        """The next events: as many as ``max_events``, and about ``max_bytes`` of body. Where lines are unusable and
        cost more to read, fewer, perhaps none yet. ``operations`` gets those of the plain ones."""
        events: list[Event] = []
        stop = min(self._end, self._position + max_bytes)
        while (self._position < stop or self._gap_is_complete) and len(events) < max_events:
            if self._position >= self._careful and self._gap is None and self._known is None:
                plain = self._read_plain(stop, max_events - len(events))
                if plain is not None:
                    events += plain[0]
                    if operations is not None:
                        operations += plain[1]
                continue
            began = self._position
            event = self._next()
            if event is not None:
                events.append(event)
            if event is None or type(event.action) is Unusable:
                stop -= (self._position - began) * _UNUSABLE_WEIGHT
        return events

    @property
    def _gap_is_complete(self) -> bool:
        return self._gap is not None and self._position >= self._end

    def _read_plain(self, stop: int, max_events: int) -> tuple[list[Event], list[DocumentOperation]] | None:
        """Some of the next events, and their operations. None where they have to be read one by one."""
        stop_at = min(stop, self._position + self._step)
        found = read_plain_events(
            self.body,
            self._position,
            stop_at,
            self._end,
            prefix=self._plain_prefix,
            id_prefix=self._id_prefix,
            max_events=max_events,
            own=self._own_ids,
        )
        if found is not None:
            self._position = found[0][-1].end + 1
            if self._position >= self._irregular_to:
                self._step = min(4 * self._step, _PLAIN_STEP)
        elif self._step > _SMALL_STEP:
            self._step, self._irregular_to = _SMALL_STEP, stop_at
        else:
            self._careful = stop_at
        return found

    def _next(self) -> Event | None:
        """The event at this place; None when one more line belongs to a gap, or nothing is left."""
        start, after, header = self._read_line(self._position, further=True)
        if header is None:
            return self._widen_gap(start, after)
        if self._gap is not None:
            self._known = header
            self._position = start
            return self._close_gap()
        index = index_of(header)
        data_start, data_end, self._known = self._read_line(after + 1, further=False)
        data = b"{}"
        if self._known is None and data_start < self._end:
            if header.operation != "delete" and type(header) is not Unsound:
                data = bytes(self.body[data_start:data_end])
            after = data_end
        self._position = after + 1
        action = self._action(header, index, data)
        document_id = self._named_document(header, index) if type(action) is Unusable else ""
        return Event(index, header.id, start, after, action, document_id)

    def _read_line(self, position: int, *, further: bool) -> tuple[int, int, Header | None]:
        """The next line that isn't blank, and the header that it is, perhaps with ``further`` members."""
        body, end = self.body, self._end
        after = body.find(b"\n", position, end)
        start = position
        if after < 0:
            after = end
        if position >= end or body[position] in BLANKS:
            start, after = next_line(body, position, end)
        if self._known is not None:  # from a look at the line after the one before
            header, self._known = self._known, None
            return start, after, header
        if body.find(_OPERATION, start, after) < 0 and body.find(b"\\u00", start, after) < 0:
            return start, after, None  # as ``read_header`` would say, without a copy
        if after - start > 2 * HEADER_LIMIT:  # a header with blanks around would be shorter
            return start, after, None
        return start, after, read_header(bytes(body[start:after]), further=further)

    def _widen_gap(self, start: int, after: int) -> Event | None:
        """The line isn't a header: it belongs to the gap, or, at the end, there is none. Returns the gap so far when
        it is complete, or would become too long."""
        complete = None
        if self._gap is not None and (start >= self._end or after - self._gap[0] > GAP_LIMIT):
            complete = self._close_gap()
        if start < self._end:
            self._gap = (self._gap[0] if self._gap is not None else start), after
        self._position = after + 1
        return complete

    def _close_gap(self) -> Event:
        assert self._gap is not None
        start, end = self._gap
        self._gap = None
        return Event(None, None, start, end, Unusable(_NO_HEADER))

    def _action(self, header: Header, index: str | None, data: bytes) -> DocumentOperation | CommandReport | Unusable:
        if type(header) is Unsound:
            return Unusable(header.reason)
        operation = header.operation
        if operation != "create" and operation != "update" and operation != "delete":
            return Unusable("Unknown operation" if operation else "The header line has no operation")
        if index is None:
            return Unusable(_index_reason(header))
        if not header.id or "\0" in header.id:
            return Unusable("The id contains a NUL" if header.id else "The header line has no id")
        if index == COMMANDS_INDEX:
            return self._report(header.id, operation, data)
        document_id = self._id_prefix + header.id
        if _is_too_long(document_id):
            return Unusable(f"The document id is longer than {DOCUMENT_ID_LIMIT} bytes")
        if operation == "delete":
            return DocumentOperation("delete", index, document_id, own=self._own_ids)
        merged = self._merge(data)
        if type(merged) is str:
            return Unusable(merged)
        return DocumentOperation(operation, index, document_id, merged, own=self._own_ids)  # type: ignore[arg-type]  # bytes: see above

    def _named_document(self, header: Header, index: str | None) -> str:
        """Which document an unusable event is about, by its id; empty where that can't be told, or there can't be such
        a one."""
        if index is None or index == COMMANDS_INDEX or not header.id or "\0" in header.id:
            return ""
        if type(header) is Unsound and header.ambiguous:
            return ""
        document_id = self._id_prefix + header.id
        return "" if _is_too_long(document_id) else document_id

    def refused_operation(self, event: Event) -> DocumentOperation:
        """Of an unusable event with a ``document_id``: it asks what the document is in its turn."""
        assert isinstance(event.action, Unusable)
        assert event.index is not None
        reason = event.action.reason
        return DocumentOperation("update", event.index, event.document_id, own=self._own_ids, refused=reason)

    def _merge(self, data: bytes) -> bytes | str:
        """One object of the metadata's members and the data line's; the reason why not as a string. The metadata's win,
        and the data line goes through as it is unless it has such a member."""
        try:
            check_utf8(data)  # the decoder doesn't look at the encoding of what it skips
            if self._only_agent and not may_name_agent(data):
                _check_object(data)
            elif self._names_metadata(data):
                if has_many_members(data):
                    return "The data line has members of the metadata line, and more others than can be told apart"
                members = _decode_members(data)
                own = {name: value for name, value in members.items() if not self._is_metadatas(name)}
                if len(own) < len(members):
                    data = msgspec.json.encode(own)
        except RecursionError:
            return "The data line is nested too deeply"
        except _NOT_DECODED as exc:
            return _data_reason(exc)
        if data[0] != 0x7B or data[-1] != 0x7D:  # { }
            data = data.strip(BLANKS)
        # Between the braces there is a member, or nothing but blanks.
        if data[1] != 0x22 and not data[1:-1].strip(BLANKS):
            return self.metadata.prefix + b"}"
        return b"".join((self.metadata.prefix, b",", memoryview(data)[1:]))

    def _names_metadata(self, data: bytes) -> bool:
        """Whether a member may be one of the metadata's; False after a look at the object itself. Raises
        ``MsgspecError``, ``RecursionError``."""
        if not self._only_agent or may_name_agent(data, reaching=True):
            return True
        return _decode_agent(data).agent is not msgspec.UNSET

    def _is_metadatas(self, name: str) -> bool:
        """Whether a member of this name would stand beside the metadata's, or, by dots, in it: a search would find the
        document by either."""
        return name.partition(".")[0] in self.metadata.keys or name in self.metadata.keys

    def _report(self, document_id: str, operation: str, data: bytes) -> CommandReport | Unusable:
        if operation != "update":
            return Unusable("Only updates of a command's result are taken")
        if len(document_id.encode()) > DOCUMENT_ID_LIMIT:
            return Unusable(f"The document id is longer than {DOCUMENT_ID_LIMIT} bytes")
        if has_many_values(data):
            return Unusable(f"A command's result has more than {MANY} values")
        try:
            result = _decode_report(data).command.result
        except RecursionError:
            return Unusable("The data line is nested too deeply")
        except msgspec.ValidationError as exc:
            return Unusable(f"Only updates of a command's result are taken: {exc}")
        except _NOT_DECODED as exc:
            return Unusable(_data_reason(exc))
        if is_too_deep(result.data):
            return Unusable("The data line is nested too deeply")
        return CommandReport(self.agent_id, document_id, CommandResult(result.code, result.message, result.data))


def _is_too_long(document_id: str) -> bool:
    return len(document_id) > 128 and len(document_id.encode()) > DOCUMENT_ID_LIMIT


def _index_reason(header: Header) -> str:
    if not header.module:
        return "The header line has no module"
    if not needs_collector(header.module):
        return "Unknown module"
    return "Unknown collector" if header.collector or header.type else "The header line has no collector"


def _data_reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "The data line is not UTF-8"
    if isinstance(error, msgspec.ValidationError):
        return "The data line is not a JSON object"
    return f"The data line is not JSON: {error}"
