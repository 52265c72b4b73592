"""The contract of ``EventIndex``."""

import json
from typing import Any, Literal

import pytest
import trio

from tests.contract.harness import INDEX, Harness
from wazuh_comms_trio.backends.interfaces import Backends, DocumentOperation, Outcome
from wazuh_comms_trio.errors import BackendUnavailable


def op(
    action: Literal["create", "update", "delete"], document_id: str, body: bytes | None = None, index: str = INDEX
) -> DocumentOperation:
    return DocumentOperation(action, index, document_id, body)


async def stored(backends: Backends, document_id: str, index: str = INDEX) -> Any:
    body = await backends.events.get(index, document_id)
    return None if body is None else json.loads(body)


async def test_create_update_delete(backends: Backends) -> None:
    results = await backends.events.bulk([op("create", "1", b'{"a":1}')])
    assert [(r.status, r.result, r.outcome) for r in results] == [(201, "created", Outcome.DONE)]
    assert await stored(backends, "1") == {"a": 1}
    results = await backends.events.bulk([op("update", "1", b'{"b":2}')])
    assert [(r.status, r.result, r.outcome) for r in results] == [(200, "updated", Outcome.DONE)]
    assert await stored(backends, "1") == {"a": 1, "b": 2}
    results = await backends.events.bulk([op("delete", "1")])
    assert [(r.status, r.result, r.outcome) for r in results] == [(200, "deleted", Outcome.DONE)]
    assert await stored(backends, "1") is None


async def test_nothing_is_a_batch_too(backends: Backends) -> None:
    assert list(await backends.events.bulk([])) == []


async def test_a_create_of_what_exists_is_a_conflict(backends: Backends) -> None:
    await backends.events.bulk([op("create", "1", b'{"a":1}')])
    (result,) = await backends.events.bulk([op("create", "1", b'{"a":2}')])
    assert (result.status, result.outcome) == (409, Outcome.DONE)
    assert result.result == "[1]: version conflict, document already exists (current version [1])"
    assert await stored(backends, "1") == {"a": 1}
    await backends.events.bulk([op("update", "1", b'{"a":3}')])
    (result,) = await backends.events.bulk([op("create", "1", b'{"a":2}')])
    assert result.result == "[1]: version conflict, document already exists (current version [2])"


async def test_a_create_of_equal_content_is_a_success(backends: Backends) -> None:
    await backends.events.bulk([op("create", "1", b'{"a":1,"b":{"c":[1,2],"d":"\xc3\xa9"}}')])
    for same in (b'{"a":1,"b":{"c":[1,2],"d":"\xc3\xa9"}}', b'{ "b" : {"d":"\\u00e9","c":[1,2]}, "a":1}'):
        (result,) = await backends.events.bulk([op("create", "1", same)])
        assert (result.status, result.result, result.outcome) == (200, "noop", Outcome.DONE)
    (result,) = await backends.events.bulk([op("create", "1", b'{"a":true,"b":{"c":[1,2],"d":"\xc3\xa9"}}')])
    assert result.status == 409
    (result,) = await backends.events.bulk([op("create", "1", b'{"a":1,"b":{"c":[2,1],"d":"\xc3\xa9"}}')])
    assert result.status == 409


async def test_update_and_delete_of_what_does_not_exist(backends: Backends) -> None:
    update, delete = await backends.events.bulk([op("update", "1", b'{"a":1}'), op("delete", "2")])
    assert (update.status, update.result, update.outcome) == (404, "[1]: document missing", Outcome.DONE)
    assert (delete.status, delete.result, delete.outcome) == (404, "not_found", Outcome.DONE)
    assert await stored(backends, "1") is None


async def test_deletes_together(backends: Backends) -> None:
    ids = ["1", "2", "with \0", "\u00e9"]
    await backends.events.bulk([op("create", document_id, b"{}") for document_id in [*ids, "kept"]])
    await backends.events.bulk([op("create", "1", b"{}", "wazuh-states-fim-files")])
    wanted = ["2", "1", "1", "gone", "with \0", "\u00e9", "2"]
    results = await backends.events.bulk(
        [op("delete", document_id) for document_id in wanted] + [op("delete", "1", index="wazuh-states-fim-registries")]
    )
    assert [result.status for result in results] == [200, 200, 404, 404, 200, 200, 404, 404]
    assert [await stored(backends, document_id) for document_id in [*ids, "kept"]] == [None, None, None, None, {}]
    assert await stored(backends, "1", "wazuh-states-fim-files") == {}


async def test_a_bulk_of_many_megabytes(backends: Backends) -> None:
    """Wherever a store cuts it, the operations take effect in their order."""
    long = b"x" * 100_000
    operations = [op("create", str(number), b'{"a":"%b"}' % long) for number in range(40)]
    operations += [op("update", str(number), b'{"b":"%b"}' % long) for number in range(40)]
    operations += [op("delete", str(number)) for number in range(0, 40, 2)]
    operations += [op("create", str(number), b'{"c":"%b"}' % long) for number in range(0, 40, 4)]
    results = await backends.events.bulk(operations)
    assert [result.status for result in results] == [201] * 40 + [200] * 60 + [201] * 10
    for number, members in ((0, {"c"}), (1, {"a", "b"}), (36, {"c"}), (39, {"a", "b"})):
        assert set(await stored(backends, str(number))) == members
    assert await stored(backends, "2") is None


async def test_updates_merge_deeply(backends: Backends) -> None:
    await backends.events.bulk([op("create", "1", b'{"a":{"x":1,"y":{"z":1}},"l":[1,2],"s":"t"}')])
    await backends.events.bulk([op("update", "1", b'{"a":{"y":{"w":2}},"l":[3],"s":null}')])
    assert await stored(backends, "1") == {"a": {"x": 1, "y": {"z": 1, "w": 2}}, "l": [3], "s": None}
    await backends.events.bulk([op("update", "1", b'{"a":5,"s":{"n":1}}')])
    assert await stored(backends, "1") == {"a": 5, "l": [3], "s": {"n": 1}}


async def test_an_update_without_change_is_a_noop(backends: Backends) -> None:
    await backends.events.bulk([op("create", "1", b'{"a":{"x":1},"l":[1,{"y":2}]}')])
    for partial in (b"{}", b'{"a":{"x":1}}', b'{ "l" : [ 1, {"y": 2} ] }', b'{"a":{}}'):
        (result,) = await backends.events.bulk([op("update", "1", partial)])
        assert (result.status, result.result) == (200, "noop")
    (result,) = await backends.events.bulk([op("update", "1", b'{"a":{"x":2}}')])
    assert (result.status, result.result) == (200, "updated")


async def test_equal_ids_in_one_batch_are_applied_in_order(backends: Backends) -> None:
    results = await backends.events.bulk(
        [
            op("create", "1", b'{"a":1}'),
            op("update", "1", b'{"b":2}'),
            op("create", "1", b'{"a":9}'),
            op("delete", "1"),
            op("update", "1", b'{"c":3}'),
            op("create", "1", b'{"d":4}'),
            op("delete", "1", index="wazuh-states-sca"),
        ]
    )
    assert [r.status for r in results] == [201, 200, 409, 200, 404, 201, 404]
    assert await stored(backends, "1") == {"d": 4}


async def test_equal_ids_in_different_indices_are_different_documents(backends: Backends) -> None:
    await backends.events.bulk([op("create", "1", b'{"a":1}'), op("create", "1", b'{"a":2}', "wazuh-states-sca")])
    assert await stored(backends, "1") == {"a": 1}
    assert await stored(backends, "1", "wazuh-states-sca") == {"a": 2}


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"1", b'{"a":', b'{"a":1}}', b'{"a":"\xff"}', b'{"a":NaN}', b'{"a":01}', b'{"a":"\n"}']
)
@pytest.mark.parametrize("action", ["create", "update"])
async def test_what_is_no_document_is_refused_alone(
    backends: Backends, action: Literal["create", "update"], body: bytes
) -> None:
    await backends.events.bulk([op("create", "old", b"{}")])
    target = "old" if action == "update" else "new"
    good, bad, after = await backends.events.bulk(
        [op("create", "1", b'{"a":1}'), op(action, target, body), op("create", "2", b'{"a":2}')]
    )
    assert (good.status, after.status) == (201, 201)
    assert (bad.status, bad.outcome) == (400, Outcome.REFUSED)
    assert bad.result
    assert await stored(backends, "new") is None
    assert await stored(backends, "old") == {}
    assert await stored(backends, "2") == {"a": 2}


async def test_strange_ids(backends: Backends) -> None:
    ids = ["a b", "ü€😀", "x" * 512, "'; DROP TABLE documents; --", "%00", "0", "00", "A", "a", "/../", '"', "\\"]
    results = await backends.events.bulk([op("create", i, json.dumps({"id": i}).encode()) for i in ids])
    assert {r.status for r in results} == {201}
    for i in ids:
        assert await stored(backends, i) == {"id": i}


async def test_many_at_once_keep_their_own_results(backends: Backends) -> None:
    """Thirty requests with an equal id: one wins, and everyone learns the truth about its own."""
    answers: dict[int, list[int]] = {}

    async def one(number: int) -> None:
        operations = [
            op("create", f"own-{number}", b'{"n":%d}' % number),
            op("create", "shared", b'{"winner":%d}' % number),
            op("update", f"nobody-{number}", b"{}"),
        ]
        answers[number] = [r.status for r in await backends.events.bulk(operations)]

    async with trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(one, number)
    winners = [number for number, statuses in answers.items() if statuses[1] == 201]
    assert len(winners) == 1
    assert await stored(backends, "shared") == {"winner": winners[0]}
    for number, statuses in answers.items():
        assert statuses == [201, 201 if number in winners else 409, 404]
        assert await stored(backends, f"own-{number}") == {"n": number}


async def test_a_large_batch(backends: Backends) -> None:
    operations = [op("create", str(n), b'{"n":%d}' % n) for n in range(5000)]
    assert {r.status for r in await backends.events.bulk(operations)} == {201}
    assert {r.result for r in await backends.events.bulk(operations)} == {"noop"}
    assert {r.status for r in await backends.events.bulk([op("delete", str(n)) for n in range(5000)])} == {200}


@pytest.mark.expects_errors
async def test_an_outage_is_a_passing_failure(harness: Harness, backends: Backends) -> None:
    if harness.outage is None:
        pytest.skip("no outages to be had")
    async with harness.outage():
        with pytest.raises(BackendUnavailable):
            await backends.events.bulk([op("create", "1", b"{}")])
    (result,) = await backends.events.bulk([op("create", "1", b"{}")])
    assert result.status in {200, 201}  # a failed call may have happened all the same
