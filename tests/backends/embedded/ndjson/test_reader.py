"""What the operator's tool shows of embedded events."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest
import trio

from tests.contract.harness import A1, INDEX, Clock, embedded_config
from wazuh_comms_trio.backends.embedded.reader import EventTail, TailedEvent, tail_events
from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.backends.interfaces import Backends, DocumentOperation

pytestmark = pytest.mark.real_clock

BODY = (
    b'{"agent":{"id":"a"}}\r\n{"module":"m","collector":"c"}\n{"n":1e999}\n{"module":"o"}\n{"n":2}\n\n{"left":"over"}'
)


async def pieces(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


async def send(backends: Backends, body: bytes) -> None:
    async with aclosing(pieces(body)) as chunks:
        await backends.engine.send_events(chunks, agent_id=A1, length=None)


async def test_events_and_documents_in_the_order_of_time(tmp_path: Path) -> None:
    clock = Clock()
    config = embedded_config(tmp_path)
    folder = config.communications_api.embedded.path
    assert [event async for event in tail_events(folder)] == []
    async with open_backends(config, wall_clock=clock) as backends:
        await send(backends, BODY)
        clock.advance(1)
        await backends.events.bulk([DocumentOperation("create", INDEX, f"{A1}_1", b'{ "x":1.0,\n"y":"\xc3\xa9"}')])
        clock.advance(1)
        await send(backends, b'{"agent":{}}\n{"module":"last"}\n{"n":3}\n')
        events = [event async for event in tail_events(folder)]
    assert [event.kind for event in events] == ["stateless", "stateless", "stateless", "stateful", "stateless"]
    lines = [event.encode() for event in events]
    assert b'"data":{"n":1e999}' in lines[0]
    assert b"\n" not in b"".join(lines)
    first, _, third, document, last = (json.loads(line) for line in lines)
    assert first["metadata"] == {"agent": {"id": "a"}}
    assert (first["agent_id"], first["event"]) == (A1, {"module": "m", "collector": "c"})
    assert first["received"] == "2025-06-15T15:06:40.000Z"
    assert third["event"] == {"left": "over"}
    assert "data" not in third
    assert document == {
        "kind": "stateful",
        "received": "2025-06-15T15:06:41.000Z",
        "index": INDEX,
        "document_id": f"{A1}_1",
        "version": 1,
        "data": {"x": 1.0, "y": "é"},
    }
    assert last["event"] == {"module": "last"}


async def test_following_shows_each_once(tmp_path: Path) -> None:
    config = embedded_config(tmp_path)
    tail = EventTail.of(config.communications_api.embedded.path)

    def data() -> list[object]:
        return [json.loads(event.encode()).get("data") for event in tail.poll()]

    async with open_backends(config) as backends:
        await send(backends, b'{}\n{}\n{"n":1}\n')
        await backends.events.bulk([DocumentOperation("create", INDEX, n, b'{"d":%b}' % n.encode()) for n in "12"])
        assert sorted(map(str, data())) == ["{'d': 1}", "{'d': 2}", "{'n': 1}"]
        assert data() == []
        await backends.events.bulk([DocumentOperation("update", INDEX, "1", b'{"e":3}')])
        await send(backends, b'{}\n{}\n{"n":2}\n')
        assert sorted(map(str, data())) == ["{'d': 1, 'e': 3}", "{'n': 2}"]
        # The newest is deleted, and another comes: its number must be a new one.
        await backends.events.bulk([DocumentOperation("delete", INDEX, "1")])
        await backends.events.bulk([DocumentOperation("create", INDEX, "3", b'{"d":4}')])
        assert data() == [{"d": 4}]
        large = b'{}\n{}\n{"m":"%b"}\n' % (b"x" * 1_500_000)
        await send(backends, large)
        assert [len(str(item)) for item in data()] == [1_500_009]


async def test_follow_waits_for_what_comes(tmp_path: Path) -> None:
    config = embedded_config(tmp_path)
    seen: list[TailedEvent] = []

    async def follow() -> None:
        async with aclosing(tail_events(config.communications_api.embedded.path, follow=True, interval=0.01)) as tail:
            async for event in tail:
                seen.append(event)
                if len(seen) == 2:
                    return

    with trio.fail_after(10):
        async with open_backends(config) as backends, trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await send(backends, b'{}\n{}\n{"n":1}\n')
            await backends.events.bulk([DocumentOperation("create", INDEX, "1", b"{}")])
    assert {event.kind for event in seen} == {"stateless", "stateful"}


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b'{"a":1}', {"a": 1}),
        (rb'{"a":"\udced"}', {"a": "\udced"}),
        (b'{"a":', '{"a":'),
        (b'{"a":"\xff"}', '{"a":"\\xff"}'),
        (b"[" * 2000, "[" * 2000),
    ],
)
def test_what_is_printed_is_json(line: bytes, shown: object) -> None:
    event = TailedEvent("stateful", 1.0, data=line, index="i", document_id="d", version=1)
    assert json.loads(event.encode())["data"] == shown
