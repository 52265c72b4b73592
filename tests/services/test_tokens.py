"""Tokens: what ours look like, and that nothing else passes for one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.services.bench import A1, EPOCH
from wazuh_comms_trio.errors import TokenExpired, TokenInvalid
from wazuh_comms_trio.services.authentication.tokens import TokenKeyError, TokenKeys, check_times, read_token


def pem(key: Any, password: bytes | None = None) -> bytes:
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    made: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    return made


EC = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
KEYS = TokenKeys.from_pem(pem(EC))
NOW = int(EPOCH)
CLAIMS = {"iss": "wazuh", "aud": "Wazuh Communications API", "iat": NOW, "exp": NOW + 900, "uuid": A1}


def sign(claims: Any, *, key: Any = EC, algorithm: str = "ES256", **headers: Any) -> bytes:
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return jwt.PyJWS().encode(payload, key, algorithm, headers or None).encode()


def b64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


class TestOurs:
    @pytest.mark.parametrize(("key", "algorithm"), [(EC, "ES256"), (RSA, "RS256")])
    def test_what_a_token_says(self, key: Any, algorithm: str) -> None:
        keys = TokenKeys.from_pem(pem(key))
        token = keys.mint(A1, "0123456789abcdef", EPOCH + 0.9)
        assert jwt.get_unverified_header(token) == {"alg": algorithm, "typ": "JWT", "kid": keys.kid}
        claims = jwt.decode(
            token, key.public_key(), [algorithm], audience="Wazuh Communications API", options={"verify_exp": False}
        )
        assert claims == {**CLAIMS, "fingerprint": "0123456789abcdef"}
        assert type(claims["exp"]) is int
        read = read_token(keys, token.encode())
        assert (read.uuid, read.exp, read.fingerprint) == (A1, NOW + 900, "0123456789abcdef")

    def test_the_kid_is_the_keys_thumbprint(self) -> None:
        numbers = EC.public_key().public_numbers()
        members = {"crv": "P-256", "kty": "EC"}
        members |= {name: b64(getattr(numbers, name).to_bytes(32, "big")).decode() for name in "xy"}
        text = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
        assert b64(hashlib.sha256(text).digest()).decode() == KEYS.kid

    def test_what_others_sign_with_the_same_key(self) -> None:
        assert read_token(KEYS, sign(CLAIMS)).fingerprint is None
        assert read_token(KEYS, sign({**CLAIMS, "more": [1, 2]}, kid="theirs")).uuid == A1
        assert read_token(KEYS, sign({**CLAIMS, "uuid": A1.upper()})).uuid == A1

    def test_the_key_before(self) -> None:
        before = TokenKeys.from_pem(pem(RSA))
        after = TokenKeys.from_pem(pem(EC), earlier=[before.public_pem, KEYS.public_pem])
        assert read_token(after, before.mint(A1, "", EPOCH).encode()).uuid == A1
        assert read_token(after, after.mint(A1, "", EPOCH).encode()).uuid == A1
        with pytest.raises(TokenInvalid):
            read_token(before, after.mint(A1, "", EPOCH).encode())


class TestKeys:
    @pytest.mark.parametrize(
        ("key", "text"),
        [
            (ec.generate_private_key(ec.SECP384R1()), "curve secp384r1"),
            (ed25519.Ed25519PrivateKey.generate(), "kind Ed25519"),
            (rsa.generate_private_key(65537, 1024), "1024 bits"),
        ],
    )
    def test_others_are_refused_with_a_sentence(self, key: Any, text: str) -> None:
        with pytest.raises(TokenKeyError, match=text) as caught:
            TokenKeys.from_pem(pem(key))
        assert str(caught.value).endswith(".")

    def test_passwords(self) -> None:
        protected = pem(EC, b"secret")
        assert TokenKeys.from_pem(protected, "secret").kid == KEYS.kid
        with pytest.raises(TokenKeyError, match="needs its password"):
            TokenKeys.from_pem(protected)
        with pytest.raises(TokenKeyError, match="can't be read"):
            TokenKeys.from_pem(protected, "wrong")
        with pytest.raises(TokenKeyError, match="not encrypted"):
            TokenKeys.from_pem(pem(EC), "secret")

    @pytest.mark.parametrize("text", [b"", b"nonsense", KEYS.public_pem])
    def test_what_is_no_private_key(self, text: bytes) -> None:
        with pytest.raises(TokenKeyError, match="can't be read"):
            TokenKeys.from_pem(text)

    def test_what_is_no_public_key(self) -> None:
        with pytest.raises(TokenKeyError, match="earlier"):
            TokenKeys.from_pem(pem(EC), earlier=[b"nonsense"])

    def test_keys_of_other_nodes_stay(self) -> None:
        other, before = (TokenKeys.from_pem(pem(ec.generate_private_key(ec.SECP256R1()))) for _ in range(2))
        keys = TokenKeys.from_pem(pem(EC), others=[other.public_pem], earlier=[before.public_pem, other.public_pem])
        tokens = [each.mint(CLAIMS["uuid"], "f", CLAIMS["iat"]).encode() for each in (keys, other, before)]
        assert all(read_token(keys, token) for token in tokens)
        keys.forget_earlier(before.kid)
        keys.forget_earlier(other.kid)
        assert all(read_token(keys, token) for token in tokens[:2])
        with pytest.raises(TokenInvalid):
            read_token(keys, tokens[2])

    def test_a_revoked_key_is_trusted_by_nobodys_word(self) -> None:
        other = TokenKeys.from_pem(pem(ec.generate_private_key(ec.SECP256R1())))
        keys = TokenKeys.from_pem(pem(EC), others=[other.public_pem])
        assert keys.revoke([other.kid])
        keys.trust(other.public_pem)  # of a generation that doesn't know of it yet
        with pytest.raises(TokenInvalid):
            read_token(keys, other.mint(A1, "f", NOW).encode())

    def test_keys_dont_show(self) -> None:
        assert "private" not in repr(KEYS).lower().replace("_private", "")


FORGED: dict[str, bytes] = {
    "another key": sign(CLAIMS, key=ec.generate_private_key(ec.SECP256R1())),
    "another key under our kid": sign(CLAIMS, key=ec.generate_private_key(ec.SECP256R1()), kid=KEYS.kid),
    "another algorithm": sign(CLAIMS, key=RSA, algorithm="RS256"),
    "alg none": b".".join((b64(b'{"alg":"none","typ":"JWT"}'), b64(json.dumps(CLAIMS).encode()), b"")),
    "alg none, signed": b".".join((b64(b'{"alg":"none"}'), *sign(CLAIMS).split(b".")[1:])),
    "foreign issuer": sign({**CLAIMS, "iss": "someone"}),
    "issuers": sign({**CLAIMS, "iss": ["wazuh"]}),
    "foreign audience": sign({**CLAIMS, "aud": "Wazuh API"}),
    "audiences": sign({**CLAIMS, "aud": ["Wazuh Communications API"]}),
    "another life": sign({**CLAIMS, "exp": NOW + 901}),
    "a string exp": sign({**CLAIMS, "exp": str(NOW + 900)}),
    "a float exp": sign({**CLAIMS, "exp": NOW + 900.5}),
    "infinite times": sign(json.dumps({**CLAIMS, "exp": 0}).replace('"exp": 0', '"exp": 1e999').encode()),
    "a uuid that is a number": sign({**CLAIMS, "uuid": 7}),
    "a uuid in braces": sign({**CLAIMS, "uuid": "{" + A1 + "}"}),
    "a uuid without hyphens": sign({**CLAIMS, "uuid": A1.replace("-", "")}),
    "a uuid and a newline": sign({**CLAIMS, "uuid": A1 + "\n"}),
    "an empty uuid": sign({**CLAIMS, "uuid": ""}),
    "a fingerprint that is a number": sign({**CLAIMS, "fingerprint": 7}),
    "no object": sign(b"[]"),
    "no JSON": sign(b"nonsense"),
    "no UTF-8": sign(b'{"iss":"\xff"}'),
    "deep": sign(b'{"x":' + b"[" * 3000 + b"]" * 3000 + b"}"),
    **{f"without {name}": sign({k: v for k, v in CLAIMS.items() if k != name}) for name in CLAIMS},
}


def hs256(secret: bytes) -> bytes:
    signed = b64(b'{"alg":"HS256","typ":"JWT"}') + b"." + b64(json.dumps(CLAIMS).encode())
    return signed + b"." + b64(hmac.new(secret, signed, "sha256").digest())


class TestForeign:
    @pytest.mark.parametrize("name", FORGED)
    def test_forged(self, name: str) -> None:
        with pytest.raises(TokenInvalid) as caught:
            read_token(KEYS, FORGED[name])
        assert caught.value.code == 2706

    def test_hs256_with_the_public_key(self) -> None:
        for secret in (KEYS.public_pem, KEYS.public_pem.strip()):
            with pytest.raises(TokenInvalid):
                read_token(KEYS, hs256(secret))

    def test_a_header_with_conditions(self) -> None:
        head = b64(b'{"alg":"ES256","crit":["exp"],"exp":1}')
        signed = head + b"." + b64(json.dumps(CLAIMS).encode())
        algorithm = jwt.get_algorithm_by_name("ES256")
        with pytest.raises(TokenInvalid):
            read_token(KEYS, signed + b"." + b64(algorithm.sign(signed, EC)))

    @pytest.mark.parametrize("token", [b"", b".", b"..", b"...", b"a.b.c", b"a.b", b"\xff.a.b", b" ", b"a" * 10_000])
    def test_no_token_at_all(self, token: bytes) -> None:
        with pytest.raises(TokenInvalid):
            read_token(KEYS, token)

    def test_a_header_that_is_no_text(self) -> None:
        """The decoder doesn't look at what it skips; other readers do."""
        head = b'{"alg":"ES256","x":"\xff"}'
        signed = b64(head) + b"." + b64(json.dumps(CLAIMS).encode())
        signature = jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA256).sign(signed, EC)
        with pytest.raises(TokenInvalid) as refused:
            read_token(KEYS, signed + b"." + b64(signature))
        assert refused.value.reason == "malformed"

    def test_a_deep_header(self) -> None:
        head = b64(b'{"alg":' + b"[" * 3000)
        with pytest.raises(TokenInvalid):
            read_token(KEYS, head + b"." + b".".join(sign(CLAIMS).split(b".")[1:]))

    @given(st.integers(0, 400), st.integers(0, 255))
    def test_one_byte_changed(self, position: int, byte: int) -> None:
        token = bytearray(sign(CLAIMS))
        position %= len(token)
        same = token[position] == byte
        # The last character of a part carries unused bits: another spelling of the same signature.
        last = position == len(token) - 1
        token[position] = byte
        if same or last:
            return
        with pytest.raises(TokenInvalid):
            read_token(KEYS, bytes(token))


class TestTimes:
    def test_no_leeway_for_the_end(self) -> None:
        claims = read_token(KEYS, sign(CLAIMS))
        check_times(claims, NOW + 899.999)
        for late in (900, 901, 10**6):
            with pytest.raises(TokenExpired) as caught:
                check_times(claims, NOW + late)
            assert caught.value.code == 2707

    @pytest.mark.parametrize("life", [300, 637, 870, 900])
    def test_thirty_seconds_for_the_beginning(self, life: int) -> None:
        """Which is when it was made, however long it is good."""
        claims = read_token(KEYS, KEYS.mint(A1, "f", NOW, life).encode())
        check_times(claims, NOW - 30)
        with pytest.raises(TokenInvalid):
            check_times(claims, NOW - 30.1)

    def test_huge_ones(self) -> None:
        claims = read_token(KEYS, sign({**CLAIMS, "iat": 10**400, "exp": 10**400 + 900}))
        with pytest.raises(TokenInvalid):
            check_times(claims, EPOCH)


def test_another_spelling_of_the_same_bytes_is_refused() -> None:
    """The last character of a signature has bits to spare; whoever changes a token changes something that counts."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    token = KEYS.mint(A1, "0123456789abcdef", EPOCH)
    for other in alphabet.replace(token[-1], ""):
        with pytest.raises(TokenInvalid):
            read_token(KEYS, (token[:-1] + other).encode())
    assert read_token(KEYS, token.encode()).uuid == A1
