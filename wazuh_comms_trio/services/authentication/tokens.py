"""Tokens: JWTs that only this service's keys sign, and that say who an agent is for 15 minutes at most. No store, no
clock.

The keys are loaded once. What a token says is checked strictly and in one order: form, algorithm, signature, claims; a
token can't choose the algorithm, each key has its own.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Collection, Iterable
from typing import Any, Final

import msgspec
from attrs import define, field, frozen
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from jwt.algorithms import Algorithm, ECAlgorithm, RSAAlgorithm

from wazuh_comms_trio.errors import TokenExpired, TokenInvalid

__all__ = [
    "AUDIENCE",
    "IAT_LEEWAY",
    "ISSUER",
    "KEY_ID",
    "LIFETIME",
    "UUID",
    "Claims",
    "TokenKeyError",
    "TokenKeys",
    "check_times",
    "key_id",
    "read_token",
]

ISSUER: Final = "wazuh"
AUDIENCE: Final = "Wazuh Communications API"
#: Seconds that a token lives at most, and ``exp - iat`` of every one.
LIFETIME: Final = 900
#: Seconds by which the clock of another node that signed a token may be ahead of ours.
IAT_LEEWAY: Final = 30

#: A uuid in its canonical form, any version; upper case is read as lower case.
UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

#: A key's id: its RFC 7638 thumbprint by SHA-256.
KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{43}")

_LONGEST: Final = 8192  # bytes; a token has some 500
_LEAST_RSA_BITS: Final = 2048
_COMPACT: Final = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")

_PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
_PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class TokenKeyError(ValueError):
    """Raised where the key can't sign tokens; the text is a sentence for the operator."""


class _Head(msgspec.Struct, gc=False):
    alg: str
    kid: str | None = None
    crit: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    b64: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Claims(msgspec.Struct, gc=False, frozen=True):
    """What an agent's token says. ``fingerprint`` is of the agent's record when the token was made: a rekeyed agent, or
    one that was removed and enrolled anew, has another. Tokens that others sign with the same key may lack it.
    ``auth_time``: when the agent logged in, where that isn't ``iat``, which all nodes want 900 s before the end."""

    iss: str
    aud: str
    iat: int
    exp: int
    uuid: str
    fingerprint: str | None = None
    auth_time: int | None = None

    @property
    def made(self) -> int:
        """When the token was made, epoch seconds."""
        return self.iat if self.auth_time is None else self.auth_time


_decode_head: Final = msgspec.json.Decoder(_Head).decode
_decode_claims: Final = msgspec.json.Decoder(Claims).decode


def _to_base64url(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def _base64url(text: bytes) -> bytes:
    """Decodes base64url. Raises ``binascii.Error``. Only the one spelling of ``raw`` is taken: the last character has
    bits to spare, and a token in which they differ isn't the one that was signed."""
    raw = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    if _to_base64url(raw) != text:
        raise binascii.Error("the last character has bits that mean nothing")
    return raw


def _thumbprint(algorithm: Algorithm, key: _PublicKey) -> str:
    """A key's thumbprint by RFC 7638: the same for one key on every node."""
    members = {name: value for name, value in algorithm.to_jwk(key, as_dict=True).items() if name != "key_ops"}
    text = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
    return _to_base64url(hashlib.sha256(text).digest()).decode()


@frozen
class _Verifier:
    """One public key, its algorithm and its id."""

    key: Any = field(repr=False)
    algorithm: Algorithm = field(repr=False)
    name: str
    kid: str

    @classmethod
    def of(cls, key: object) -> _Verifier:
        """The verifier of a public key. Raises ``TokenKeyError`` for a key that tokens can't be signed with."""
        if isinstance(key, ec.EllipticCurvePublicKey):
            if not isinstance(key.curve, ec.SECP256R1):
                raise TokenKeyError(
                    f"Tokens can't be signed with an EC key on the curve {key.curve.name}: use EC P-256 (prime256v1) "
                    "or RSA."
                )
            algorithm: Algorithm = ECAlgorithm(ECAlgorithm.SHA256)
            return cls(key, algorithm, "ES256", _thumbprint(algorithm, key))
        if isinstance(key, rsa.RSAPublicKey):
            if key.key_size < _LEAST_RSA_BITS:
                raise TokenKeyError(
                    f"Tokens can't be signed with an RSA key of {key.key_size} bits: use one of {_LEAST_RSA_BITS} bits "
                    "or more, or EC P-256."
                )
            algorithm = RSAAlgorithm(RSAAlgorithm.SHA256)
            return cls(key, algorithm, "RS256", _thumbprint(algorithm, key))
        kind = type(key).__name__.strip("_").removesuffix("PublicKey")
        raise TokenKeyError(f"Tokens can't be signed with a key of the kind {kind}: use EC P-256 or RSA.")


def _verifiers_of(public_keys: Iterable[bytes]) -> list[_Verifier]:
    """Raises ``TokenKeyError``."""
    found = []
    for pem in public_keys:
        try:
            found.append(_Verifier.of(load_pem_public_key(pem)))
        except (ValueError, UnsupportedAlgorithm) as exc:
            raise TokenKeyError(f"An earlier or another node's public key for tokens can't be used: {exc}") from None
    return found


def key_id(public_key: bytes) -> str:
    """The id of a public key in PEM: what ``kid`` says in tokens that it verifies. Raises ``TokenKeyError``."""
    return _verifiers_of([public_key])[0].kid


@define(eq=False)
class TokenKeys:
    """The key that signs, and the public keys that verify: its own, others that are to be trusted as well, and those of
    keys that signed before it."""

    _private: Any = field(repr=False)
    _verifiers: list[_Verifier]
    _earlier: set[str]
    #: Grows when a key was revoked: what was read of tokens before counts no more.
    revision: int = field(init=False, default=0)
    _revoked: set[str] = field(init=False, factory=set)

    @classmethod
    def from_pem(
        cls, pem: bytes, password: str | None = None, *, others: Iterable[bytes] = (), earlier: Iterable[bytes] = ()
    ) -> TokenKeys:
        """The keys from PEM; ``pem``: a private key, EC P-256 (ES256) or RSA (RS256); public keys in PEM: ``others`` of
        other nodes, and ``earlier`` ones whose tokens stay good until they expire. Raises ``TokenKeyError``."""
        try:
            private = load_pem_private_key(pem, None if password is None else password.encode())
        except TypeError:
            needs = "encrypted and needs its password" if password is None else "not encrypted, but a password is given"
            raise TokenKeyError(f"The private key for tokens is {needs}.") from None
        except (ValueError, UnsupportedAlgorithm) as exc:
            raise TokenKeyError(f"The private key for tokens can't be read: {exc}") from None
        own = _Verifier.of(private.public_key())
        verifiers = {own.kid: own}
        verifiers |= {verifier.kid: verifier for verifier in _verifiers_of(others) if verifier.kid != own.kid}
        before = {verifier.kid: verifier for verifier in _verifiers_of(earlier) if verifier.kid not in verifiers}
        return cls(private, [*verifiers.values(), *before.values()], set(before))

    def forget_earlier(self, kid: str) -> None:
        """Forgets an earlier key, whose tokens have expired. Of keys that are trusted all the time nothing is
        forgotten."""
        if kid in self._earlier:
            self._earlier.discard(kid)
            self._verifiers[:] = [verifier for verifier in self._verifiers if verifier.kid != kid]

    def trust(self, public_key: bytes) -> None:
        """Tokens of this key (PEM), too, are good from now on. Raises ``TokenKeyError``."""
        (new,) = _verifiers_of([public_key])
        self._earlier.discard(new.kid)
        if new.kid not in self._revoked and new.kid not in self.kids:
            self._verifiers.append(new)

    def revoke(self, kids: Collection[str]) -> bool:
        """Ends all tokens that these keys signed; the key that signs here stays. Returns whether any was trusted."""
        self._revoked.update(kids)
        left = [verifier for verifier in self._verifiers if verifier.kid == self.kid or verifier.kid not in kids]
        if len(left) == len(self._verifiers):
            return False
        self._verifiers[:] = left
        self.revision += 1
        return True

    @property
    def kids(self) -> list[str]:
        """The ids of all keys whose tokens are good, the signing key's first."""
        return [verifier.kid for verifier in self._verifiers]

    @property
    def revoked(self) -> list[str]:
        """The ids of keys that were revoked."""
        return sorted(self._revoked)

    @property
    def public_pem(self) -> bytes:
        """The signing key's public half, as the next process takes it in ``earlier``."""
        key: _PublicKey = self._verifiers[0].key
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def kid(self) -> str:
        """The signing key's id: nodes with another one don't take our tokens."""
        return self._verifiers[0].kid

    @property
    def algorithm(self) -> str:
        """``ES256`` or ``RS256``."""
        return self._verifiers[0].name

    def derive(self, purpose: bytes) -> bytes:
        """A secret of 32 bytes, another one for each purpose, which only the holder of the private key can make."""
        private = self._private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return hmac.digest(hashlib.sha256(private).digest(), purpose, "sha256")

    def sign(self, claims: dict[str, Any]) -> str:
        """A token of any claims that JSON can hold."""
        own = self._verifiers[0]
        head = msgspec.json.encode({"alg": own.name, "kid": own.kid, "typ": "JWT"})
        signed = b".".join(_to_base64url(part) for part in (head, msgspec.json.encode(claims)))
        return b".".join((signed, _to_base64url(own.algorithm.sign(signed, self._private)))).decode()

    def mint(self, uuid: str, fingerprint: str, now: float, life: int = LIFETIME) -> str:
        """An agent's token, good for ``life`` seconds."""
        made = int(now)
        exp = made + life
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "iat": exp - LIFETIME,
            "exp": exp,
            "uuid": uuid,
            "fingerprint": fingerprint,
        }
        return self.sign(claims if life == LIFETIME else {**claims, "auth_time": made})

    def open(self, token: bytes) -> bytes:
        """The payload of a token that one of the keys signed, with that key's algorithm. Raises ``TokenInvalid``."""
        match = _COMPACT.fullmatch(token) if len(token) <= _LONGEST else None
        if match is None:
            raise TokenInvalid(reason="malformed")
        try:
            head_text = _base64url(match[1])
            head_text.decode()  # the decoder doesn't look at the encoding of what it skips
            head = _decode_head(head_text)
            payload = _base64url(match[2])
            signature = _base64url(match[3])
        except (msgspec.MsgspecError, binascii.Error, UnicodeDecodeError, RecursionError):
            raise TokenInvalid(reason="malformed") from None
        if head.crit is not msgspec.UNSET or head.b64 is not msgspec.UNSET:
            raise TokenInvalid(reason="malformed")
        named = [verifier for verifier in self._verifiers if verifier.kid == head.kid]
        signed = token[: match.end(2)]
        for verifier in named or self._verifiers:
            if verifier.name == head.alg and verifier.algorithm.verify(signed, verifier.key, signature):
                return payload
        raise TokenInvalid(reason="bad_signature" if named else "unknown_key")


def read_token(keys: TokenKeys, token: bytes) -> Claims:
    """What a token of ours says, whatever the time is. The uuid is in lower case. Raises ``TokenInvalid``."""
    payload = keys.open(token)
    try:
        payload.decode()
        claims = _decode_claims(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise TokenInvalid(reason="wrong_claims") from None
    if claims.iss != ISSUER or claims.aud != AUDIENCE or claims.exp - claims.iat != LIFETIME:
        raise TokenInvalid(reason="wrong_claims")
    if UUID.fullmatch(claims.uuid) is None:
        raise TokenInvalid(reason="wrong_claims")
    uuid = claims.uuid.lower()
    return claims if uuid == claims.uuid else msgspec.structs.replace(claims, uuid=uuid)


def check_times(claims: Claims, now: float) -> None:
    """Checks a token's times; ``now`` in epoch seconds. No leeway for the end; some for the beginning, whose clock may
    be another node's. Raises ``TokenExpired``, ``TokenInvalid``."""
    if now >= claims.exp:
        raise TokenExpired(reason="expired", about=claims.uuid)
    if max(claims.iat, claims.made) > now + IAT_LEEWAY:
        raise TokenInvalid(reason="from_the_future", about=claims.uuid)
