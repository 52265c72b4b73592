"""What requests say, decoded: pure functions."""

from __future__ import annotations

import json
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wazuh_comms_trio.api.agent_api.requests import basic_credentials, decode_credentials, file_name
from wazuh_comms_trio.api.guard import bearer_token
from wazuh_comms_trio.errors import MalformedRequest

BAD_CREDENTIALS = {
    "nothing": b"",
    "not JSON": b"uuid=1",
    "cut off": b'{"uuid":"u","key":"k"',
    "a list": b'["u","k"]',
    "null": b"null",
    "uuid is missing": b'{"key":"k"}',
    "key is missing": b'{"uuid":"u"}',
    "uuid is a number": b'{"uuid":1,"key":"k"}',
    "key is null": b'{"uuid":"u","key":null}',
    "key is an object": b'{"uuid":"u","key":{}}',
    "a raw NUL": b'{"uuid":"u\0","key":"k"}',
    "an escaped NUL": b'{"uuid":"u\\u0000","key":"k"}',
    "an escaped NUL in the key": b'{"uuid":"u","key":"k\\u0000"}',
    "bytes that aren't UTF-8": b'{"uuid":"\xff","key":"k"}',
    "bytes that aren't UTF-8, in what is skipped": b'{"uuid":"u","key":"k","x":"\xff"}',
    "half a surrogate pair": b'{"uuid":"\\ud800","key":"k"}',
    "deep": b'{"uuid":' + b"[" * 10_000 + b"]" * 10_000 + b',"key":"k"}',
    "deep, in what is skipped": b'{"uuid":"u","key":"k","x":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "a byte order mark": b'\xef\xbb\xbf{"uuid":"u","key":"k"}',
    "two documents": b'{"uuid":"u","key":"k"}{"uuid":"u","key":"k"}',
}


@pytest.mark.parametrize("body", BAD_CREDENTIALS.values(), ids=BAD_CREDENTIALS.keys())
def test_bad_credentials(body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        decode_credentials(body)
    with pytest.raises(MalformedRequest):
        decode_credentials(bytearray(body))


@pytest.mark.parametrize(
    "body",
    [
        b'{"uuid":"u","key":"k"}',
        b' {\r\n "key" : "k" ,\t"uuid" : "u" }\r\n\r\n',
        b'{"uuid":"u","key":"k","more":{"uuid":1e999}}',
        b'{"uuid":"x","uuid":"u","key":"k"}',
        b'{"uuid":"\\u0075","key":"k"}',
    ],
)
def test_good_credentials(body: bytes) -> None:
    assert decode_credentials(body) == ("u", "k")


@given(st.binary(max_size=100))
def test_any_bytes_are_credentials_or_malformed(body: bytes) -> None:
    try:
        uuid, key = decode_credentials(body)
    except MalformedRequest:
        return
    document = json.loads(body)
    assert (uuid, key) == (document["uuid"], document["key"])


@pytest.mark.parametrize(
    ("query", "name"),
    [
        (b"file_name=default.conf", b"default.conf"),
        (b"file_name=", b""),  # what that is, is said by who opens it
        (b"file_name", b""),
        (b"file_name=a+b%20c", b"a+b%20c"),
        (b"x=1&file_name=a=b&y", b"a=b"),
        (b"file_name=%2e%2e/etc", b"%2e%2e/etc"),
    ],
)
def test_file_name_comes_as_it_is(query: bytes, name: bytes) -> None:
    assert file_name(query) == name


@pytest.mark.parametrize("query", [b"", b"filename=a", b"file%5fname=a", b"file_name=a&file_name=b"])
def test_no_file_name_or_two(query: bytes) -> None:
    with pytest.raises(MalformedRequest):
        file_name(query)


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
