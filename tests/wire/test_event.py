"""Events for analysisd."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wazuh_comms_trio.errors import EventTooLarge, WazuhError, WazuhInternalError
from wazuh_comms_trio.wire.event import (
    QUEUES,
    check_event_header,
    create_event_header,
    encode_event,
    escape_location,
    unescape_location,
)


def read(datagram: bytes) -> tuple[str, str, str]:
    """As analysisd reads: the first unescaped colon ends the location."""
    text = datagram.decode()
    queue, rest = text[0], text[2:]
    assert text[1] == ":"
    location = ""
    while rest[0] != ":":
        if rest[0] == "|":
            location, rest = location + rest[1], rest[2:]
        else:
            location, rest = location + rest[0], rest[1:]
    return queue, location, rest[1:]


locations = st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"]), min_size=1, max_size=60)
messages = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=200)


@given(st.sampled_from(sorted(QUEUES)), locations, messages)
def test_what_is_meant_is_read(queue: str, location: str, msg: str) -> None:
    header = create_event_header(queue, location)
    assert check_event_header(header) == header
    assert read(encode_event(header, msg)) == (queue, location, msg)
    assert unescape_location(escape_location(location)) == location


def test_the_published_example() -> None:
    assert encode_event("1:wazuh-api:", '{"event":"custom"}') == b'1:wazuh-api:{"event":"custom"}'
    assert encode_event("1:[001] (a) any->/var/log||x|:y:", "a:b|c\nd").endswith(b"a:b|c\nd")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "1",
        "1:",
        "1::",
        "1:loc",
        "loc:",
        ":loc:",
        "11:loc:",
        "0:loc:",
        "x:loc:",
        "é:loc:",
        "1 loc:",
        "1:a:b:",
        "1:a|:",
        "1:a|b:",
        "1:a|",
        "1:lo\0c:",
        "1:lo\nc:",
        "1:lo\rc:",
        "1:loc:\n",
        None,
        1,
        b"1:loc:",
    ],
)
def test_headers_that_are_none(header: object) -> None:
    with pytest.raises(WazuhInternalError, match=r"^Error 1012 - Invalid message to queue: "):
        encode_event(header, "message")  # type: ignore[arg-type]


@pytest.mark.parametrize("msg", ["", "a\0b", "\0", None, 1, b"x", "\ud800"])
def test_messages_that_cannot_go(msg: object) -> None:
    with pytest.raises(WazuhInternalError, match=r"^Error 1012 - Invalid message to queue: "):
        encode_event("1:loc:", msg)  # type: ignore[arg-type]


@pytest.mark.parametrize("location", ["", "a\0", "a\nb", None])
def test_locations_that_are_none(location: object) -> None:
    with pytest.raises(WazuhInternalError, match=r"1012"):
        escape_location(location)  # type: ignore[arg-type]


def test_unknown_queue() -> None:
    with pytest.raises(WazuhInternalError, match=r"no queue of analysisd"):
        create_event_header("x", "loc")


def test_length_to_the_byte() -> None:
    header = "1:loc:"
    assert len(encode_event(header, "x" * (65535 - 6))) == 65535
    for msg in ("x" * (65536 - 6), "x" * (65535 - 7) + "é"):
        with pytest.raises(EventTooLarge, match=r"at most 65535") as caught:
            encode_event(header, msg)
        assert isinstance(caught.value, WazuhInternalError)
        assert isinstance(caught.value, WazuhError)
        assert caught.value.code == 1012
