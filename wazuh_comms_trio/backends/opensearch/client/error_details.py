"""What an indexer says of what it refuses, of one item or of a whole request."""

from __future__ import annotations

from typing import Final

import msgspec

from wazuh_comms_trio.backends.opensearch.client.slices import lenient_text
from wazuh_comms_trio.backends.unreadable import DECODE_ERRORS
from wazuh_comms_trio.http.client.connection import HttpReply

__all__ = ["LONGEST_REASON", "ErrorDetail", "describe", "error_of"]

#: Of an error, characters.
LONGEST_REASON: Final = 1000


class ErrorDetail(msgspec.Struct):
    """OpenSearch's ``error`` object, of an item or of a whole request. A reason quotes what it is about, a whole field
    for one: it is cut, as it goes to the agent, the quarantine and the log."""

    type: str = ""
    reason: str | None = ""
    caused_by: msgspec.Raw = msgspec.Raw(b"")

    def __post_init__(self) -> None:
        self.type = self.type[:LONGEST_REASON]
        if self.reason is not None and len(self.reason) > LONGEST_REASON:
            self.reason = f"{self.reason[: LONGEST_REASON - 1]}…"

    @property
    def cause(self) -> str:
        """``causes`` in one text, which is no longer than a reason."""
        return ": ".join(self.causes())[:LONGEST_REASON]

    def causes(self) -> list[str]:
        """What it comes from, down to the root: the reason of each cause, its type where it has none. What was said
        before isn't said again."""
        said = [self.reason or self.type]
        raw = self.caused_by
        while bytes(raw) not in (b"", b"null") and len(said) < _MOST_CAUSES:
            try:
                cause = _decode_detail(raw)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                break
            text = cause.reason or cause.type
            if text and not any(text in before for before in said):
                said.append(text)
            raw = cause.caused_by
        return said[1:]


class _ErrorReply(msgspec.Struct):
    error: ErrorDetail | str = ""


_decode_detail: Final = msgspec.json.Decoder(ErrorDetail).decode
#: Of an indexer there are four or five.
_MOST_CAUSES: Final = 50
_decode_error: Final = msgspec.json.Decoder(_ErrorReply).decode


def error_of(reply: HttpReply) -> ErrorDetail:
    """What a reply that isn't a success says; ``type`` is empty when it isn't OpenSearch's JSON (a proxy, a plugin)."""
    try:
        error = _decode_error(reply.body).error
    except DECODE_ERRORS:
        try:  # reasons quote documents
            error = _decode_error(lenient_text(reply.body)).error
        except (ValueError, RecursionError):
            error = reply.body[:200].decode("utf-8", "replace").strip()
    return error if isinstance(error, ErrorDetail) else ErrorDetail("", error)


def describe(reply: HttpReply) -> str:
    error = error_of(reply)
    text = ": ".join(filter(None, (error.type, error.reason)))
    return f"the indexer answered {reply.status}" + (f" ({text})" if text else "")
