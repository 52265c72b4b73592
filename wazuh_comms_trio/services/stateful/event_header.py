"""The header line of a stateful event: what it is about. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Literal, TypeAlias

import msgspec

from wazuh_comms_trio.backends.state_modules import STATE_MODULES
from wazuh_comms_trio.services.metadata import has_duplicate_keys
from wazuh_comms_trio.services.stateful.json_form import NotAnObject, object_form

__all__ = [
    "COMMANDS_INDEX",
    "HEADER_LIMIT",
    "PLAIN_FORMS",
    "SHORT_ID",
    "TYPED_FORMS",
    "Header",
    "Unsound",
    "index_of",
    "needs_collector",
    "read_header",
]

COMMANDS_INDEX: Final = ".commands"

_INDICES: Final = {(row.module, row.collector): row.index for row in STATE_MODULES} | {
    ("command", None): COMMANDS_INDEX
}
#: Modules whose events name a collector.
_WITH_COLLECTOR: Final = frozenset(row.module for row in STATE_MODULES if row.collector is not None)

_Action: TypeAlias = Literal["create", "update", "delete"]
_ACTIONS: Final[tuple[_Action, ...]] = ("create", "update", "delete")


def _plain_forms(
    key: str,
) -> Iterator[tuple[tuple[str | None, str | None, str | None, bool], tuple[str, _Action, int]]]:
    for action in _ACTIONS:
        for row in STATE_MODULES:
            collector = "" if row.collector is None else f'"{key}":"{row.collector}",'
            length = len(f'{{"id":"","module":"{row.module}",{collector}"operation":"{action}"}}')
            yield (row.module, row.collector, action, action == "delete"), (row.index, action, length)


#: Headers as real agents write them, nothing but these fields, no blanks, no escapes: by module, collector, operation
#: and whether they stand without a data line, their index, the operation, and their length without the id.
PLAIN_FORMS: Final = dict(_plain_forms("collector"))
#: The same of older agents, whose headers have a ``type``.
TYPED_FORMS: Final = dict(_plain_forms("type"))
#: With any agent's uuid before it, far from the longest document id.
SHORT_ID: Final = 64

#: A header line is no longer than this (one that the fast decoder refuses takes some 60 ms then).
HEADER_LIMIT: Final = 65536


class Header(msgspec.Struct, gc=False):
    """A header line's fields, as they came; None where there is none. ``type`` is ``collector``'s older name."""

    module: str | None = None
    operation: str | None = None
    id: str | None = None
    collector: str | None = None
    type: str | None = None


class _OnlyFields(Header, gc=False, forbid_unknown_fields=True):
    """A header line without any further member."""


class Unsound(Header, gc=False):
    """A header line that can't be used; ``reason`` says why. The fields are those that could be told. ``ambiguous``:
    it may mean another document than they say."""

    reason: str = ""
    ambiguous: bool = False


_BRACE: Final = ord("{")
_END_BRACE: Final = ord("}")
_BLANKS: Final = b" \t\r\n"
#: The members that say which document is meant.
_NAMING: Final = frozenset(("module", "id", "collector", "type"))
_DUPLICATE: Final = "A key stands twice in the header line"

_decode: Final[Callable[[bytes | bytearray], Header]] = msgspec.json.Decoder(Header).decode
_decode_only: Final[Callable[[bytes | bytearray], Header]] = msgspec.json.Decoder(_OnlyFields).decode
_decode_str: Final[Callable[[bytes], str | None]] = msgspec.json.Decoder(str | None).decode


def needs_collector(module: str | None) -> bool:
    """Whether the module's index depends on the collector."""
    return module in _WITH_COLLECTOR


def index_of(header: Header) -> str | None:
    """The index of the header's documents; None for an unknown module or collector."""
    if header.module is None:
        return None
    if not needs_collector(header.module):
        return _INDICES.get((header.module, None))
    collector = header.collector if header.collector is not None else header.type
    return None if collector is None else _INDICES.get((header.module, collector))


def read_header(line: bytes, *, further: bool = True) -> Header | None:
    """None when ``line`` is no header: an object of at most ``HEADER_LIMIT`` bytes with strings ``module`` and
    ``operation``, whose other members are ``Header``'s, or any others where it may have ``further`` members. One with
    duplicate keys, wrong types of the other members, or nested too deeply is ``Unsound``."""
    if b'"operation"' not in line and b"\\u00" not in line:  # nor spelled otherwise
        return None
    if line[0] != _BRACE or line[-1] != _END_BRACE:
        line = line.strip(_BLANKS)
    if len(line) > HEADER_LIMIT:
        return None
    try:
        header = _decode(line) if further else _decode_only(line)
    except msgspec.ValidationError as exc:
        # Of a line without further members it is known now that it has some.
        return None if not further and "unknown field" in str(exc) else _read_slowly(line, further)
    except RecursionError:
        return _read_slowly(line, further)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    # Four quotation marks for each field that was found: then there is nothing else in the line, and nothing twice.
    # (Nor does the decoder look at the encoding of what it skips.)
    marks = 12 + 4 * (header.collector is not None) + 4 * (header.type is not None)
    if line.count(b'"') == marks and b"\\" not in line and header.module and header.operation and header.id:
        return header
    try:
        duplicate = has_duplicate_keys(line)
    except (ValueError, RecursionError):
        return _read_slowly(line, further)
    if header.module is None or header.operation is None:
        return None
    if not duplicate:
        return header
    return Unsound(**msgspec.structs.asdict(header), reason=_DUPLICATE, ambiguous=_is_ambiguous(line))


def _is_ambiguous(line: bytes) -> bool:
    """Whether a member that says which document is meant stands twice."""
    keys = [member.key for member in object_form(line).members if member.key in _NAMING]
    return len(set(keys)) < len(keys)


def _read_slowly(line: bytes, further: bool) -> Header | None:
    try:
        form = object_form(line)
    except NotAnObject:
        return None
    header = Unsound(reason=_DUPLICATE if form.duplicate else "", ambiguous=form.duplicate and _is_ambiguous(line))
    for member in form.members:
        if member.key not in Header.__struct_fields__:
            if not further:
                return None
            continue
        try:
            value = _decode_str(line[member.value_start : member.end])
        except (msgspec.MsgspecError, RecursionError):
            value = None
            header.ambiguous = header.ambiguous or member.key in _NAMING
            header.reason = header.reason or f"The header line's {member.key} isn't a string"
        setattr(header, member.key, value)
    if header.module is None or header.operation is None:
        return None
    header.reason = header.reason or "The header line is nested too deeply"
    return header
