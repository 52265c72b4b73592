"""What is known to harm authd, looked for in a request as it goes out, whatever made it.

authd of 4.x crashes where a string is expected and something else comes, as in ``{"function": 1}``, and writes what it
is given into its key file as it is: a blank in a name ends remoted and keeps authd from starting, a line feed writes a
second line (DAEMONS.md, "Replies", authd; SOCKETS.md, 6). Its JSON reader takes the first of two members with one name,
whatever their case, and reads no further than the first value, so this does too.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from wazuh_comms_trio.errors import MessageInvalid
from wazuh_comms_trio.wire.framing import HEADER

#: Members that must be strings where they are present: of the request, and of its ``arguments``.
STRINGS: Final = frozenset({"function"})
ARGUMENT_STRINGS: Final = frozenset({"id", "name", "ip", "key", "key_hash", "groups"})

# What authd's JSON reader skips in front of a value, after a byte order mark.
_BLANKS: Final = bytes(range(33))
# A line of the key file has four words; '#' and '!' in front of a name mean that it is to be skipped.
_ENDS_WORD: Final = re.compile(r"[\x00-\x20\x7f]")
_UNSTORABLE_NAME: Final = re.compile(r"[#!]|\Z|.{129}", re.DOTALL)


def check_authd_request(payload: bytes) -> None:
    """:class:`MessageInvalid` (1012) for a request that would crash authd or damage its key file, or that begins like
    JSON and can't be read as such. Text requests (``getconfig auth``) go through. Bytes that are frames already are
    looked into."""
    while (end := HEADER.size + int.from_bytes(payload[: HEADER.size], "little")) <= len(payload):
        _check_request(payload[HEADER.size : end])
        payload = payload[end:]
    _check_request(payload)


def _check_request(payload: bytes) -> None:
    payload = payload.removeprefix(b"\xef\xbb\xbf").lstrip(_BLANKS)
    if not payload.startswith(b"{"):
        return
    try:
        request, _ = _DECODER.raw_decode(payload.decode(errors="surrogateescape"))
    except (ValueError, RecursionError) as exc:
        raise MessageInvalid(1012, f"a request to authd begins like JSON and isn't: {exc}") from exc
    _check_members(request, STRINGS, "")
    for name, value in request:
        if name.casefold() == "arguments" and isinstance(value, _Members):
            _check_members(value, ARGUMENT_STRINGS, "arguments.")
            _check_key_file_line(value)


class _Members(list[tuple[str, Any]]):
    """An object's members in order, also those with the same name."""


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_Members, strict=False)


def _check_members(members: _Members, strings: frozenset[str], where: str) -> None:
    for name, value in members:
        if name.casefold() in strings and not isinstance(value, str):
            raise MessageInvalid(1012, f"authd crashes unless {where}{name} is a string: {value!r:.60}")


def _check_key_file_line(arguments: _Members) -> None:
    for name, value in arguments:
        member = name.casefold()
        if member not in ARGUMENT_STRINGS:
            continue
        if found := _ENDS_WORD.search(value):
            raise MessageInvalid(
                1012, f"arguments.{name} has {found.group()!r} at {found.start()}; it must be one word"
            )
        if member == "name" and _UNSTORABLE_NAME.match(value):
            raise MessageInvalid(1012, f"arguments.{name}: authd can't store {value!r:.60} in its key file")
