"""Tokens: only what a key of ours signed is taken, and PyJWT takes it, too. Payloads are signed here, so that what
they say is read."""

from __future__ import annotations

import base64
from functools import cache

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.fuzz.target import Target
from wazuh_comms_trio.errors import TokenExpired, TokenInvalid
from wazuh_comms_trio.services.authentication.tokens import (
    AUDIENCE,
    ISSUER,
    LIFETIME,
    UUID,
    TokenKeys,
    check_times,
    read_token,
)

__all__ = ["TARGETS"]

NOW = 1_700_000_000.0
AGENT = "01929571-49b4-7edb-8a71-60f8d0b9a3c1"


@cache
def keys() -> TokenKeys:
    """Always the same."""
    private = ec.derive_private_key(0x1234567, ec.SECP256R1())
    return TokenKeys.from_pem(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def taken(token: bytes) -> bool:
    try:
        claims = read_token(keys(), token)
        check_times(claims, NOW)
    except (TokenInvalid, TokenExpired) as refusal:
        assert refusal.reason  # it is counted by its reason
        return False
    assert (claims.iss, claims.aud, claims.exp - claims.iat) == (ISSUER, AUDIENCE, LIFETIME)
    assert UUID.fullmatch(claims.uuid)
    assert claims.uuid == claims.uuid.lower()
    options = {"verify_exp": False, "verify_iat": False}
    theirs = jwt.decode(token, keys().public_pem, ["ES256"], options, audience=AUDIENCE, issuer=ISSUER)
    assert theirs["uuid"].lower() == claims.uuid
    assert (theirs["iat"], theirs["exp"], theirs.get("fingerprint")) == (claims.iat, claims.exp, claims.fingerprint)
    return True


@cache
def _good() -> bytes:
    """Its signature is another in each process; nothing that is checked depends on that."""
    return keys().mint(AGENT, "f", NOW).encode()


def check_bytes(data: bytes) -> None:
    """Parts of a good token, with other bytes between them: ``H``, ``P`` and ``S`` stand for its three."""
    head, payload, signature = _good().split(b".")
    token = data.replace(b"{H}", head).replace(b"{P}", payload).replace(b"{S}", signature)
    assert taken(token) is (token == _good())


def check_signed(data: bytes) -> None:
    """``head NUL payload``, signed."""
    head, _, payload = data.partition(b"\0")
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (head, payload))
    own = keys()._verifiers[0]
    signature = own.algorithm.sign(signed, keys()._private)
    taken(signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"="))


_CLAIMS = (
    b'{"iss":"wazuh","aud":"Wazuh Communications API","iat":1700000000,"exp":1700000900,"uuid":"%b"}' % AGENT.encode()
)
TARGETS = {
    "token": Target(
        check_bytes,
        (b"{H}.{P}.{S}", b"{H}.{P}.", b"e30.{P}.{S}", b"eyJhbGciOiJub25lIn0.{P}.{S}", b"{H}.{P}.{S}.{S}"),
        (b"{H}", b"{P}", b"{S}", b".", b"=", b"-_", b"eyJhbGciOiJIUzI1NiJ9"),
        longest=300,
        cases=2000,
    ),
    "token-claims": Target(
        check_signed,
        (
            b'{"alg":"ES256"}\0' + _CLAIMS,
            b'{"alg":"ES256","typ":"JWT","kid":"x"}\0' + _CLAIMS.replace(b"}", b',"fingerprint":"f"}'),
            b'{"alg":"ES256","kid":null}\0' + _CLAIMS.upper(),
            b'{"alg":"none","crit":["b64"],"b64":false}\0' + _CLAIMS,
        ),
        (
            b'"iat":',
            b'"exp":',
            b'"uuid":',
            b'"aud":["Wazuh Communications API"]',
            b'"nbf":1',
            b"1e9",
            b"\xff",
            b"[" * 2000,
        ),
        longest=3000,
        cases=600,
    ),
}
