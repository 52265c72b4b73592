"""Answers of which one document can't be read, cut into pieces and read one by one."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wazuh_comms_trio.backends.opensearch.agents.documents import to_agent
from wazuh_comms_trio.backends.opensearch.client.bulk import judge, read_items
from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable, decode
from wazuh_comms_trio.backends.opensearch.client.error_details import error_of
from wazuh_comms_trio.backends.opensearch.client.found import read_found, read_found_text
from wazuh_comms_trio.backends.opensearch.client.search import read_hits
from wazuh_comms_trio.backends.opensearch.client.slices import (
    DEEPEST,
    NotSliced,
    cut_list,
    depth,
    is_too_deep,
    members,
)
from wazuh_comms_trio.backends.opensearch.commands.documents import Document, ended, sent
from wazuh_comms_trio.foundation.timestamps import to_iso
from wazuh_comms_trio.http.client.connection import HttpReply

#: What OpenSearch stores and gives back as it came, and no strict reader takes.
UNREADABLE = {
    "escape": rb'{"s":"\udced"}',
    "name": rb'{"\udced":1}',
    "bytes": b'{"s":"\xed\xa0\x80"}',
    "number": b'{"n":1e400}',
    "digits": b'{"n":' + b"9" * 5000 + b"}",
    "deep": b'{"a":' * 980 + b"1" + b"}" * 980,
    "deeper": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "lists": b'{"a":' + b"[" * 980 + b"]" * 980 + b"}",
    "comment": b'{"a":/* } " */1}',
}
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)
indents = st.sampled_from([None, 1])


def reply(body: bytes, status: int = 200) -> HttpReply:
    return HttpReply(status, {}, body)


def hit(document_id: str, source: bytes) -> bytes:
    return b'{"_index":"i","_id":"%b","_seq_no":7,"_primary_term":2,"_source":%b,"sort":[1,"x"]}' % (
        document_id.encode(),
        source,
    )


def answer(*hits: bytes) -> bytes:
    shards = b'{"total":1,"successful":1}'
    return b'{"_shards":%b,"hits":{"total":{"value":%d},"hits":[%b]}}' % (shards, len(hits), b",".join(hits))


# --- pieces ---


@given(st.lists(values, max_size=5), values, indents, st.booleans())
def test_pieces_are_the_elements(elements: list[Any], other: Any, indent: int | None, ascii_only: bool) -> None:
    whole = {"before": other, "hits": {"first": other, "hits": elements, "last": other}, "after": other}
    text = json.dumps(whole, indent=indent, ensure_ascii=ascii_only).encode()
    around, pieces = cut_list(text, "hits", "hits")
    assert [json.loads(piece) for piece in pieces] == elements
    whole["hits"]["hits"] = []
    assert json.loads(around) == whole


@given(st.dictionaries(st.text(), values, max_size=5), indents)
def test_members_are_the_members(value: dict[str, Any], indent: int | None) -> None:
    found = members(json.dumps(value, indent=indent).encode())
    assert {json.loads(b'"%b"' % name): json.loads(text) for name, text in found.items()} == value


def levels(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(levels, inner), default=0)


@given(values, indents)
def test_levels_are_counted(value: Any, indent: int | None) -> None:
    assert depth(json.dumps(value, indent=indent).encode()) == levels(value)


@pytest.mark.parametrize("extra", [0, 1])
def test_the_limit_of_levels(extra: int) -> None:
    count = DEEPEST + extra
    assert is_too_deep(b'{"a":' * count + b"1" + b"}" * count) is bool(extra)
    assert is_too_deep(b'{"a":"%b"}' % (b"{" * 2 * count)) is False


@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:\\/*1a ', max_size=60).map(str.encode))
def test_any_bytes_are_refused_or_cut(text: bytes) -> None:
    for cut in (members, lambda text: cut_list(text, "a"), depth):
        with contextlib.suppress(NotSliced):
            cut(text)


# --- documents ---


@pytest.mark.parametrize("kind", UNREADABLE)
def test_one_hit_costs_no_other(kind: str) -> None:
    hits, _ = read_hits(reply(answer(hit("a", b'{"n":1}'), hit("bad", UNREADABLE[kind]), hit("b", b'{"n":2}'))))
    assert [(each.id, each.source) for each in hits.readable] == [("a", {"n": 1}), ("b", {"n": 2})]
    (bad,) = hits.unreadable
    assert (bad.id, bad.index, bad.seq_no, bad.primary_term, bad.sort) == ("bad", "i", 7, 2, [1, "x"])
    assert bad.problem
    assert bad.text == UNREADABLE[kind]
    assert str(bad.unreadable()).startswith("i/bad can't be read: ")
    assert (hits.total, hits.seen, hits.last) == (3, 3, [1, "x"])


@pytest.mark.parametrize("kind", UNREADABLE)
def test_the_text_of_a_document_is_kept(kind: str) -> None:
    found = read_found_text(b'{"found":true,"_seq_no":7,"_source":%b}' % UNREADABLE[kind])
    assert (found.found, found.seq_no, bytes(found.source)) == (True, 7, UNREADABLE[kind])


def test_an_id_that_is_no_text_is_named_all_the_same() -> None:
    hits, _ = read_hits(reply(answer(hit(r"x\udced", b"{}"))))
    (bad,) = hits.unreadable
    assert str(bad.unreadable()).startswith("i/x? can't be read")


@given(values, st.integers(0, 200), st.binary(min_size=1, max_size=4))
def test_a_document_is_read_or_named(value: Any, place: int, noise: bytes) -> None:
    source = json.dumps(value, ensure_ascii=False).encode()
    whole = b'{"_id":"x","_index":"i","_source":%b}'
    assert read_found(whole % source).source == value
    harmed = source[:place] + noise + source[place:]
    found = read_found(whole % harmed)
    if found.problem is None:
        assert msgspec.json.decode(whole % harmed)["_id"] == found.id
    else:
        assert str(found.unreadable()).startswith(f"{found.index}/")


def test_what_is_no_answer_is_said_to_be_none() -> None:
    for body in (b"", b"<html>", b'{"hits":1}', b'{"hits":{"hits":{}}}', b'{"hits":{"hits":[', b"[" * 5000):
        with pytest.raises(IndexerUnavailable, match="isn't as expected"):
            read_hits(reply(body))
    with pytest.raises(IndexerUnavailable, match="only a part"):
        read_hits(reply(answer(hit("bad", UNREADABLE["deep"])).replace(b'"successful":1', b'"successful":0')))


# --- items and errors: their reasons quote documents ---


@pytest.mark.parametrize("quoted", [rb"\udced", b"\xed\xa0\x80"])
def test_a_reason_costs_no_other_item(quoted: bytes) -> None:
    cause = b'{"type":"json_generation_exception","reason":"%b"}' % quoted
    bad = b'{"create":{"status":400,"error":{"type":"mapper_parsing_exception","reason":"value: %b!","caused_by":%b}}}'
    bad %= quoted, cause
    good = b'{"create":{"status":201,"result":"created"}}'
    items = read_items(reply(b'{"items":[%b,%b,%b]}' % (good, bad, good)), 3)
    assert [judge(item) for item in items] == ["done", "refused", "done"]
    assert items[1].error is not None
    assert str(items[1].error.reason).startswith("value: ")


def test_a_reason_that_all_items_have() -> None:
    bad = b'{"create":{"error":{"type":"mapper_parsing_exception","reason":"value: \xed\xa0\x80"},"status":400}}'
    for count in (1, 3):
        items = read_items(reply(b'{"items":[%b]}' % b",".join([bad] * count)), count)
        assert [judge(item) for item in items] == ["refused"] * count


def test_an_item_nested_too_deeply_is_missed() -> None:
    with pytest.raises(IndexerUnavailable, match="got 0 answers"):
        read_items(reply(b'{"items":[{"create":{"status":201,"x":%b}}]}' % (b"[" * 100_000 + b"]" * 100_000)), 1)


def test_an_item_that_is_none_is_missed() -> None:
    with pytest.raises(IndexerUnavailable, match="got 1 answers"):
        read_items(reply(rb'{"items":[{"create":{"status":201}},{"create":"\udced"}]}'), 2)


def test_an_error_with_a_lone_surrogate_keeps_its_type() -> None:
    cause = rb'{"type":"illegal_argument_exception","reason":"x\udced"}'
    whole = rb'{"error":{"type":"mapper_parsing_exception","reason":"\udced","caused_by":%b}}' % cause
    error = error_of(reply(whole, 400))
    assert (error.type, error.reason, error.causes()) == ("mapper_parsing_exception", "?", ["x?"])


def test_names_of_fields_may_be_anything() -> None:
    assert decode(reply(rb'{"i":{"mappings":{"\udced":1}}}')) == {"i": {"mappings": {"?": 1}}}


# --- any values in sound documents ---

FIELDS = ("status", "target", "action", "timeout", "result", "request_id", "user", "type", "id", "name", "args", "code")
AGENT_FIELDS = ("key", "name", "groups", "host", "status", "last_login", "type", "version")
huge = st.sampled_from([10**400, -(10**400), 1e308, -1e308, 2**63, "1e999", "nan", "9" * 400, "[" * 1000, "0001-01-01"])


def documents_of(*names: str) -> st.SearchStrategy[Any]:
    inner = values | huge
    return inner | st.dictionaries(
        st.sampled_from(names), inner | st.dictionaries(st.sampled_from(names), inner, max_size=4), max_size=6
    )


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "command": documents_of(*FIELDS),
            "delivery": documents_of("token", "offered", "sent_at", "renewed", "data"),
            "@timestamp": values | huge,
            "delivery_timestamp": values | huge,
        },
    )
)
def test_any_command_is_one(source: dict[str, Any]) -> None:
    document = Document("id", source, 1, 1, 1_750_000_000.0)
    command = document.command
    assert len(to_iso(command.created_at)) == len(to_iso(command.created_at + command.timeout)) == 24
    assert document.after(ended(command), 2, 1).status == command.status
    assert document.after(sent(command, 1.0), 2, 1).status == "sent"
    assert document.token is None or isinstance(document.token, str)


@given(values | st.fixed_dictionaries({"agent": documents_of(*AGENT_FIELDS)}))
def test_any_agent_is_one_or_none(source: Any) -> None:
    agent = to_agent("ID", source)
    if agent is not None:
        assert agent.id == "id"
        assert all(isinstance(group, str) for group in agent.groups)
        assert agent.last_login is None or len(to_iso(agent.last_login)) == 24
