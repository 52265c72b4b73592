"""The requests and answers that nearly all are, written and read in one go: what is unusual is left to h11.

Pure code. A request without headers that h11 would act upon, an answer with a Content-Length and no trailers: reading
them by hand takes a fifth of h11's time. Whatever isn't of these forms is None here, never guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

__all__ = ["SimpleHead", "encode_head", "parse_head"]

_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105 -- the field's word for a header's name
_REQUEST: Final = re.compile(
    rf"[A-Z]+ [!-~]+ HTTP/1\.1\r\n(?:{_TOKEN}: (?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?\r\n)+\r\n"
)
_STATUS: Final = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9])(?: [ \t!-~\x80-\xff]*)?\r\n")
_FIELD: Final = re.compile(
    rb"(" + _TOKEN.encode() + rb"):[ \t]*+((?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*\r\n"
)
# What h11 acts upon when it is in a request.
_ACTED_UPON: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect", "upgrade"})
_WITHOUT_BODY: Final = frozenset({b"204", b"304"})
_LENGTH: Final = re.compile(r"[0-9]{1,18}")


class SimpleHead(NamedTuple):
    """An answer's head. Header names are in lower case; ``length`` bytes of body follow it, and after them, unless
    ``closing``, another request may be sent."""

    status: int
    headers: dict[str, str]
    length: int
    closing: bool


def encode_head(
    method: str, target: str, host: str, headers: Sequence[tuple[str, str]], length: int | None
) -> bytes | None:
    """A request's head; ``length`` is its body's, None without one. None for what is unusual or wrong."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    for name, value in headers:
        if name.lower() in _ACTED_UPON:
            return None
        lines.append(f"{name}: {value}")
    if length is not None:
        lines.append(f"Content-Length: {length}")
    text = "\r\n".join(lines) + "\r\n\r\n"
    # Every line of it is a header, and nothing that was given has made two lines of one.
    if method in ("HEAD", "CONNECT") or text.count("\n") != len(lines) + 1 or not _REQUEST.fullmatch(text):
        return None
    return text.encode("latin-1")


def parse_head(data: bytes | bytearray, end: int) -> SimpleHead | None:
    """The head in ``data[:end]``, its empty line included. None for what is unusual or wrong."""
    status = _STATUS.match(data)
    if status is None or status[1] in _WITHOUT_BODY:
        return None
    position, last = status.end(), end - 2
    headers: dict[str, str] = {}
    length = None
    closing = False
    while position < last:
        field = _FIELD.match(data, position, last)
        if field is None:
            return None
        name, value = field[1].decode("ascii").lower(), field[2].decode("latin-1")
        if name == "content-length":
            if length is not None or not _LENGTH.fullmatch(value):
                return None
            length = int(value)
        elif name == "connection":
            if (value := value.lower()) not in ("close", "keep-alive"):
                return None
            closing = closing or value == "close"
        elif name in ("transfer-encoding", "upgrade"):
            return None
        headers[name] = value if name != "connection" else field[2].decode("latin-1")
        position = field.end()
    return None if length is None else SimpleHead(int(status[1]), headers, length, closing)
