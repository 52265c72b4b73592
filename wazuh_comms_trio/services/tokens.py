"""Stub."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen


class TokenKeyError(ValueError):
    """The key file can't sign tokens; the text is a sentence for the operator."""


@frozen
class TokenKeys:
    """The key that signs, and the public keys that verify (its own, and those of keys before it, during a reload)."""

    @classmethod
    def from_pem(cls, pem: bytes, password: str | None = None, *, earlier: Iterable[bytes] = ()) -> TokenKeys:
        """``pem``: a private key, EC P-256 (ES256) or RSA (RS256); ``earlier``: public keys in PEM whose tokens stay good until
        they expire. Raises ``TokenKeyError``."""
        raise NotImplementedError

    @property
    def public_pem(self) -> bytes:
        """The signing key's public half, as the next process takes it in ``earlier``."""
        raise NotImplementedError
