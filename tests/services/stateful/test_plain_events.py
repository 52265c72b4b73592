"""Plain events, read many at a time: the same events as one by one, and none that isn't plain."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.services.bench import A1, metadata
from wazuh_comms_trio.backends.interfaces import DocumentOperation
from wazuh_comms_trio.config.models import Events
from wazuh_comms_trio.services.stateful.packet_reader import Event, Unusable, open_packet
from wazuh_comms_trio.services.stateful.plain_events import is_plain_text, read_plain_events

PREFIX = metadata()[:-1] + b","


def line(value: Any) -> bytes:
    """As agents write it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def header(event_id: str = "e", operation: str = "create", **more: str) -> bytes:
    return line({"id": event_id, "module": "fim", **more, "operation": operation})


DATA = line({"file": {"path": "C:\\x", "é": [1, {"agent": "nested"}]}})
PLAIN = header() + DATA


def plain(lines: bytes, max_events: int = 100) -> list[Event] | None:
    end = len(lines)
    found = read_plain_events(lines, 0, end, end, prefix=PREFIX, id_prefix="p_", max_events=max_events)
    if found is None:
        return None
    events, operations = found
    assert operations == [event.action for event in events]
    return events


def shown(events: list[Event]) -> list[tuple[object, ...]]:
    """All but whether somebody noted that it is plain."""
    found: list[tuple[object, ...]] = []
    for event in events:
        action: object = event.action
        if isinstance(action, DocumentOperation):
            action = (action.action, action.index, action.document_id, action.body)
        found.append((event.index, event.id, event.start, event.end, action))
    return found


def read(packet: bytes, *, max_events: int = 256, max_bytes: int = 65536) -> list[Event]:
    reader = open_packet(packet, A1, Events())
    events = []
    while not reader.exhausted:
        events += reader.read(max_events, max_bytes)
    return events


def one_by_one(packet: bytes) -> list[Event]:
    with patch("wazuh_comms_trio.services.stateful.packet_reader.read_plain_events", lambda *args, **kwargs: None):
        return read(packet)


def is_plain(event: Event) -> bool:
    return isinstance(event.action, DocumentOperation) and event.action.plain


class TestPlain:
    def test_what_real_agents_write(self) -> None:
        inventory = line({"id": "a1b2", "module": "inventory", "collector": "ports", "operation": "update"})
        events = plain(PLAIN + header("d", "delete") + inventory + DATA + header("d", "delete"))
        assert events is not None
        assert [event.id for event in events] == ["e", "d", "a1b2", "d"]
        actions = [event.action for event in events]
        document = PREFIX + DATA[1:-1]
        assert actions == [
            DocumentOperation("create", "wazuh-states-fim", "p_e", document, True),
            DocumentOperation("delete", "wazuh-states-fim", "p_d", None, True),
            DocumentOperation("update", "wazuh-states-inventory-ports", "p_a1b2", document, True),
            DocumentOperation("delete", "wazuh-states-fim", "p_d", None, True),
        ]
        assert json.loads(document)["agent"]["id"] == A1

    def test_older_agents_say_type(self) -> None:
        older = line({"id": "a1b2", "module": "inventory", "type": "ports", "operation": "update"})
        events = plain(older + DATA + PLAIN)
        assert events is not None
        assert [(event.index, event.id) for event in events] == [
            ("wazuh-states-inventory-ports", "a1b2"),
            ("wazuh-states-fim", "e"),
        ]
        assert plain(line({"id": "e", "module": "fim", "type": "ports", "operation": "update"}) + DATA) is None

    def test_no_more_than_asked_for(self) -> None:
        events = plain(PLAIN * 5, max_events=3)
        assert events is not None
        assert len(events) == 3

    def test_those_that_begin_before_the_edge_are_whole(self) -> None:
        lines = PLAIN * 3
        for stop in range(1, len(lines) + 1):
            found = read_plain_events(lines, 0, stop, len(lines), prefix=b"", id_prefix="", max_events=9)
            assert found is not None
            events = found[0]
            assert [event.start for event in events] == list(range(0, stop, len(PLAIN)))
            assert [event.end for event in events] == [event.start + len(PLAIN) - 1 for event in events]

    @pytest.mark.parametrize("lines", [PLAIN[:-1], PLAIN + PLAIN[:-1], header("x", "delete")[:-1]])
    def test_the_last_line_needs_no_end(self, lines: bytes) -> None:
        events = plain(lines)
        assert events is not None
        assert events[-1].end == len(lines)

    @pytest.mark.parametrize(
        "odd",
        {
            "another member": b'{"id":"x","module":"fim","operation":"create","a":1}\n' + DATA,
            "twice": b'{"id":"x","id":"x","module":"fim","operation":"create"}\n' + DATA,
            "escaped": b'{"id":"\\u0078","module":"fim","operation":"create"}\n' + DATA,
            "blanks": b'{"id": "x","module":"fim","operation":"create"}\n' + DATA,
            "carriage return": PLAIN.replace(b"\n", b"\r\n"),
            "long id": header("x" * 65) + DATA,
            "no id": header("") + DATA,
            "not ASCII": header("é") + DATA,
            "a command's": PLAIN.replace(b"fim", b"command"),
            "unknown module": PLAIN.replace(b"fim", b"fin"),
            "unknown operation": PLAIN.replace(b"create", b"delele"),
            "its own agent": header() + b'{"a":1,"agent":{}}\n',
            "its own agent, escaped": header() + b'{"a":1,"\\u0061gent":{}}\n',
            "no member": header() + b"{}\n",
            "blank first": header() + b'{ "a":1}\n',
            "two": header() + b'{"a":1}{"b":2}\n',
            "over two lines": header() + b'{"a":[{"b":1}\n' + header() + b'{"b":2}]}\n',
            "moved by one line": header() + b'{"a":\n' + b"{}}" + header() + DATA,
            "not an object": header() + b"[1]\n",
            "not JSON": header() + b'{"a":01}\n',
            "not UTF-8": header() + b'{"a":"\xff"}\n',
            "half a character": header() + b'{"a":"\xc3\n' + header() + b'\xa9"}\n',
            "deep": header() + b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}\n",
            "empty": header() + b"\n",
            "data for a delete": header("x", "delete") + DATA,
            "a delete that is none": b'{"operation":"create","x":{"operation":"delete"}\n' + DATA,
            "long": header() + line({"a": "x" * 70_000}),
        }.items(),
        ids=lambda pair: pair[0],
    )
    def test_what_is_not_plain(self, odd: tuple[str, bytes]) -> None:
        before, after = PLAIN * 3, PLAIN * 2
        assert plain(before + odd[1] + after) is None
        packet = metadata() + b"\n" + before + odd[1] + after
        assert shown(read(packet)) == shown(one_by_one(packet))

    def test_an_event_without_its_data_is_left(self) -> None:
        assert plain(header()) is None
        assert plain(b"") is None
        events = plain(PLAIN + header("x")[:-1])
        assert events is not None
        assert [event.id for event in events] == ["e"]


@pytest.mark.parametrize(("text", "expected"), [("", True), ("a-_.9", True), ('"', False), ("\n", False), ("é", False)])
def test_plain_text(text: str, expected: bool) -> None:
    assert is_plain_text(text) is expected


# --- in a packet ---


def test_what_is_not_plain_leaves_the_others_plain() -> None:
    odd = header() + line({"agent": {}})
    events = read(metadata() + b"\n" + PLAIN * 2000 + odd + PLAIN * 2000)
    assert len(events) == 4001
    others = [event for event in events if not is_plain(event)]
    assert 1 <= len(others) < 200


def test_an_agent_whose_id_is_not_plain() -> None:
    agent_id = 'a"'
    reader = open_packet(metadata(agent_id) + b"\n" + PLAIN, agent_id, Events())
    (event,) = reader.read(9, 999)
    assert event.action == DocumentOperation(
        "create", "wazuh-states-fim", 'a"_e', metadata(agent_id)[:-1] + b"," + DATA[1:-1], own=True
    )


def test_read_again_from_the_beginning() -> None:
    reader = open_packet(metadata() + b"\n" + PLAIN + header() + b"[]\n" + PLAIN, A1, Events())
    first: list[Event] = []
    for _ in range(9):
        first += reader.read(9, 9999)
    assert reader.exhausted
    reader.rewind()
    again: list[Event] = []
    for _ in range(9):
        again += reader.read(9, 9999)
    assert shown(first) == shown(again)
    assert [type(event.action) for event in first] == [DocumentOperation, Unusable, DocumentOperation]


pieces = st.sampled_from(
    [
        header(),
        header("x", "update"),
        header("x", "delete"),
        header("é"),
        header("x", "nothing"),
        DATA,
        line({"a": 1}),
        line({}),
        line({"agent": 1}),
        line({"type": 1}),
        b"[]\n",
        b'{"a":[{}\n',
        b'{"a":1}]}\n',
        b'{"a":1}{"a":1}\n',
        b'{"a":\n',
        b"\n",
        b" ",
        b"}",
        b"\xff\n",
    ]
)


@given(st.lists(st.just(PLAIN) | pieces, max_size=12), st.integers(1, 5), st.integers(1, 300))
def test_the_same_events_as_one_by_one(parts: list[bytes], max_events: int, max_bytes: int) -> None:
    packet = metadata() + b"\n" + b"".join(parts)
    expected = shown(one_by_one(packet))
    assert shown(read(packet)) == expected
    assert shown(read(packet, max_events=max_events, max_bytes=max_bytes)) == expected
