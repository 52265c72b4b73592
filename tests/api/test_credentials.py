"""Authorization headers, decoded."""

from __future__ import annotations

from base64 import b64encode

import pytest

from wazuh_comms_trio.api.credentials import basic_credentials, bearer_token


@pytest.mark.parametrize(
    ("value", "token"),
    [
        (b"Bearer abc", b"abc"),
        (b"bearer abc", b"abc"),
        (b"BEARER  abc", b"abc"),
        (b"Bearer", None),
        (b"Bearer ", None),
        (b"Basic abc", None),
        (b"abc", None),
        (b"", None),
    ],
)
def test_bearer_token(value: bytes, token: bytes | None) -> None:
    assert bearer_token([(b"host", b"x"), (b"authorization", value)]) == token


def test_no_token_or_two() -> None:
    assert bearer_token([(b"host", b"x")]) is None
    assert bearer_token([(b"authorization", b"Bearer a"), (b"authorization", b"Bearer a")]) is None


def basic(text: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", b"Basic " + b64encode(text))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"user:pass", ("user", "pass")),
        (b"user:pa:ss", ("user", "pa:ss")),
        (b":", ("", "")),
        ("ü:é".encode(), ("ü", "é")),
        (b"user", None),
        (b"\xff:x", None),
    ],
)
def test_basic_credentials(text: bytes, expected: tuple[str, str] | None) -> None:
    assert basic_credentials(basic(text)) == expected


@pytest.mark.parametrize("value", [b"Basic", b"Basic !!!", b"Basic dXNlcg", b"Bearer dXNlcjpwYXNz"])
def test_no_basic_credentials(value: bytes) -> None:
    assert basic_credentials([(b"authorization", value)]) is None
