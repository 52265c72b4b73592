"""A request's head, as pure functions: the head that nearly all are, read in one go, and what is refused of any.

Whatever isn't of the plain form is left to h11, never guessed at: h11 takes six times as long.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv6Address
from typing import Final, NamedTuple

from wazuh_comms_trio.errors import MalformedRequest

__all__ = ["HEAD_END", "RequestHead", "check_characters", "check_head", "check_lines", "read_plain_head"]

_TOKEN: Final = rb"[-!#$%&'*+.^_`|~0-9a-zA-Z]+"
_REQUEST_LINE: Final = re.compile(rb"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.1\r\n")
#: One whole line; a value's control characters, but tabs, make it none. Possessive, else a thousand blanks before one
#: of these are looked at half a million times.
_FIELD: Final = re.compile(
    rb"^(" + _TOKEN + rb"):[ \t]*+((?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*\r\n", re.MULTILINE
)
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
#: What h11 acts upon, beside ``Host`` and a length.
_LEFT_TO_H11: Final = frozenset({b"transfer-encoding", b"expect", b"upgrade"})
AUTHORITY_END: Final = re.compile(rb"[/?#]")
HOST: Final = re.compile(
    rb"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::(?P<port>[0-9]{0,5}))?"
)
#: RFC 9112, 3.2: a path, a whole URL, or, for OPTIONS, an asterisk.
TARGET: Final = re.compile(rb"(?:https?://[][A-Za-z0-9._~%:-]+)?/[!-~]*|https?://[][A-Za-z0-9._~%:-]+|\*")
#: Where h11 sees the end of a head.
HEAD_END: Final = re.compile(rb"\n\r?\n")
#: All but control characters, among them the two that end a line; a tab is none.
PLAIN: Final = bytes({9, *range(32, 127), *range(128, 256)})
LARGEST_PORT: Final = 65535


class RequestHead(NamedTuple):
    """``headers``: names in lower case, values without the blanks around them."""

    method: bytes
    target: bytes
    http_version: bytes
    headers: Sequence[tuple[bytes, bytes]]


def read_plain_head(text: bytes) -> RequestHead | None:
    """A whole head, its empty line included, that h11 and ``check_lines`` take as well; None for any other."""
    line = _REQUEST_LINE.match(text)
    if line is None:
        return None
    fields = _FIELD.findall(text, line.end())
    if len(fields) != text.count(b"\n") - 2:  # each line is a field, but the first and the empty one
        return None
    headers = [(name.lower(), value) for name, value in fields]
    names = [name for name, _ in headers]
    if names.count(b"host") != 1 or not _LEFT_TO_H11.isdisjoint(names) or line[1] == b"CONNECT":
        return None
    if b"content-length" in names:
        first = names.index(b"content-length")
        if b"content-length" in names[first + 1 :] or _LENGTH.fullmatch(headers[first][1]) is None:
            return None
    return RequestHead(line[1], line[2], b"1.1", headers)


def check_characters(text: bytes) -> None:
    """Refuses bare line feeds and control characters in a head: h11 takes some of them, and would look at blanks before
    others so often that one head of 16 KiB stops the event loop for half a second. Raises ``MalformedRequest``."""
    lines = text.count(b"\r\n")
    if len(text.translate(None, PLAIN)) == 2 * lines:
        return
    if text.count(b"\n") != lines or text.count(b"\r") != lines:
        raise MalformedRequest("A line of the head doesn't end with CRLF")
    raise MalformedRequest("A control character in the head")


def check_lines(text: bytes, headers: int) -> None:
    """Refuses what h11 takes in a head and others read differently, or don't: folded lines, lengths that come twice. A
    balancer that saw another request there could be made a fool of. ``headers``: how many h11 made of it. Raises
    ``MalformedRequest``."""
    if text.count(b"\r\n") == headers + 2 and b"," not in text:
        return  # a line for each header: none is folded, and no length there twice, of which h11 makes one
    if b"\n " in text or b"\n\t" in text:
        raise MalformedRequest("A line of the head is folded")
    lower = text.lower()
    at = lower.find(b"\ncontent-length:")
    if at >= 0 and (lower.find(b"\ncontent-length:", at + 1) >= 0 or lower.find(b",", at, lower.find(b"\r", at)) >= 0):
        raise MalformedRequest("Ambiguous body length")


def check_head(request: RequestHead) -> None:
    """Refuses what h11 takes in a head and this server doesn't. Raises ``MalformedRequest``."""
    if request.http_version not in (b"1.1", b"1.0"):
        raise MalformedRequest("Unsupported HTTP version")
    if request.method == b"PRI":  # what HTTP/2 begins with, and no method (RFC 9113, 11.6)
        raise MalformedRequest("Unsupported HTTP version")
    if TARGET.fullmatch(request.target) is None:
        raise MalformedRequest("Invalid request target")
    names = []
    for name, value in request.headers:
        names.append(name)
        if name == b"host" and not is_host(value):  # that there is one, and one alone, h11 checks
            raise MalformedRequest("Invalid Host")
    authority = authority_of(request.target)
    if authority is not None and not (authority and is_host(authority)):
        raise MalformedRequest("Invalid Host")
    if b"transfer-encoding" in names and (b"content-length" in names or request.http_version == b"1.0"):
        raise MalformedRequest("Ambiguous body length")


def authority_of(target: bytes) -> bytes | None:
    """The host in a target in absolute form, which counts in place of the header (RFC 9112, 3.2.2)."""
    scheme, separator, rest = target.partition(b"://")
    return AUTHORITY_END.split(rest, 1)[0] if separator and scheme.lower() in (b"http", b"https") else None


def is_host(value: bytes) -> bool:
    """Whether a text is a host as RFC 9110, 7.2, and RFC 3986, 3.2.2, want it: a name or an address, and maybe a port.
    An empty one is valid, for targets without a host."""
    match = HOST.fullmatch(value)
    if match is None:
        return False
    if match["address"] is not None:
        try:
            IPv6Address(match["address"].decode("ascii"))
        except ValueError:
            return False
    return int(match["port"] or 0) <= LARGEST_PORT
