"""What requests say, decoded and checked: pure functions that raise ``MalformedRequest``."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable

import msgspec

from wazuh_comms_trio.api.guard import authorization
from wazuh_comms_trio.errors import MalformedRequest
from wazuh_comms_trio.services.strict_json import decode_body

__all__ = ["basic_credentials", "decode_credentials", "file_name"]


class Credentials(msgspec.Struct):
    uuid: str
    key: str


_credentials = msgspec.json.Decoder(Credentials)


def decode_credentials(body: bytes | bytearray) -> tuple[str, str]:
    """``{"uuid","key"}``; other fields are ignored."""
    credentials = decode_body(body, _credentials)
    if "\0" in credentials.uuid or "\0" in credentials.key:
        raise MalformedRequest("The request body has a NUL in it")
    return credentials.uuid, credentials.key


def file_name(query: bytes) -> bytes:
    """The query's ``file_name`` as it came: agents don't encode it, so who opens the file decodes it, once."""
    values = [value for name, _, value in (part.partition(b"=") for part in query.split(b"&")) if name == b"file_name"]
    if len(values) != 1:
        raise MalformedRequest("file_name is missing" if not values else "file_name is given more than once")
    return values[0]


def basic_credentials(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, str] | None:
    """User and password of HTTP Basic; None when they aren't there or can't be read."""
    given = authorization(headers, b"basic")
    if given is None:
        return None
    try:
        user, colon, password = b64decode(given, validate=True).decode().partition(":")
    except (Base64Error, UnicodeDecodeError):
        return None
    return (user, password) if colon else None
