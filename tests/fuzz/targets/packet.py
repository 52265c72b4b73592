"""Stateful bodies: read at once, in steps, and event by event they are the same; no byte belongs to no event."""

from __future__ import annotations

import json
from unittest.mock import patch

from tests.fuzz.target import Target
from wazuh_comms_trio.backends.interfaces import CommandReport, DocumentOperation
from wazuh_comms_trio.config.models import Events
from wazuh_comms_trio.errors import MalformedBody
from wazuh_comms_trio.services.stateful.packet_reader import Event, PacketReader, Unusable, open_packet

__all__ = ["TARGETS"]

AGENT = "01929571-49b4-7edb-8a71-60f8d0b9a3c1"
METADATA = json.dumps({"agent": {"id": AGENT, "name": "a1"}}).encode()
BLANKS = b" \t\r\n"


def read(reader: PacketReader, max_events: int, max_bytes: int) -> list[Event]:
    events: list[Event] = []
    operations: list[DocumentOperation] = []
    for _ in range(10 * len(reader.body) + 10):
        if reader.exhausted:
            noted = [event.action for event in events if getattr(event.action, "plain", False)]
            assert operations == noted
            return events
        events += reader.read(max_events, max_bytes, operations)
    raise AssertionError("it doesn't end")


def shown(events: list[Event]) -> list[tuple[object, ...]]:
    """All but whether it was noted to be plain."""
    found = []
    for event in events:
        action: object = event.action
        if isinstance(action, DocumentOperation):
            action = action.action, action.index, action.document_id, action.body, action.own
        found.append((event.index, event.id, event.start, event.end, action))
    return found


def check(data: bytes) -> None:
    settings = Events()
    try:
        reader = open_packet(data, AGENT, settings)
    except MalformedBody as error:
        assert str(error)  # a sentence for the agent
        return
    events = read(reader, 10**6, 10**9)
    reader.rewind()
    assert shown(read(reader, 1 + len(data) % 7, 1 + len(data) % 300)) == shown(events)
    with patch("wazuh_comms_trio.services.stateful.packet_reader.read_plain_events", lambda *_, **__: None):
        assert shown(read(open_packet(data, AGENT, settings), 10**6, 10**9)) == shown(events)
    _covered(data, events)
    for event in events:
        _sound(event)


def _covered(data: bytes, events: list[Event]) -> None:
    """Behind the metadata line every byte is an event's, or blank."""
    position = data.find(b"\n", len(data) - len(data.lstrip(BLANKS)))
    position = len(data) if position < 0 else position + 1
    for event in events:
        assert position <= event.start < event.end
        assert not data[position : event.start].strip(BLANKS)
        position = event.end
    assert not data[position:].strip(BLANKS)


def _sound(event: Event) -> None:
    action = event.action
    if isinstance(action, Unusable):
        assert action.reason
    elif isinstance(action, CommandReport):
        assert action.agent_id == AGENT
    else:
        assert action.document_id == f"{AGENT}_{event.id}"
        assert action.index.startswith("wazuh-states-")
        assert (action.body is None) is (action.action == "delete")
        if action.body is not None:
            document = json.loads(action.body)
            assert document["agent"] == {"id": AGENT, "name": "a1"} or not action.body.startswith(METADATA[:-1])
            assert document["agent"]["id"].lower() == AGENT
            assert not any(name.startswith("agent.") for name in document)
            assert b"\n" not in action.body.strip()


def _lines(*lines: bytes) -> bytes:
    return b"\n".join((METADATA, *lines)) + b"\n"


PACKETS = Target(
    check,
    (
        _lines(b'{"id":"a","module":"fim","operation":"create"}', b'{"file":{"path":"/x"}}') * 1,
        _lines(
            b'{"id":"a","module":"fim","operation":"create"}',
            b'{"file":1}',
            b'{"id":"b","module":"fim","operation":"delete"}',
            b'{"id":"c","module":"inventory","collector":"ports","operation":"update"}',
            b'{"port":2}',
            b'{"id":"c","module":"inventory","type":"ports","operation":"update"}',
            b'{"port":3}',
        ),
        _lines(
            b'{"id":"k","module":"command","operation":"update"}', b'{"command":{"result":{"code":0,"message":"m"}}}'
        ),
        _lines(b"nonsense", b'{"id":"a","module":"fim","operation":"delete"}', b'{"agent":{"id":"x"},"agent.id":2}'),
        _lines(b'{"id":"a","module":"fim","operation":"create"}', b'{"\\u0061gent":1,"operation":"x","a.b":[{}]}'),
        _lines(b' {"id" : "\\u0061", "module":"fim", "operation":"create", "more":[1]}\r', b"", b"{ }", b"[1]", b'"x"'),
        b"\n" + METADATA,
        METADATA[:-1] + b',"wazuh":{"a":1}}\n{"id":"a","module":"fim","operation":"create"}\n{"wazuh.a":1,"b":2}',
    ),
    (
        b'{"id":"a","module":"fim","operation":"create"}\n',
        b'{"id":"d","module":"fim","operation":"delete"}\n',
        b'"operation":"update"',
        b'"agent":{"id":"x"}',
        b'"agent.',
        b"\\u0061gent",
        b"\\u0000",
        b"\xff",
        b"\n",
        b"\r\n",
        b"}{",
        b"[" * 1200,
        b"1e999",
    ),
    longest=6000,
    cases=500,
)

TARGETS = {"packet": PACKETS}
