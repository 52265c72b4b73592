"""One document as ``_mget`` and ``_search`` give it, read on its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from wazuh_comms_trio.backends.opensearch.client.error_details import ErrorDetail
from wazuh_comms_trio.backends.opensearch.client.slices import DEEPEST, NotSliced, is_too_deep, lenient_text, members
from wazuh_comms_trio.backends.unreadable import DECODE_ERRORS, describe_decode_error, escaped
from wazuh_comms_trio.errors import DocumentUnreadable

_KEY: Final = re.compile(
    rb'("(?:[^"\\]*\.)?key"\s*+:\s*+)(?:"(?:[^"\\]++|\\.)*+"|\[[^\]]*+\]|\{[^}]*+\}|[^\s,}"]++)', re.DOTALL
)
FindProblem = Callable[[object], str | None]
"""From a document's source to why it can't be what its index is for; None: it can be."""


class Found(msgspec.Struct):
    """``source`` is None, and ``problem`` says why, where it can't be read; ``text`` is what stands there then."""

    id: str = msgspec.field(name="_id", default="")
    index: str = msgspec.field(name="_index", default="")
    found: bool = False
    source: Any = msgspec.field(name="_source", default=None)
    seq_no: int = msgspec.field(name="_seq_no", default=-1)
    primary_term: int = msgspec.field(name="_primary_term", default=-1)
    sort: list[Any] | None = None
    routing: str | None = msgspec.field(name="_routing", default=None)
    fields: dict[str, Any] | None = None
    error: ErrorDetail | None = None
    # Of no answer:
    problem: str | None = None
    text: bytes = b""

    def judged(self, find_problem: FindProblem) -> Found:
        """The document itself, with the problem of its source if there is one."""
        if self.problem is None and (why := find_problem(self.source)) is not None:
            self.problem, self.text = why, msgspec.json.encode(self.source)
        return self

    def unreadable(self) -> DocumentUnreadable:
        """The error for a document with a ``problem``. An agent's key hash isn't shown."""
        shown = _KEY.sub(rb'\1"..."', self.text).decode("utf-8", "backslashreplace")
        return DocumentUnreadable(f"{self.index}/{escaped(self.id)}", self.problem or "", shown)


class FoundText(msgspec.Struct):
    """One document whose ``source`` stays the text that it is, sound JSON or not."""

    found: bool = False
    source: msgspec.Raw = msgspec.field(name="_source", default=msgspec.Raw(b""))
    seq_no: int = msgspec.field(name="_seq_no", default=-1)
    primary_term: int = msgspec.field(name="_primary_term", default=-1)
    error: ErrorDetail | None = None


_decode: Final = msgspec.json.Decoder(Found).decode
_decode_text: Final = msgspec.json.Decoder(FoundText).decode
#: What of them no answer has, or isn't to be decoded.
_NOT_ANSWERED: Final = ("source", "problem", "text")


def read_found(raw: msgspec.Raw | bytes) -> Found:
    """Reads one document. Never raises: one that can't be read says so."""
    try:
        if not is_too_deep(raw):
            return _decode(raw)
        why = f"nested deeper than {DEEPEST} levels"
    except DECODE_ERRORS as exc:
        why = describe_decode_error(exc)
    found = Found(problem=why)
    found.text = _salvage(bytes(raw), found)
    return found


def read_found_text(raw: msgspec.Raw | bytes) -> FoundText:
    """Reads one document whose source stays text. Never raises."""
    try:
        return _decode_text(raw)
    except DECODE_ERRORS:
        found = FoundText()
        found.source = msgspec.Raw(_salvage(bytes(raw), found))
        return found


def _salvage(raw: bytes, into: Found | FoundText) -> bytes:
    """Fills ``into`` with what the answer says beside the source. Returns the source's text."""
    try:
        parts = members(raw)
    except NotSliced:
        return raw
    for field in msgspec.structs.fields(into):
        part = parts.get(field.encode_name.encode())
        if part is None or field.name in _NOT_ANSWERED:
            continue
        try:
            value = msgspec.json.decode(lenient_text(part), type=field.type)
        except (ValueError, RecursionError):
            continue
        setattr(into, field.name, value)
    return parts.get(b"_source", b"")
