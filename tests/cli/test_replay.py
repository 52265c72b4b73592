"""Replays beside other nodes, each with a quarantine of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from trio.testing import MockClock

from tests.contract.harness import A1, INDEX
from wazuh_comms_trio.backends.interfaces import DocumentOperation, ItemResult, Outcome
from wazuh_comms_trio.backends.memory.stores import MemoryBackends, memory_backends
from wazuh_comms_trio.cli.replay import Replay
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.quarantine.interface import Entry, Rejected
from wazuh_comms_trio.quarantine.memory import MemoryQuarantine

KEY = (INDEX, f"{A1}_e")
EVENT = b'{"id":"e","module":"fim","operation":"create"}\n{"n":2}'
THERE = DocumentOperation("create", *KEY, b'{"n":1}')
LATER = DocumentOperation("create", *KEY, b'{"n":9}', own=True)


async def put_aside(backends: MemoryBackends) -> MemoryQuarantine:
    """What the document is at the refusal."""
    await backends.events.bulk([THERE])
    (version,) = await backends.events.versions([KEY])
    quarantine = MemoryQuarantine()
    metadata = b'{"agent":{"id":"%s"}}' % A1.encode()
    await quarantine.add([Rejected(A1, "stateful", "409: it exists", metadata, EVENT, "/".join(KEY), version)])
    return quarantine


async def test_another_node_may_keep_a_newer_event(config: Config, autojump_clock: MockClock) -> None:
    backends = memory_backends()
    quarantine = await put_aside(backends)
    (entry,) = await quarantine.list()
    careful = Replay(backends, quarantine, config, force=False, other_node="the node n2:27000")
    asked = await careful.replay(entry)
    assert asked.error is not None
    assert "it isn't known whether the node n2:27000 keeps a newer event" in asked.error
    assert not asked.overtaken
    assert (await backends.events.get(*KEY)) == b'{"n":1}'
    (left,) = await quarantine.list()
    assert left.replay_error == asked.error
    taken = await Replay(backends, quarantine, config, force=True, other_node=None).replay(entry)
    assert taken.error is None
    assert b'"n":2' in (await backends.events.get(*KEY) or b"")
    assert list(await quarantine.list()) == []


async def test_forced_it_still_writes_only_onto_the_same_document(config: Config, autojump_clock: MockClock) -> None:
    backends = memory_backends()
    quarantine = await put_aside(backends)
    (entry,) = await quarantine.list()
    await backends.events.bulk([LATER])
    forced = await Replay(backends, quarantine, config, force=True, other_node=None).replay(entry)
    assert forced.overtaken
    assert (await backends.events.get(*KEY)) == b'{"n":9}'
    (left,) = await quarantine.list()
    assert left.overtaken_at is not None


MANY = b'{"id":"%b","module":"fim","operation":"create"}\n{"n":%d}'
METADATA = b'{"agent":{"id":"%s"}}' % A1.encode()


async def many_of(
    config: Config, backends: MemoryBackends, *payloads: bytes, max_bytes: int = 1024**3
) -> tuple[Replay, MemoryQuarantine, Entry]:
    """One entry of several events, as earlier versions kept what followed a flaw."""
    quarantine = MemoryQuarantine(max_bytes=max_bytes)
    await quarantine.add([Rejected(A1, "stateful", "it was refused", METADATA, b"\n".join(payloads))])
    (entry,) = await quarantine.list()
    return Replay(backends, quarantine, config, force=True, other_node=None), quarantine, entry


def refuse(*ids: str) -> Callable[[DocumentOperation], ItemResult | None]:
    refused = ItemResult(400, "mapper_parsing_exception", Outcome.REFUSED)
    return lambda one: refused if one.document_id.removeprefix(f"{A1}_") in ids else None


async def test_what_is_left_of_an_entry_knows_its_documents(config: Config, autojump_clock: MockClock) -> None:
    backends = memory_backends()
    bad = b'{"id":"b","module":"fim","operation":"explode"}\n{"n":2}'
    replay, quarantine, entry = await many_of(
        config, backends, MANY % (b"a", 1), bad, MANY % (b"c", 3), MANY % (b"d", 4)
    )
    backends.events.judge = refuse("c")
    newer = Rejected(A1, "stateful", "why", METADATA, MANY % (b"c", 9), f"{INDEX}/{A1}_c", "absent")
    await quarantine.add([newer])
    done = await replay.replay(entry)
    assert [result["id"] for result in done.results] == ["a", "c", "d"]
    left = await quarantine.list()
    assert [(one.document.removeprefix(f"{INDEX}/{A1}_"), one.version, one.reason) for one in left] == [
        ("c", "absent", "why"),  # the newer one
        ("b", "", "Unknown operation"),
    ]
    assert (left[1].replay_error, left[1].first_at) == ("Unknown operation", entry.first_at)


async def test_what_was_not_tried_keeps_its_reason(config: Config, autojump_clock: MockClock) -> None:
    backends = memory_backends()
    report = b'{"id":"c1","module":"command","operation":"update"}\n{"command":{"result":{"code":0}}}'
    _, quarantine, entry = await many_of(config, backends, report, MANY % (b"a", 1))
    careful = Replay(backends, quarantine, config, force=False, other_node=None)
    await careful.replay(entry)
    (left,) = await quarantine.list()
    assert (left.reason, left.document) == ("it was refused", f"{INDEX}/{A1}_a")
    assert "--force" in (left.replay_error or "")


async def test_a_full_quarantine_holds_up_no_replay(config: Config, autojump_clock: MockClock) -> None:
    """Three entries would need more room than the one did: what is left stays together then."""
    backends = memory_backends()
    events = [MANY % (name.encode(), 1) for name in "abcd"]
    replay, quarantine, entry = await many_of(config, backends, *events, max_bytes=8000)
    backends.events.judge = refuse("a", "b", "d")
    await replay.replay(entry)
    ((left, kept),) = quarantine.stored.values()
    assert kept.payload == b"\n".join([events[0], events[1], events[3]])
    assert (left.reason, left.replay_error) == ("it was refused", "mapper_parsing_exception")
    backends.events.judge = refuse("b")
    await replay.replay(left)
    ((left, kept),) = quarantine.stored.values()
    assert (kept.payload, left.document) == (events[1], f"{INDEX}/{A1}_b")


async def test_what_was_taken_before_an_outage_is_not_replayed_again(config: Config, autojump_clock: MockClock) -> None:
    backends = memory_backends()
    events = [MANY % (name.encode(), 1) for name in "abc"]
    replay, quarantine, entry = await many_of(config, backends, *events)
    passing = ItemResult(503, "not now", Outcome.PASSING)
    backends.events.judge = lambda one: passing if one.document_id.endswith("b") else None
    with pytest.raises(BackendUnavailable):
        await replay.replay(entry)
    kept = [rejected.payload for rejected in quarantine.rejected]
    assert kept == events[1:]
    assert [one.replay_error for one in await quarantine.list()] == [
        "it wasn't tried: what it goes to couldn't be reached"
    ] * 2
