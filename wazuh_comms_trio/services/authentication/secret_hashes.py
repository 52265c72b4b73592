"""Agents' keys and users' passwords: made, hashed, compared. Everything here that hashes blocks for some 12 ms."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
import string
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

__all__ = ["KEY_LENGTH", "hash_key", "is_own_form", "key_matches", "new_key", "secret_mark"]

KEY_LENGTH: Final = 32

_ALPHABET: Final = string.ascii_letters + string.digits
_OWN_FORM: Final = re.compile(rf"[A-Za-z0-9]{{{KEY_LENGTH}}}")
_ROUNDS: Final = 100_000
_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32


def new_key() -> str:
    """An agent's key: 32 letters and digits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(KEY_LENGTH))


def is_own_form(key: str) -> bool:
    """Whether a key is of the form that agents make: nobody guesses those, also not at a billion tries a second."""
    return _OWN_FORM.fullmatch(key) is not None


def _derive(key: str, salt: bytes) -> bytes:
    # cryptography's PBKDF2 takes 60 % of hashlib's time for the same bytes; both release the GIL.
    derivation = PBKDF2HMAC(algorithm=SHA256(), length=_HASH_BYTES, salt=salt, iterations=_ROUNDS)
    return derivation.derive(key.encode("utf-8", "surrogatepass"))


def hash_key(key: str) -> str:
    """The hash of an agent's key, or of a password of ``enrollment.users``, as it is stored: base64(salt of 16 bytes +
    PBKDF2-HMAC-SHA256(key, salt, 100 000 rounds)). Blocks."""
    salt = os.urandom(_SALT_BYTES)
    return base64.b64encode(salt + _derive(key, salt)).decode("ascii")


def secret_mark(secret: bytes, owner: str, stored: str, key: str, *, size: int) -> bytes:
    """A keyed digest of a key, its stored hash and whose it is: ``size`` bytes, worth nothing without ``secret``. Takes
    microseconds."""
    digest = hashlib.blake2b(key=secret, digest_size=size)
    for part in (owner, stored, key):
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(raw))
        digest.update(raw)
    return digest.digest()


def key_matches(key: str, stored: str) -> bool:
    """Compares in constant time; False, too, for a stored hash that isn't one. Blocks."""
    try:
        raw = base64.b64decode(stored, validate=True)
    except (binascii.Error, ValueError):
        return False
    if len(raw) != _SALT_BYTES + _HASH_BYTES:
        return False
    return hmac.compare_digest(_derive(key, raw[:_SALT_BYTES]), raw[_SALT_BYTES:])
