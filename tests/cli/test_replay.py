"""Replays beside other nodes, each with a quarantine of its own."""

from __future__ import annotations

from trio.testing import MockClock

from tests.contract.harness import A1, INDEX
from wazuh_comms_trio.backends.interfaces import DocumentOperation
from wazuh_comms_trio.backends.memory.stores import MemoryBackends, memory_backends
from wazuh_comms_trio.cli.replay import Replay
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.quarantine.interface import Rejected
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
