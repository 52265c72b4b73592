"""The bodies of bulk calls, how they are split, and what each item of an answer means."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.indexer.client.operations import INDEX, create, delete, update
from wazuh_comms_trio.backends.interfaces import DocumentOperation, ItemResult, Outcome
from wazuh_comms_trio.backends.opensearch.client.bulk import BulkItem, Part, judge, middle, read_items, split, to_result
from wazuh_comms_trio.backends.opensearch.client.bulk_encoding import encode_all
from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable
from wazuh_comms_trio.backends.opensearch.client.error_details import LONGEST_REASON, ErrorDetail, describe
from wazuh_comms_trio.http.client.connection import HttpReply

# --- what an item means ---


@pytest.mark.parametrize(
    ("status", "kind", "reason", "verdict"),
    [
        (201, None, "created", "done"),
        (200, None, "updated", "done"),
        (404, None, "not_found", "done"),
        (404, "document_missing_exception", "[1]: document missing", "done"),
        (404, "index_not_found_exception", "no such index [x]", "passing"),
        (409, "version_conflict_engine_exception", "[1]: version conflict, document already exists (...)", "exists"),
        (409, "version_conflict_engine_exception", "[1]: version conflict, required seqNo [1]", "passing"),
        (400, "mapper_parsing_exception", "failed to parse", "refused"),
        (400, "strict_dynamic_mapping_exception", "mapping set to strict", "refused"),
        (400, "invalid_index_name_exception", "Invalid index name", "refused"),
        (400, "illegal_argument_exception", "Limit of total fields [1000] has been exceeded", "refused"),
        (400, "index_closed_exception", "closed", "passing"),
        (400, "validation_exception", "this cluster currently has [1000]/[1000] maximum shards open", "passing"),
        (400, "illegal_argument_exception", "no write index is defined for alias [x]", "passing"),
        (401, "security_exception", "unauthorized", "passing"),
        (403, "security_exception", "no permissions for [indices:data/write/bulk[s]]", "passing"),
        (403, "cluster_block_exception", "blocked by: [FORBIDDEN/8/index write (api)]", "passing"),
        (429, "cluster_block_exception", "blocked by: [TOO_MANY_REQUESTS/12/...]", "passing"),
        (429, "rejected_execution_exception", "rejected execution", "passing"),
        (500, "node_not_connected_exception", "disconnected", "passing"),
        (503, "unavailable_shards_exception", "primary shard is not active", "passing"),
    ],
)
def test_items(status: int, kind: str | None, reason: str, verdict: str) -> None:
    error = None if kind is None else ErrorDetail(kind, reason)
    item = BulkItem(status, reason if kind is None else "", error)
    assert judge(item) == verdict
    expected = {"done": Outcome.DONE, "exists": Outcome.DONE, "refused": Outcome.REFUSED, "passing": Outcome.PASSING}
    assert to_result(item) == ItemResult(status, reason, expected[verdict])


# --- what is sent ---


def lines_of(*operations: DocumentOperation) -> bytes:
    encoded = encode_all(operations)
    return encoded.wire(0, len(encoded))


def test_lines() -> None:
    assert lines_of(create("1", a=1), update("2", b=1), delete("3")) == (
        b'{"create":{"_index":"wazuh-states-fim","_id":"1"}}\n{"a": 1}\n'
        b'{"update":{"_index":"wazuh-states-fim","_id":"2","retry_on_conflict":3}}\n{"doc":{"b": 1}}\n'
        b'{"delete":{"_index":"wazuh-states-fim","_id":"3"}}\n'
    )


def test_what_is_plain_makes_the_same_lines() -> None:
    other = DocumentOperation("create", "wazuh-states-sca", "4", b"{}")
    operations = [create("1", a=1), update("a_2", b=1), delete("3"), other, delete("a"), create("5", a=2)]
    plain = [msgspec.structs.replace(operation, plain=True) for operation in operations]
    assert lines_of(*plain) == lines_of(*operations)
    assert encode_all(plain).sizes() == [len(lines_of(operation)) for operation in operations]


def test_a_part_of_the_lines() -> None:
    operations = [create("1", a=1), delete("2"), update("3", a=1), create("4", a=1)]
    encoded = encode_all(operations)
    for start in range(4):
        for stop in range(start + 1, 5):
            assert encoded.wire(start, stop) == b"".join(map(lines_of, operations[start:stop]))
            assert sum(encoded.sizes()[start:stop]) == len(encoded.wire(start, stop))


@pytest.mark.parametrize("document_id", ["", "\ud800", "x" * 513, "é" * 257])
def test_ids_that_cannot_be_sent(document_id: str) -> None:
    encoded = encode_all([create("1"), create(document_id), create("3"), create("4")])
    assert encoded.positions == [0, 2, 3]
    assert {position: result.outcome for position, result in encoded.refused.items()} == {1: Outcome.REFUSED}
    assert encoded.item_boundaries([0, 1, 2, 3]) == [0, 1, 1, 2]


@pytest.mark.parametrize("body", [b"[]", b"1", b"", b"{}{}", b'{"a":', b'{"a":"\xff"}', b'{"a":01}'])
def test_bodies_that_cannot_be_sent(body: bytes) -> None:
    encoded = encode_all([DocumentOperation("create", INDEX, "1", body)])
    assert not encoded
    assert encoded.refused[0].outcome is Outcome.REFUSED


@given(st.lists(st.tuples(st.text(), st.binary() | st.just(b"{}") | st.just(b'{"a":1}')), max_size=5))
def test_whatever_is_sent_has_two_lines_each(parts: list[tuple[str, bytes]]) -> None:
    encoded = encode_all([DocumentOperation("create", INDEX, document_id, body) for document_id, body in parts])
    assert sorted([*encoded.positions, *encoded.refused]) == list(range(len(parts)))
    lines = encoded.wire(0, len(encoded)).split(b"\n")
    assert len(lines) == 2 * len(encoded) + 1
    actions = [json.loads(line)["create"]["_id"] for line in lines[0:-1:2]]
    assert actions == [parts[position][0] for position in encoded.positions]


# --- what is answered ---

CREATED = {"create": {"result": "created", "status": 201}}


def answer(*items: Any, status: int = 200) -> HttpReply:
    return HttpReply(status, {}, json.dumps({"items": items}, separators=(",", ":")).encode())


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_an_answer_that_says_the_same_of_each(count: int) -> None:
    assert read_items(answer(*[CREATED] * count), count) == [BulkItem(201, "created")] * count


def test_an_answer_of_which_one_item_differs() -> None:
    error = {"type": "mapper_parsing_exception", "reason": "}}"}
    items = read_items(answer(CREATED, {"update": {"status": 400, "error": error}}, CREATED), 3)
    assert [item.status for item in items] == [201, 400, 201]
    assert items[1].error == ErrorDetail("mapper_parsing_exception", "}}")
    same = read_items(answer(*[{"update": {"status": 400, "error": error}}] * 3), 3)
    assert [item.error for item in same] == [ErrorDetail("mapper_parsing_exception", "}}")] * 3


@pytest.mark.parametrize(
    ("reply", "count"),
    [
        (answer(CREATED), 2),
        (answer(CREATED, CREATED), 1),
        (answer(), 1),
        (answer({"create": {"result": "created"}}), 1),
        (answer({"other": {"status": 200}}), 1),
        (answer(CREATED, status=500), 1),
        (HttpReply(200, {}, b'{"items":[{"a":{}},{"a":{}}'), 2),
        (HttpReply(200, {}, b'{"items":[}},}}]}'), 2),
        (HttpReply(200, {}, b""), 1),
    ],
)
def test_answers_of_no_use(reply: HttpReply, count: int) -> None:
    with pytest.raises(IndexerUnavailable):
        read_items(reply, count)


# --- how much goes together ---


@given(
    st.lists(st.integers(1, 50), max_size=40),
    st.sets(st.integers(0, 40)),
    st.integers(1, 120),
)
def test_split(sizes: list[int], edges: set[int], limit: int) -> None:
    parts = split(sizes, sorted(edges), limit)
    assert [position for part in parts for position in range(part.start, part.stop)] == list(range(len(sizes)))
    packets = sorted({0, *(edge for edge in edges if edge < len(sizes)), len(sizes)})
    for part in parts:
        assert part.size == sum(sizes[part.start : part.stop])
        assert part.size <= limit or part.stop - part.start == 1
        for cut in (part.start, part.stop):
            if cut not in packets:  # inside a packet: only one that is too large on its own
                first = max(edge for edge in packets if edge < cut)
                last = min(edge for edge in packets if edge > cut)
                assert sum(sizes[first:last]) > limit


def test_halves_are_whole_packets_if_they_can_be() -> None:
    assert middle(Part(0, 10, 0), [0, 3, 8]) == 3
    assert middle(Part(0, 10, 0), [0, 9]) == 9
    assert middle(Part(4, 10, 0), [0, 4, 10]) == 7


def test_a_refusals_whole_cause_is_kept() -> None:
    body = (
        b'{"items":[{"create":{"status":400,"error":{"type":"mapper_parsing_exception","reason":"failed to parse",'
        b'"caused_by":{"type":"illegal_argument_exception","reason":"outer","caused_by":{"type":"x","reason":"outer",'
        b'"caused_by":{"type":"root_exception","reason":null,"caused_by":null}}}}}}]}'
    )
    (item,) = read_items(HttpReply(200, {}, body), 1)
    result = to_result(item)
    assert (result.result, result.cause) == ("failed to parse", "outer: root_exception")
    assert result.whole_reason == "failed to parse: outer: root_exception"


def test_a_reason_that_quotes_a_whole_value_is_cut() -> None:
    """It goes to the agent, the quarantine and the log."""
    value = "x" * 1_000_000
    cause = {"type": "illegal_argument_exception", "reason": f"For input string: {value!r}"}
    causes = {**cause, "caused_by": {**cause, "reason": value[1:], "caused_by": {"type": value}}}
    error = {"type": "mapper_parsing_exception", "reason": f"failed to parse field [a]: {value!r}", "caused_by": causes}
    (item,) = read_items(answer({"create": {"status": 400, "error": error}}), 1)
    result = to_result(item)
    assert result.result.startswith("failed to parse field [a]: 'xxx")
    assert result.cause.startswith("For input string: 'xxx")
    assert len(result.result) <= LONGEST_REASON
    assert len(result.whole_reason) <= 2 * LONGEST_REASON + 2
    assert len(describe(HttpReply(400, {}, json.dumps({"error": error}).encode()))) <= 2 * LONGEST_REASON
