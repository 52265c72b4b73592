"""The contract of ``Quarantine``: in memory and on disk."""

import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.contract.harness import A1, A2, Clock
from wazuh_comms_trio.errors import StorageFull
from wazuh_comms_trio.quarantine.interface import OVERHEAD_BYTES, Quarantine, Rejected, Remaining
from wazuh_comms_trio.quarantine.memory import MemoryQuarantine
from wazuh_comms_trio.quarantine.store import open_quarantine_store

MAX_BYTES = 100_000_000
#: Bytes of a payload that has a file of its own, and of ten that leave room for two such and a half.
LARGE = 300_000
FILLING = (MAX_BYTES - 5 * LARGE // 2) // 10 - 2 * OVERHEAD_BYTES
CLOCK = Clock()


@pytest.fixture(params=["memory", pytest.param("stored", marks=pytest.mark.real_clock)])
async def quarantine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Quarantine]:
    CLOCK.now = 1000.0
    if request.param == "memory":
        yield MemoryQuarantine(max_bytes=MAX_BYTES, wall_clock=CLOCK)
        return
    async with open_quarantine_store(tmp_path / "quarantine", max_bytes=MAX_BYTES, wall_clock=CLOCK) as opened:
        yield opened


def rejected(payload: bytes = b'{"id":1}\nnonsense', *, agent_id: str = A1, reason: str = "bad JSON") -> Rejected:
    return Rejected(agent_id, "stateful", reason, b'{"agent":{"id":"x"}}', payload)


async def test_an_entry_comes_back_with_its_bytes(quarantine: Quarantine) -> None:
    stateless = Rejected(A2, "stateless", "line 1: truncated", b"", b"\x00\xff{")
    await quarantine.add([rejected(), stateless])
    first, second = await quarantine.list()
    assert (first.agent_id, first.kind, first.reason, first.count) == (A1, "stateful", "bad JSON", 1)
    assert first.first_at == first.last_at == 1000.0
    assert await quarantine.get(first.id) == (first, rejected())
    assert await quarantine.get(second.id) == (second, stateless)
    assert b"".join([piece async for piece in quarantine.payload(second.id)]) == stateless.payload
    usage = await quarantine.usage()
    assert (usage.entries, usage.bytes, usage.max_bytes) == (2, first.size + second.size, MAX_BYTES)


async def test_it_is_empty_at_first(quarantine: Quarantine) -> None:
    await quarantine.add([])
    assert list(await quarantine.list()) == []
    assert await quarantine.get(1) is None
    assert [piece async for piece in quarantine.payload(1)] == []
    assert await quarantine.drop([1]) == 0
    await quarantine.note_replay(1, "why")
    assert (await quarantine.usage()).entries == 0


async def test_equal_entries_of_an_agent_are_kept_once(quarantine: Quarantine) -> None:
    await quarantine.add([rejected(), rejected()])
    CLOCK.advance(5)
    await quarantine.add([rejected(reason="another reason, same bytes"), rejected(agent_id=A2), rejected(b"other")])
    first, second, third = await quarantine.list()
    assert (first.count, first.first_at, first.last_at) == (3, 1000.0, 1005.0)
    assert (second.agent_id, second.count) == (A2, 1)
    assert (await quarantine.usage()).bytes == first.size + second.size + third.size


@pytest.mark.parametrize("size", [0, 256 * 1024, 256 * 1024 + 1, 3 * 1024 * 1024 + 7])
async def test_large_payloads(quarantine: Quarantine, size: int) -> None:
    payload = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    for _ in range(2):
        await quarantine.add([rejected(b"small"), rejected(payload)])
    await quarantine.add_file(rejected(b""), io.BytesIO(payload), len(payload))
    entries = await quarantine.list()
    assert [(entry.payload_bytes, entry.count) for entry in entries] == [(5, 2), (size, 3)]
    found = await quarantine.get(entries[1].id)
    assert found is not None
    assert found[1].payload == payload
    pieces = [piece async for piece in quarantine.payload(entries[1].id)]
    assert b"".join(pieces) == payload
    assert all(len(piece) <= 1024 * 1024 for piece in pieces)
    assert await quarantine.drop([entry.id for entry in entries]) == 2
    assert (await quarantine.usage()).bytes == 0
    assert await quarantine.get(entries[1].id) is None


async def test_a_file_is_read_from_its_beginning(quarantine: Quarantine) -> None:
    file = io.BytesIO(b"0123456789")
    file.seek(5)
    await quarantine.add_file(rejected(b""), file, 8)
    (entry,) = await quarantine.list()
    assert [piece async for piece in quarantine.payload(entry.id)] == [b"01234567"]
    assert not file.closed


async def test_one_agent_fills_a_tenth(quarantine: Quarantine) -> None:
    share = MAX_BYTES // 10
    metadata_and_reason = len(rejected().metadata) + len(rejected().reason)
    largest = share - OVERHEAD_BYTES - metadata_and_reason
    with pytest.raises(StorageFull):
        await quarantine.add([rejected(b"x" * (largest + 1))])
    await quarantine.add([rejected(b"x" * largest)])
    with pytest.raises(StorageFull):
        await quarantine.add([rejected(b"")])
    await quarantine.add([rejected(b"x" * largest)])  # known: needs no room
    await quarantine.add([rejected(b"", agent_id=A2)])
    (first, _) = await quarantine.list()
    await quarantine.drop([first.id])
    await quarantine.add([rejected(b"")])


async def test_all_of_a_call_or_none(quarantine: Quarantine) -> None:
    with pytest.raises(StorageFull):
        await quarantine.add([rejected(b"fits"), rejected(b"x" * (MAX_BYTES // 10)), rejected(b"fits too")])
    assert list(await quarantine.list()) == []
    assert (await quarantine.usage()).bytes == 0


async def test_a_call_that_came_to_nothing_counted_nothing(quarantine: Quarantine) -> None:
    await quarantine.add([rejected(b"known"), rejected(b"known")])
    before = list(await quarantine.list()), await quarantine.usage()
    CLOCK.now += 1
    with pytest.raises(StorageFull):
        await quarantine.add(
            [rejected(b"known"), rejected(b"new"), rejected(b"new"), rejected(b"x" * (MAX_BYTES // 10))]
        )
    assert (list(await quarantine.list()), await quarantine.usage()) == before
    await quarantine.add([rejected(b"new"), rejected(b"known")])
    assert [entry.count for entry in await quarantine.list()] == [3, 1]


async def test_the_whole_has_a_limit(quarantine: Quarantine) -> None:
    payload = b"x" * (MAX_BYTES // 10 - 1000)
    for number in range(10):
        await quarantine.add([rejected(payload, agent_id=f"agent-{number}")])
    with pytest.raises(StorageFull):
        await quarantine.add([rejected(b"x" * 10_000, agent_id="agent-10")])


async def test_list_by_agent_and_page(quarantine: Quarantine) -> None:
    await quarantine.add([rejected(b"%d" % n, agent_id=A1 if n % 2 else A2) for n in range(6)])
    entries = await quarantine.list()
    assert [entry.id for entry in entries] == sorted(entry.id for entry in entries)
    assert [entry.id for entry in await quarantine.list(agent_id=A1)] == [entry.id for entry in entries[1::2]]
    assert [entry.id for entry in await quarantine.list(limit=2)] == [entry.id for entry in entries[:2]]
    assert [entry.id for entry in await quarantine.list(after=entries[3].id)] == [entry.id for entry in entries[4:]]


async def test_ids_are_not_used_again(quarantine: Quarantine) -> None:
    await quarantine.add([rejected(b"1")])
    (first,) = await quarantine.list()
    await quarantine.drop([first.id])
    await quarantine.add([rejected(b"2")])
    (second,) = await quarantine.list()
    assert second.id > first.id


async def test_a_failed_replay_is_noted(quarantine: Quarantine) -> None:
    await quarantine.add([rejected()])
    (entry,) = await quarantine.list()
    CLOCK.advance(7)
    await quarantine.note_replay(entry.id, "still bad")
    (entry,) = await quarantine.list()
    assert (entry.replayed_at, entry.replay_error) == (1007.0, "still bad")


async def test_many_at_once(quarantine: Quarantine) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(60):
            nursery.start_soon(quarantine.add, [rejected(b"%d" % (number % 20))])
    entries = await quarantine.list()
    assert len(entries) == 20
    assert {entry.count for entry in entries} == {3}


# --- entries on one document ---


def on(document: str, payload: bytes, version: str = "1.a", *, agent_id: str = A1) -> Rejected:
    return Rejected(agent_id, "stateful", "409: it exists", b'{"agent":{"id":"x"}}', payload, document, version)


async def test_one_entry_a_document_the_newest(quarantine: Quarantine) -> None:
    await quarantine.add([on("i/1", b"old"), on("i/2", b"other"), rejected(b"of no document")])
    CLOCK.advance(5)
    await quarantine.add([on("i/1", b"newer", "absent"), on("i/1", b"newest", "2.b"), on("i/1", b"newest", "3.c")])
    entries = await quarantine.list()
    assert [(entry.document, entry.version, entry.count) for entry in entries] == [
        ("i/2", "1.a", 1),
        ("", "", 1),
        ("i/1", "3.c", 2),
    ]
    found = await quarantine.get(entries[2].id)
    assert found is not None
    assert (found[1].payload, found[1].document, found[1].version) == (b"newest", "i/1", "3.c")
    assert (await quarantine.usage()).bytes == sum(entry.size for entry in entries)


async def test_a_call_that_comes_again_is_taken_again(quarantine: Quarantine) -> None:
    """As long as its agent sent two large events on one document in one body, whose answer was lost, that was 503: what
    is kept of the second one was taken for kept, and dropped for the first one's sake."""
    call = [on("i/1", b"1" * LARGE), on("i/1", b"2" * LARGE), on("i/2", b"other")]
    for _ in range(3):
        await quarantine.add(call)
        kept = {entry.document: entry for entry in await quarantine.list()}
        assert {document: entry.payload_bytes for document, entry in kept.items()} == {"i/1": LARGE, "i/2": 5}
    assert b"".join([piece async for piece in quarantine.payload(kept["i/1"].id)]) == b"2" * LARGE


async def test_what_is_overtaken_and_comes_again_is_taken_when_room_is_needed(quarantine: Quarantine) -> None:
    """Likewise: dropped for the room of one before it in its call."""
    again = on("i/1", b"1" * LARGE)
    others = [on(f"f/{number}", bytes([number]) * FILLING, agent_id=f"other{number}") for number in range(10)]
    await quarantine.add([again])
    await quarantine.add([on("i/3", b"overtaken, too" * (LARGE // 14))])
    await quarantine.mark_overtaken([entry.id for entry in await quarantine.list()])
    for other in others:
        await quarantine.add([other])
    await quarantine.add([on("i/2", b"3" * LARGE), again])
    there = {entry.document for entry in await quarantine.list()}
    assert there == {"i/1", "i/2", *(other.document for other in others)}


async def test_what_a_newer_one_replaces_comes_back_when_that_has_no_room(quarantine: Quarantine) -> None:
    await quarantine.add([on("i/1", b"old")])
    with pytest.raises(StorageFull):
        await quarantine.add([on("i/1", b"x" * (MAX_BYTES // 10))])
    (entry,) = await quarantine.list()
    assert entry.payload_bytes == 3


async def test_a_large_one_that_is_replaced_goes_with_its_file(quarantine: Quarantine, tmp_path: Path) -> None:
    await quarantine.add([on("i/1", b"x" * 300_000)])
    await quarantine.add([on("i/1", b"y" * 300_001)])
    (entry,) = await quarantine.list()
    assert b"".join([piece async for piece in quarantine.payload(entry.id)]) == b"y" * 300_001
    files = list((tmp_path / "quarantine" / "payloads").glob("*"))
    assert [file.stat().st_size for file in files] == [300_001] * len(files)


async def test_what_is_overtaken_is_not_counted_in_the_share(quarantine: Quarantine) -> None:
    large = b"x" * (MAX_BYTES // 10 - 1000)
    await quarantine.add([on("i/1", large)])
    with pytest.raises(StorageFull):
        await quarantine.add([on("i/2", large + b"2")])
    assert quarantine.alarm() is not None
    assert A1 in (quarantine.alarm() or "")
    (entry,) = await quarantine.list()
    CLOCK.advance(3)
    await quarantine.mark_overtaken([entry.id, 99])
    await quarantine.add([on("i/2", large + b"2")])
    assert quarantine.alarm() is None
    first, second = await quarantine.list()
    assert (first.overtaken_at, second.overtaken_at) == (1003.0, None)
    assert (await quarantine.usage()).entries == 2
    # The same event again is current again: then it counts.
    await quarantine.add([on("i/1", large, "5.e")])
    assert [(entry.overtaken_at, entry.version) for entry in await quarantine.list()] == [(None, "5.e"), (None, "1.a")]
    with pytest.raises(StorageFull):
        await quarantine.add([rejected(b"small")])
    await quarantine.drop([first.id, second.id])
    assert (await quarantine.usage()).bytes == 0
    await quarantine.add([rejected(large)])


async def test_what_is_overtaken_goes_first_when_room_is_needed(quarantine: Quarantine) -> None:
    large = b"x" * (MAX_BYTES // 10 - 1000)
    await quarantine.add([on(f"i/{n}", large, agent_id=f"agent-{n}") for n in range(10)])
    entries = await quarantine.list()
    await quarantine.mark_overtaken([entries[number].id for number in (3, 6, 7)])
    await quarantine.add([on("i/10", large, agent_id="agent-10"), on("i/11", large, agent_id="agent-11")])
    left = [entry.document for entry in await quarantine.list()]
    assert left == [f"i/{n}" for n in (0, 1, 2, 4, 5, 7, 8, 9, 10, 11)]
    await quarantine.add([on("i/12", large, agent_id="agent-12")])
    with pytest.raises(StorageFull):
        await quarantine.add([on("i/13", large, agent_id="agent-13")])
    assert "i/7" not in [entry.document for entry in await quarantine.list()]


# --- what stays of an entry ---


def stays(one: Rejected, error: str = "still bad") -> Remaining:
    return Remaining(one, error)


async def test_what_stays_of_an_entry_is_as_old_as_it_was(quarantine: Quarantine) -> None:
    await quarantine.add([rejected(b"many\nlines\nof\nevents"), rejected(b"equal")])
    many, equal = await quarantine.list()
    CLOCK.advance(5)
    await quarantine.add([on("i/1", b"newer")])
    CLOCK.advance(5)
    await quarantine.replace(
        many.id,
        [
            stays(on("i/1", b"older")),
            stays(on("i/2", b"first", "")),
            stays(on("i/2", b"second", ""), "why"),
            stays(rejected(b"equal")),
            stays(rejected(b"x" * 300_000)),
        ],
    )
    kept = {entry.payload_bytes: entry for entry in await quarantine.list()}
    payloads = [found[1].payload for entry in await quarantine.list() if (found := await quarantine.get(entry.id))]
    assert payloads == [b"equal", b"newer", b"second", b"x" * 300_000]
    second = kept[len(b"second")]
    assert (second.document, second.version) == ("i/2", "")
    assert (second.first_at, second.last_at) == (1000.0, 1000.0)
    assert (second.replayed_at, second.replay_error) == (1010.0, "why")
    assert (await quarantine.list())[0] == equal
    usage = await quarantine.usage()
    assert usage.bytes == sum(entry.size for entry in await quarantine.list())
    # What comes later on the document takes its place, and one that is gone isn't replaced.
    await quarantine.add([on("i/2", b"third")])
    await quarantine.replace(many.id, [stays(on("i/9", b"late"))])
    assert sorted(entry.document for entry in await quarantine.list()) == ["", "", "i/1", "i/2"]


async def test_what_stays_needs_no_more_room_than_the_entry_did(quarantine: Quarantine) -> None:
    share = MAX_BYTES // 10
    whole = share - len(rejected(b"").metadata) - len(rejected(b"").reason) - OVERHEAD_BYTES
    await quarantine.add([rejected(b"x" * whole)])
    (full,) = await quarantine.list()
    halves = [stays(rejected(b"x" * (whole // 2))), stays(rejected(b"y" * (whole // 2)))]
    with pytest.raises(StorageFull):  # with what two entries cost beside their bytes
        await quarantine.replace(full.id, halves)
    assert [entry.size for entry in await quarantine.list()] == [share]
    await quarantine.replace(full.id, [stays(rejected(b"x" * (whole - 1)))])
    assert (await quarantine.usage()).bytes == share - 1
    assert [entry.payload_bytes for entry in await quarantine.list()] == [whole - 1]


async def test_with_the_clock_set_back_the_newer_event_is_kept(quarantine: Quarantine) -> None:
    """Which one is the newest isn't told by the time."""
    await quarantine.add([on("i/again", b"before and after")])
    await quarantine.add([rejected(b"many\nlines")])
    again, many = await quarantine.list()
    CLOCK.advance(-500)
    await quarantine.add([on("i/1", b"newer"), on("i/again", b"before and after")])
    await quarantine.add([on("i/2", b"newest")])
    remaining = [
        on("i/1", b"older"),
        on("i/2", b"older, too"),
        on("i/again", b"older than the second"),
        on("i/3", b"alone"),
    ]
    await quarantine.replace(many.id, list(map(stays, remaining)))
    kept = {
        found[1].document: found[1].payload for e in await quarantine.list() if (found := await quarantine.get(e.id))
    }
    assert kept == {"i/1": b"newer", "i/2": b"newest", "i/again": b"before and after", "i/3": b"alone"}
    # What stays is as old as it was: a second time, too.
    alone = next(entry for entry in await quarantine.list() if entry.document == "i/3")
    await quarantine.add([on("i/4", b"newer")])
    await quarantine.replace(alone.id, [stays(on("i/4", b"older"))])
    assert [entry.payload_bytes for entry in await quarantine.list() if entry.document == "i/4"] == [len(b"newer")]
    assert again.id in [entry.id for entry in await quarantine.list()]
