"""What documents that may be another's stood against: kept, bounded, and gone again when it is overtaken."""

from __future__ import annotations

import json
from typing import Any

import pytest
from trio.testing import MockClock

from tests.services.bench import A1, FIM, body, event, open_stateful, results
from wazuh_comms_trio.backends.interfaces import DocumentOperation, ItemResult, Outcome
from wazuh_comms_trio.config.models import Events
from wazuh_comms_trio.errors import StorageFull

GLOBAL = Events(document_id="global")


def update(event_id: str, **data: Any) -> bytes:
    return event(event_id, "update", data)


async def test_an_entry_knows_what_its_document_was(autojump_clock: MockClock) -> None:
    async with open_stateful(events=GLOBAL) as stateful:
        await stateful.submit(body(event("there", data={"n": 1})))
        versions = await stateful.backends.events.versions([(FIM, "there")])
        packet = body(event("there", data={"n": 2}), update("absent", n=2), event("gone", "delete"))
        assert results(await stateful.submit(packet)) == [("there", 409), ("absent", 404), ("gone", 404)]
        kept = [(entry.document, entry.version, entry.count) for entry in await stateful.quarantine.list()]
        assert kept == [(f"{FIM}/there", versions[0], 1), (f"{FIM}/absent", "absent", 1)]
        # A resend is counted; a newer event takes its place.
        await stateful.submit(packet)
        assert [entry.count for entry in await stateful.quarantine.list()] == [2, 2]
        await stateful.submit(body(update("absent", n=3)))
        (_, newer) = stateful.quarantine.rejected
        assert b'"n": 3' in newer.payload
        assert newer.reason.startswith("404: ")


async def test_what_is_overtaken_makes_room(autojump_clock: MockClock) -> None:
    """``max_bytes``: for a share of two of these events."""
    async with open_stateful(events=GLOBAL, max_bytes=30_000) as stateful:
        for name in "12":
            assert results(await stateful.submit(body(update(name, text="x" * 700)))) == [(name, 404)]
        with pytest.raises(StorageFull):
            await stateful.submit(body(update("3", text="x" * 700)))
        alarm = stateful.service.statistics().quarantine
        assert alarm is not None
        assert A1 in alarm
        await stateful.backends.events.bulk([DocumentOperation("create", FIM, "1", b'{"n":1}')])
        autojump_clock.jump(301)  # the entries were looked through a moment ago
        assert results(await stateful.submit(body(update("3", text="x" * 700)))) == [("3", 404)]
        assert stateful.service.statistics().quarantine is None
        found = {entry.document: entry.overtaken_at is not None for entry in await stateful.quarantine.list()}
        assert found == {f"{FIM}/1": True, f"{FIM}/2": False, f"{FIM}/3": False}


async def test_with_refuse_a_conflict_is_no_fault_of_the_body(autojump_clock: MockClock) -> None:
    async with open_stateful(events=Events(document_id="global", invalid="refuse")) as stateful:
        reply = await stateful.submit(body(update("absent", n=2), event("good")))
        assert results(reply) == [("absent", 404), ("good", 201)]
        assert json.loads(reply)["results"][0]["result"] == "[absent]: document missing"
        assert len(stateful.quarantine.rejected) == 1


async def test_nothing_of_ones_own_is_put_aside(autojump_clock: MockClock) -> None:
    async with open_stateful() as stateful:
        await stateful.submit(body(event("e", data={"n": 1})))
        packet = body(event("e", data={"n": 2}), update("new", n=1), event("e3", "delete"))
        assert [status for _, status in results(await stateful.submit(packet))] == [200, 201, 404]
        assert not stateful.quarantine.rejected


HEADER = b'\n{"id":"%b","module":"fim","operation":"update"}\n'


@pytest.mark.parametrize(
    "bad",
    [
        HEADER % b"e" + b'{"n":',
        HEADER % b"e" + b"[1]",
        HEADER % b"e" + b'{"n":"\xff"}',
        HEADER % b"e" + b'{"n":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'\n{"id":"e","module":"fim","operation":"upsert"}\n{}',
        b'\n{"id":"e","module":"fim","operation":"update","operation":"update"}\n{}',
        b'\n{"id":"e","module":"fim","operation":"update","extra":{"a":1,"a":2}}\n{}',
    ],
)
async def test_what_can_never_be_taken_knows_its_document(bad: bytes, autojump_clock: MockClock) -> None:
    """Of each document the newest is kept; what is applied after it overtakes it, in the same body and later."""
    async with open_stateful() as stateful:
        (first, _) = results(await stateful.submit(body(event("e"), bad)))
        assert first == ("e", 201)
        assert results(await stateful.submit(body(update("e", n=1), bad.replace(b'"e"', b'"new"')))) == [
            ("e", 200),
            ("new", 400),
        ]
        before, absent = await stateful.quarantine.list()
        assert (before.document, absent.document) == (f"{FIM}/{A1}_e", f"{FIM}/{A1}_new")
        (now,) = await stateful.backends.events.versions([(FIM, f"{A1}_e")])
        assert before.version not in ("", now)
        assert absent.version == "absent"
        later = bad.replace(b"update", b"create").replace(b"upsert", b"insert")
        await stateful.submit(body(later))
        assert [(entry.document, entry.version) for entry in await stateful.quarantine.list()] == [
            (absent.document, "absent"),
            (before.document, now),
        ]


@pytest.mark.parametrize(
    "bad",
    [
        b'\n{"id":"e","id":"f","module":"fim","operation":"update"}\n{}',
        b'\n{"id":"e","module":"fim","operation":"update","type":1}\n{}',
        b'\n{"id":"e","module":"nothing","operation":"update"}\n{}',
        b'\n{"id":"%b","module":"fim","operation":"update"}\n{}' % (b"x" * 513),
        b'\n{"id":"e","module":"command","operation":"create"}\n{}',
        b"\nnonsense",
    ],
)
async def test_what_names_no_document_for_certain_has_none(bad: bytes, autojump_clock: MockClock) -> None:
    async with open_stateful() as stateful:
        stateful.backends.events.faults.hang()  # nothing is asked of the index
        await stateful.submit(body(bad))
        (entry,) = await stateful.quarantine.list()
        assert (entry.document, entry.version) == ("", "")


async def test_what_a_later_event_of_the_body_affirms_is_overtaken(autojump_clock: MockClock) -> None:
    """A resend of ``[create x, update x]``: the create meets what the update made, and the update changes nothing."""
    async with open_stateful(events=GLOBAL) as stateful:
        packet = body(event("x", data={"n": 1}), update("x", n=2))
        assert [status for _, status in results(await stateful.submit(packet))] == [201, 200]
        assert [status for _, status in results(await stateful.submit(packet))] == [409, 200]
        (entry,) = await stateful.quarantine.list()
        (now,) = await stateful.backends.events.versions([(FIM, "x")])
        assert entry.version not in ("", now)


async def test_what_is_refused_behind_a_write_that_waits_knows_what_that_made(autojump_clock: MockClock) -> None:
    async with open_stateful(events=GLOBAL) as stateful:
        later = iter([ItemResult(503, "later", Outcome.PASSING)])
        stateful.backends.events.judge = lambda one: next(later, None) if one.body and b'"n"' in one.body else None
        packet = body(event("x", data={"n": 1}), HEADER % b"x" + b"[]")
        assert results(await stateful.submit(packet)) == [("x", 201), ("x", 400)]
        (entry,) = await stateful.quarantine.list()
        assert [entry.version] == list(await stateful.backends.events.versions([(FIM, "x")]))
