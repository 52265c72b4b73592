"""What an Authorization header says: pure functions."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable

__all__ = ["authorization", "basic_credentials", "bearer_token"]


def authorization(headers: Iterable[tuple[bytes, bytes]], scheme: bytes) -> bytes | None:
    """What follows the scheme (``scheme`` in lower case; the header may have any case) in the request's only
    Authorization header; None when there is none, a second one, or another scheme.
    """
    values = [value for name, value in headers if name == b"authorization"]
    if len(values) != 1:
        return None
    given, _, credentials = values[0].partition(b" ")
    return (credentials.strip() or None) if given.lower() == scheme else None


def bearer_token(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    return authorization(headers, b"bearer")


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
