"""The agents' keys: all have the same two, one after the other, since deriving a key takes 12 ms."""

from __future__ import annotations

from functools import cache
from typing import Final

from wazuh_comms_trio.services.authentication.secret_hashes import hash_key

__all__ = ["KEYS", "REVOCATION", "key_hash"]

KEYS: Final = ("0123456789abcdefghijklmnopqrstuv", "abcdefghijklmnopqrstuv0123456789")
#: Seconds after which a token of an earlier key is refused everywhere, and a little.
REVOCATION: Final = 12.0


@cache
def key_hash(number: int = 0) -> str:
    """Of an agent's so-manyth key."""
    return hash_key(KEYS[number % 2])
