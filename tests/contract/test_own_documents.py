"""The contract of ``EventIndex`` for documents that are an agent's own: they follow it."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tests.contract.harness import INDEX, op
from wazuh_comms_trio.backends.document_rules import Document, Key, plan
from wazuh_comms_trio.backends.interfaces import Backends, DocumentOperation, ItemResult, Outcome


async def stored(backends: Backends, document_id: str) -> Any:
    body = await backends.events.get(INDEX, document_id)
    return None if body is None else json.loads(body)


async def bulk(backends: Backends, *operations: DocumentOperation) -> list[tuple[int, str]]:
    results = await backends.events.bulk(operations)
    assert {result.outcome for result in results} == {Outcome.DONE}
    return [(result.status, result.result) for result in results]


async def test_a_create_of_what_exists_replaces_it(backends: Backends) -> None:
    assert await bulk(backends, op("create", "1", old=1)) == [(201, "created")]
    assert await bulk(backends, op("create", "1", new=2)) == [(200, "updated")]
    assert await stored(backends, "1") == {"new": 2}
    assert await bulk(backends, op("create", "1", new=2)) == [(200, "noop")]


async def test_an_update_of_what_does_not_exist_makes_it(backends: Backends) -> None:
    assert await bulk(backends, op("update", "1", a={"b": 1}), op("delete", "2")) == [
        (201, "created"),
        (404, "not_found"),
    ]
    assert await stored(backends, "1") == {"a": {"b": 1}}
    assert await bulk(backends, op("update", "1", a={"c": 2})) == [(200, "updated")]
    assert await stored(backends, "1") == {"a": {"b": 1, "c": 2}}
    assert await bulk(backends, op("update", "1", a={"c": 2})) == [(200, "noop")]


@pytest.mark.parametrize("before", [False, True])
async def test_what_follows_in_the_same_call_is_applied_after(backends: Backends, before: bool) -> None:
    if before:
        await bulk(backends, *(op("create", str(number), old=number) for number in range(8)))
    await bulk(
        backends,
        op("create", "0", a=1),
        op("update", "0", b=2),
        op("create", "1", a=1),
        op("delete", "1"),
        op("delete", "2"),
        op("update", "2", b=2),
        op("create", "3", a=1),
        op("create", "3", b=2),
        op("update", "4", a=1),
        op("create", "4", b=2),
        op("update", "4", c={"d": 3}),
        op("create", "5", a=1),
        op("delete", "5"),
        op("update", "5", b=2),
        op("update", "5", c=3),
        op("update", "6", a=1),
        op("delete", "6"),
        op("create", "6", b=2),
        op("update", "7", a=1),
        op("delete", "7"),
    )
    assert [await stored(backends, str(number)) for number in range(8)] == [
        {"a": 1, "b": 2},
        None,
        {"b": 2},
        {"b": 2},
        {"b": 2, "c": {"d": 3}},
        {"b": 2, "c": 3},
        {"b": 2},
        None,
    ]


async def test_any_calls_end_in_the_same_documents_and_a_resend_too(backends: Backends) -> None:
    """As the rules work them out, whatever was there; and what is sent again is applied again, to the same end."""
    chance = random.Random(11)
    current: dict[Key, Document] = {}
    for _ in range(12):
        calls = []
        for _ in range(chance.randrange(1, 25)):
            action: Any = chance.choice(["create", "create", "update", "update", "update", "delete"])
            data = {chance.choice("abc"): chance.choice([1, 2, {"x": chance.randrange(3)}, [1], None])}
            calls.append(op(action, str(chance.randrange(8)), **data))
        for again in range(2):
            results = await bulk(backends, *calls)
            assert all(status < 300 or result == "not_found" for status, result in results)
            if again == 0:
                _, changes = plan(calls, current)
                for key, document in changes.items():
                    if document is None:
                        current.pop(key, None)
                    else:
                        current[key] = document
            for number in range(8):
                expected = current.get((INDEX, str(number)))
                assert await stored(backends, str(number)) == (None if expected is None else json.loads(expected.body))


async def test_a_resend_of_single_ids_is_a_noop(backends: Backends) -> None:
    await bulk(backends, op("create", "0", old=1))
    calls = [op("create", "0", a=1), op("update", "1", b=2), op("create", "2", c=3)]
    assert await bulk(backends, *calls) == [(200, "updated"), (201, "created"), (201, "created")]
    assert await bulk(backends, *calls) == [(200, "noop")] * 3


async def test_one_that_is_refused_harms_no_other(backends: Backends) -> None:
    await bulk(backends, op("create", "1", old=1))
    bad = DocumentOperation("update", INDEX, "2", b'{"a":', own=True)
    results = await backends.events.bulk([op("create", "1", a=1), bad, op("update", "2", b=2), op("update", "1", c=3)])
    assert [result.outcome for result in results] == [Outcome.DONE, Outcome.REFUSED, Outcome.DONE, Outcome.DONE]
    assert await stored(backends, "1") == {"a": 1, "c": 3}
    assert await stored(backends, "2") == {"b": 2}


async def test_many_are_replaced_in_one_call(backends: Backends) -> None:
    count = 450
    await bulk(backends, *(op("create", str(number), old=number) for number in range(count)))
    results = await bulk(backends, *(op("create", str(number), new=number) for number in range(count)))
    assert set(results) == {(200, "updated")}
    assert await stored(backends, str(count - 1)) == {"new": count - 1}


async def test_where_documents_may_be_anothers_nothing_is_replaced(backends: Backends) -> None:
    await bulk(backends, op("create", "1", old=1))
    shared = DocumentOperation("create", INDEX, "1", b'{"new":1}'), DocumentOperation("update", INDEX, "2", b'{"n":1}')
    results: list[ItemResult] = list(await backends.events.bulk(shared))
    assert [result.status for result in results] == [409, 404]
    assert await stored(backends, "1") == {"old": 1}
    assert await stored(backends, "2") is None


# --- versions, and writes to exactly one ---


def exactly(operation: DocumentOperation, version: str) -> DocumentOperation:
    return DocumentOperation(
        operation.action, operation.index, operation.document_id, operation.body, own=True, expected=version
    )


async def test_what_a_document_was_when_an_event_was_refused(backends: Backends) -> None:
    await bulk(backends, op("create", "1", a=1))
    missing, conflict, bad = await backends.events.bulk(
        [
            DocumentOperation("update", INDEX, "2", b'{"a":2}'),
            DocumentOperation("create", INDEX, "1", b'{"a":2}'),
            DocumentOperation("update", INDEX, "1", b'{"a":'),
        ]
    )
    now = await backends.events.versions([(INDEX, "2"), (INDEX, "1")])
    assert [missing.version, conflict.version] == list(now)
    assert missing.version == "absent"
    assert bad.version in ("", conflict.version)
    await bulk(backends, op("update", "1", b=1))
    (later,) = await backends.events.versions([(INDEX, "1")])
    assert later not in ("", "absent", conflict.version)
    await bulk(backends, op("delete", "1"), op("create", "1", a=2))
    assert (await backends.events.versions([(INDEX, "1")]))[0] not in ("", "absent", conflict.version, later)


async def test_a_write_to_exactly_what_is_expected(backends: Backends) -> None:
    await bulk(backends, op("create", "1", a=1))
    (version,) = await backends.events.versions([(INDEX, "1")])
    results = await backends.events.bulk(
        [
            exactly(op("create", "1", b=2), "absent"),
            exactly(op("create", "2", b=2), version),
            exactly(op("update", "2", b=2), "absent"),
            exactly(op("create", "1", b=2), version),
            exactly(op("create", "1", c=3), version),
        ]
    )
    assert [result.status for result in results] == [412, 412, 201, 200, 412]
    assert await stored(backends, "1") == {"b": 2}
    assert await stored(backends, "2") == {"b": 2}
    (version,) = await backends.events.versions([(INDEX, "1")])
    bad = DocumentOperation("update", INDEX, "1", b'{"a":', own=True, expected=version)
    (refused, gone) = await backends.events.bulk([bad, exactly(op("delete", "1"), version)])
    assert (refused.outcome, gone.status) == (Outcome.REFUSED, 200)
    assert await stored(backends, "1") is None


async def test_what_is_refused_beforehand_knows_the_document_in_its_turn(backends: Backends) -> None:
    """It changes nothing; what a later event of the same call changed isn't what the document was."""
    await bulk(backends, op("create", "1", a=1), op("create", "2", a=1))

    def bad(document_id: str) -> DocumentOperation:
        return DocumentOperation("update", INDEX, document_id, own=True, refused="The data line is not JSON")

    before = await backends.events.versions([(INDEX, name) for name in "123"])
    alone = await backends.events.bulk([bad("1"), bad("3")])
    assert [result.version for result in alone] == [before[0], "absent"]
    results = await backends.events.bulk(
        [bad("1"), op("update", "2", b=2), bad("2"), op("delete", "3"), bad("3"), op("update", "1", b=2)]
    )
    refused = [results[position] for position in (0, 2, 4)]
    assert {(one.status, one.result, one.outcome) for one in refused} == {
        (400, "The data line is not JSON", Outcome.REFUSED)
    }
    after = await backends.events.versions([(INDEX, name) for name in "123"])
    assert [refused[1].version, refused[2].version] == [after[1], "absent"]
    assert refused[0].version not in ("", "absent", after[0])
    assert await stored(backends, "1") == {"a": 1, "b": 2}
    assert await stored(backends, "2") == {"a": 1, "b": 2}


async def test_what_a_later_event_of_the_call_changed_is_not_what_a_refused_one_met(backends: Backends) -> None:
    await bulk(backends, op("create", "1", a=1))
    conflict, bad, done = await backends.events.bulk(
        [
            DocumentOperation("create", INDEX, "1", b'{"a":2}'),
            DocumentOperation("update", INDEX, "1", b'{"a":'),
            DocumentOperation("update", INDEX, "1", b'{"b":2}'),
        ]
    )
    assert (conflict.status, bad.outcome, done.status) == (409, Outcome.REFUSED, 200)
    now = await backends.events.versions([(INDEX, "1")])
    assert conflict.version not in ("", *now)
    assert bad.version not in ("", *now)
