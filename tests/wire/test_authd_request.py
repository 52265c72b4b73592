"""Requests that would crash authd or damage its key file."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wazuh_comms_trio.errors import MessageInvalid
from wazuh_comms_trio.wire.authd_request import ARGUMENT_STRINGS, check_authd_request


@pytest.mark.parametrize(
    "request_",
    [
        '{"function": 1}',
        '{"function": null}',
        ' \n{"function": 1}',
        '{"Function": 1}',
        '{"function": 1, "function": "add"}',  # the first one counts for authd, the last one for Python
        '{"function": 1} and more',  # where authd stops reading
        '{"function": "nonsense", "arguments": {"id": 1}}',
        '{"function": "add", "arguments": {"name": "ok", "groups": ["a"]}}',
        '{"function": "add", "ARGUMENTS": {"NAME": 5}}',
        '{"function": "add", "arguments": {"name": "two words"}}',
        '{"function": "add", "arguments": {"name": "a\\nb"}}',
        '{"function": "add", "arguments": {"name": "a\nb"}}',
        '{"function": "add", "arguments": {"name": "#a"}}',
        '{"function": "add", "arguments": {"name": "!a"}}',
        '{"function": "add", "arguments": {"name": ""}}',
        '{"function": "add", "arguments": {"name": "ok", "key": "a b"}}',
        '{"function": "add", "arguments": {"name": "ok", "ip": "any\\u0000"}}',
        '{"function": "add", "arguments": {"name": "' + "x" * 129 + '"}}',
        '{"function": ',
        '{"function": 01}',
        '\ufeff{"function": 1}',
        '\ufeff \x01{"function": 1}',
        '\x0f\0\0\0{"function": 1}',  # a frame already
        '\x02\0\0\0{}\x0f\0\0\0{"function": 1}',
        '\x2a\0\0\0{"function": 1, "arguments": {"id": "001"}}',
    ],
)
def test_refused(request_: str) -> None:
    with pytest.raises(MessageInvalid, match="Error 1012"):
        check_authd_request(request_.encode())


@pytest.mark.parametrize(
    "request_",
    [
        b"getconfig auth",
        b'{"function": "get", "arguments": {"id": "001"}}\0'.removesuffix(b"\0"),
        b'{"function": "nonsense"}',
        b"{}",
        b'{"arguments": {"id": "001", "force": {"enabled": true}}}',
        b'{"function": "add", "arguments": {"name": "web-1"}}',
    ],
)
def test_taken(request_: bytes) -> None:
    check_authd_request(request_)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=2))


@given(
    st.sampled_from(["function", "Function"]), JSON, st.dictionaries(st.sampled_from(sorted(ARGUMENT_STRINGS)), JSON)
)
def test_nothing_but_words_gets_through(function: str, value: Any, arguments: dict[str, Any]) -> None:
    payload = json.dumps({function: value, "arguments": arguments}).encode()
    harmless = isinstance(value, str) and all(
        isinstance(one, str) and not any(char <= " " or char == "\x7f" for char in one) for one in arguments.values()
    )
    name = arguments.get("name", "x")
    if harmless and name and name[0] not in "#!" and len(name) < 129:
        check_authd_request(payload)
    else:
        with pytest.raises(MessageInvalid):
            check_authd_request(payload)
