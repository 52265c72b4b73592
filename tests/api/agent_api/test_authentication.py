"""Credentials, decoded."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wazuh_comms_trio.api.agent_api.authentication import decode_credentials
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
