"""The contract of ``Engine``."""

import json
import os
from collections.abc import AsyncIterator

import pytest
import trio

from tests.contract.harness import A1, A2, Harness
from wazuh_comms_trio.backends.interfaces import Backends, BodyRefused
from wazuh_comms_trio.errors import BackendUnavailable, ClientDisconnected, EngineRefused

BODY = b'{"agent":{"id":"a"}}\n{"module":"m","collector":"c"}\n{"message":"hello","n":1e999}\n'


async def pieces(body: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        await trio.lowlevel.checkpoint()
        yield body[start : start + size]


async def broken(body: bytes) -> AsyncIterator[bytes]:
    yield body
    raise ClientDisconnected


def taken(harness: Harness) -> list[tuple[str, bytes]]:
    if harness.taken is None:
        pytest.skip("what this engine has can't be seen")
    return harness.taken()


@pytest.mark.parametrize(
    "body",
    [
        BODY,
        BODY.replace(b"\n", b"\r\n"),
        BODY.removesuffix(b"\n"),
        BODY + b"\n\r\n\n",
        b'{"a":1}',
        b'{"a":"\xc3\xa9\\ud800"}\n',
        b'{"@received":"2025-03-11T19:12:36.629Z","agent":"x","bytes":5,"crc32":"00000000"}\n{"a":1}\n',
    ],
)
async def test_a_body_is_kept_unchanged(harness: Harness, backends: Backends, body: bytes) -> None:
    for length in (len(body), None):
        await backends.engine.send_events(pieces(body, 7), agent_id=A1, length=length)
    assert taken(harness) == [(A1, body), (A1, body)]


@pytest.mark.parametrize("size", [1024 * 1024, 1024 * 1024 + 1, 5 * 1024 * 1024])
@pytest.mark.parametrize("last", [b"\n", b""])
async def test_a_large_body(harness: Harness, backends: Backends, size: int, last: bytes) -> None:
    line = json.dumps({"message": "x" * 1000}).encode() + b"\n"
    body = (line * (size // len(line))).removesuffix(b"\n") + last
    body = body + b" " * (size - len(body)) if not last else body
    await backends.engine.send_events(pieces(BODY), agent_id=A2, length=None)
    await backends.engine.send_events(pieces(body), agent_id=A1, length=len(body))
    await backends.engine.send_events(pieces(BODY), agent_id=A2, length=None)
    found = taken(harness)
    assert sorted(agent for agent, _ in found) == [A1, A2, A2]
    assert [kept for agent, kept in found if agent == A1] == [body]


async def test_many_at_once_are_all_kept(harness: Harness, backends: Backends) -> None:
    async def send(body: bytes) -> None:
        await backends.engine.send_events(pieces(body), agent_id=A1, length=None)

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(send, b'{"agent":{}}\n{"n":%d}\n' % number)
    assert sorted(body for _, body in taken(harness)) == sorted(b'{"agent":{}}\n{"n":%d}\n' % n for n in range(100))


@pytest.mark.parametrize(
    ("bad", "where"),
    [
        (BODY + b"{", "line 4"),
        (b"{}\n{}\nnot json\n{}\n", "line 3"),
        (b'{}\n{"a":"\xff"}\n', "line 2"),
        (b'{}\n{"a":NaN}\n', "line 2"),
        (b'{}\n{"a":\n1}\n', "line 2"),
        (b"{}\n" + b"[" * 100_000 + b"]" * 100_000, "line 2"),
        (b"{}\n{} {}\n", "line 2"),
        (b"\x00\n", "line 1"),
    ],
)
@pytest.mark.parametrize("padding", [0, 2 * 1024 * 1024])
async def test_what_is_not_json_is_refused_for_good(
    harness: Harness, backends: Backends, bad: bytes, where: str, padding: int
) -> None:
    body = bad + b"\n" * padding
    with pytest.raises(EngineRefused) as caught:
        await backends.engine.send_events(pieces(body), agent_id=A1, length=len(body))
    assert where in caught.value.message
    assert taken(harness) == []
    if isinstance(caught.value, BodyRefused) and caught.value.consumed.descriptor is not None:
        os.close(caught.value.consumed.descriptor)


@pytest.mark.parametrize("body", [BODY, b'{"a":1}\n' * 200_000])
async def test_who_leaves_in_the_middle_leaves_nothing(harness: Harness, backends: Backends, body: bytes) -> None:
    with pytest.raises(ClientDisconnected):
        await backends.engine.send_events(broken(body), agent_id=A1, length=None)
    assert taken(harness) == []


async def test_a_refused_body_does_not_touch_its_neighbours(harness: Harness, backends: Backends) -> None:
    refused = []

    async def send(body: bytes) -> None:
        try:
            await backends.engine.send_events(pieces(body), agent_id=A1, length=len(body))
        except EngineRefused:
            refused.append(body)

    async with trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(send, b'{"n":%d}\n' % number if number % 3 else b"{%d\n" % number)
    assert sorted(refused) == sorted(b"{%d\n" % n for n in range(0, 30, 3))
    assert sorted(body for _, body in taken(harness)) == sorted(b'{"n":%d}\n' % n for n in range(30) if n % 3)


async def test_an_outage_is_a_passing_failure(harness: Harness, backends: Backends) -> None:
    if harness.outage is None:
        pytest.skip("no outages to be had")
    await backends.engine.send_events(pieces(BODY), agent_id=A1, length=None)
    async with harness.outage():
        with pytest.raises(BackendUnavailable):
            await backends.engine.send_events(pieces(BODY), agent_id=A2, length=None)
    await backends.engine.send_events(pieces(BODY), agent_id=A2, length=None)
    assert [agent for agent, _ in taken(harness)] == [A1, A2]


test_an_outage_is_a_passing_failure = pytest.mark.expects_errors(test_an_outage_is_a_passing_failure)
