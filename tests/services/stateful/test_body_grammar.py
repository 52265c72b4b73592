"""The grammar of stateful bodies against a simple implementation of its rules, on any order of lines."""

from __future__ import annotations

import json
import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.services.bench import A1, metadata
from tests.services.stateful.reading import read
from wazuh_comms_trio.backends.interfaces import CommandReport, DocumentOperation
from wazuh_comms_trio.config.models import Events
from wazuh_comms_trio.services.stateful.packet_reader import Event, Unusable, open_packet

NAMES = {"module", "operation", "id", "collector", "type"}


def is_header(line: bytes, *, further: bool) -> bool:
    if len(line.strip()) > 65536:
        return False
    try:
        found = json.loads(line)
    except ValueError:
        return False
    strings = isinstance(found, dict) and all(isinstance(found.get(name), str) for name in ("module", "operation"))
    return strings and (further or found.keys() <= NAMES)


def reference(packet: bytes) -> list[tuple[Any, ...]]:
    """What there is after the metadata line: gaps with their lines; headers with their data, None for a delete's."""
    lines = [line for line in packet.split(b"\n") if line.strip(b" \t\r")][1:]
    found: list[tuple[Any, ...]] = []
    while lines:
        line = lines.pop(0)
        if not is_header(line, further=True):
            gap = [line]
            while lines and not is_header(lines[0], further=True):
                gap.append(lines.pop(0))
            found.append(("gap", [one.strip(b" \t\r") for one in gap]))
            continue
        header = json.loads(line)
        data = b"{}" if not lines or is_header(lines[0], further=False) else lines.pop(0)
        event_id = header.get("id") if isinstance(header.get("id"), str) else None
        found.append(("event", event_id, None if header["operation"] == "delete" else data.strip(b" \t\r")))
    return found


def shown(packet: bytes, events: list[Event]) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for event in events:
        text = packet[event.start : event.end]
        if isinstance(event.action, Unusable) and event.action.reason.startswith("These lines belong to no event"):
            found.append(("gap", [line.strip(b" \t\r") for line in text.split(b"\n") if line.strip(b" \t\r")]))
            continue
        lines = [line.strip(b" \t\r") for line in text.split(b"\n") if line.strip(b" \t\r")]
        assert len(lines) <= 2
        deletes = json.loads(lines[0])["operation"] == "delete"
        found.append(("event", event.id, None if deletes else (lines[1] if len(lines) > 1 else b"{}")))
    return found


def plain(event_id: str, operation: str = "create") -> bytes:
    return b'{"id":"%b","module":"fim","operation":"%b"}' % (event_id.encode(), operation.encode())


LINES = [
    plain("c"),
    plain("c2"),
    plain("u", "update"),
    plain("d", "delete"),
    plain("n", "nothing"),
    b'{"id":"s","module":"inventory","collector":"ports","operation":"create"}',
    b'{"id":"o","module":"inventory","type":"ports","operation":"delete"}',
    b'{"id":"o","module":"inventory","type":"ports","collector":"ports","operation":"create"}',
    b'{"id":"o","module":"fim","type":"ports","operation":"create"}',
    b'{"id":"t", "type":"ports", "module":"inventory", "operation":"update"}',
    b'{"\\u006dodule":"fim","operation":"create","id":"escaped"}',
    b'{"module":"fim","operation":"create","id":"further","v":{"a":1}}',
    b'{"module":"fim","operation":"create","id":"twice","id":"twice"}',
    b'{"module":"fim","operation":"create","id":7}',
    b'{"module":"fim","operation":"create","id":"x","collector":[{}]}',
    b'{"module":"fim","module":3,"operation":"create","id":"x"}',
    b'{"module":3,"module":"fim","operation":"create","id":"x"}',
    b'{"module":"fim","operation":null,"id":"x"}',
    b'{"module":"fim","operation":"create"}',
    b'{"operation":"create","module":"command","id":"r"}',
    b'{"file":{"path":"x"}}',
    b'{"file":{"module":"fim","operation":"create"}}',
    b'{"operation":"create","file":1}',
    b'{"a":"\\u006f"}',
    b"{}",
    b"[]",
    b"[1,2]",
    b"nonsense",
    b'{"a":1',
    b'{"module":"fim","operation":"create"',
    b'{"module":"fim","operation":"create"} {}',
    b"\0",
    b"\xff",
    b'"operation"',
    b"",
    b" ",
    b"\t \r",
    b"\r",
]

lines_of_a_body = st.lists(
    st.one_of(
        st.sampled_from(LINES), st.sampled_from(LINES[:4]), st.sampled_from(LINES).map(lambda line: line + b"\r")
    ),
    max_size=20,
)


@given(lines_of_a_body, st.integers(1, 9), st.integers(1, 400), st.sampled_from([b"", b"\n", b"\r\n \n\t\n"]))
def test_the_same_as_the_simple_implementation(
    lines: list[bytes], max_events: int, max_bytes: int, before: bytes
) -> None:
    packet = before + b"\n".join([metadata(), *lines])
    expected = reference(packet)
    assert shown(packet, read(packet)) == expected
    reader = open_packet(packet, A1, Events())
    in_steps: list[Event] = []
    while not reader.exhausted:
        in_steps += reader.read(max_events, max_bytes)
    assert shown(packet, in_steps) == expected


@given(lines_of_a_body)
def test_what_is_sound_is_taken(lines: list[bytes]) -> None:
    """After whatever comes before them, and one header to end it, plain events are taken as they are."""
    good = [plain("1"), b'{"a":1}', plain("2", "delete"), plain("3", "update"), b'{"a":3}']
    packet = b"\n".join([metadata(), *lines, plain("end", "delete"), *good])
    last = read(packet)[-3:]
    assert [(event.id, type(event.action)) for event in last] == [(number, DocumentOperation) for number in "123"]


def test_a_result_of_a_command_without_data_is_no_result() -> None:
    (found,) = read(metadata() + b'\n{"id":"c","module":"command","operation":"update"}')
    assert not isinstance(found.action, CommandReport)


def test_time_is_linear_in_the_length() -> None:
    """Of what costs most: twice as much of it takes at most about twice as long, compared in one run."""
    costly = [
        b'{"id":"x","id":"x","module":"fim","operation":"create"}',
        b'{"module":"fim","operation":"create","x":' + b"[" * 3000 + b"]" * 3000 + b"}",
        b'"operation"',
        b"x",
        plain("x"),
        b'{"agent.x":1,"operation":"create"}',
        b" ",
    ]
    for line in costly:
        small = metadata() + b"\n" + b"\n".join([line] * (60_000 // len(line)))
        large = metadata() + b"\n" + b"\n".join([line] * (480_000 // len(line)))
        took = []
        for packet in (small, large):
            tries = []
            for _ in range(3):
                began = time.process_time()
                read(packet)
                tries.append(time.process_time() - began)
            took.append(min(tries))
        assert took[1] < 3 * 8 * took[0] + 0.02, line[:60]
