"""wazuh-db's answers."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wazuh_comms_trio.errors import AnswerCut, AnswerInvalid, WazuhError, WazuhException
from wazuh_comms_trio.wire.framing import encode_frame
from wazuh_comms_trio.wire.wdb import CUT_BYTES, NOT_QUICK, WdbReply, is_last_frame, parse_reply, quick_data
from wazuh_comms_trio.wire.wdb_paging import due_meaning, encode_query, prepare


@pytest.mark.parametrize(
    ("payload", "reply"),
    [
        (b"ok", WdbReply("ok", "")),
        (b"ok\0", WdbReply("ok", "")),
        (b"ok\n", WdbReply("ok", "")),
        (b"ok [1, 2]", WdbReply("ok", "[1, 2]")),
        (b"ok two words", WdbReply("ok", "two words")),
        (b"err Cannot execute", WdbReply("err", "Cannot execute")),
        (b'due [{"id": 1}]', WdbReply("due", '[{"id": 1}]')),
        (b'{"error": 0}', WdbReply("json", '{"error": 0}')),
    ],
)
def test_forms(payload: bytes, reply: WdbReply) -> None:
    assert parse_reply(payload) == reply
    assert reply.is_last is is_last_frame(payload) is (reply.status != "due")


@pytest.mark.parametrize("payload", [b"", b"OK", b"okay", b" ok", b"\xff", b"dues", b"[1]"])
def test_what_wazuh_db_never_says(payload: bytes) -> None:
    with pytest.raises(AnswerInvalid):
        parse_reply(payload)


def test_data() -> None:
    assert parse_reply(b"ok").data() is None
    assert parse_reply(b'ok {"a": 1}\n').data() == {"a": 1}
    assert parse_reply(b"ok plain text").data() == "plain text"
    assert parse_reply(b'{"error": 0, "data": 5}').data() == 5
    with pytest.raises(WazuhException, match=r"^Error 1014 - Cannot execute$"):
        parse_reply(b"err Cannot execute").data()
    with pytest.raises(WazuhException, match=r"^Error 7 - no$"):
        parse_reply(b'{"error": 7, "message": "no"}').data()
    with pytest.raises(AnswerInvalid):
        parse_reply(b"due {").data()
    with pytest.raises(WazuhError, match=r"no reason"):
        parse_reply(b"err").checked()


def test_rows() -> None:
    assert parse_reply(b'ok [{"a": 1}, {}]').rows() == [{"a": 1}, {}]
    assert parse_reply(b'due {"a": 1}').rows() == [{"a": 1}]
    assert parse_reply(b"ok").rows() == []
    with pytest.raises(AnswerInvalid, match=r"no rows"):
        parse_reply(b"ok [1]").rows()


def padded(text: str, size: int) -> bytes:
    return text.encode().ljust(size, b"x")


@pytest.mark.parametrize("begin", ['ok [{"a": "', 'due [{"a": "', '{"error": 0, "data": "', "ok text"])
def test_a_cut_answer_says_so(begin: str) -> None:
    with pytest.raises(AnswerCut, match=r"cut its answer at 65536 bytes"):
        parse_reply(padded(begin, CUT_BYTES)).data()


def test_a_cut_inside_a_character_says_so() -> None:
    payload = padded('ok [{"a": "', CUT_BYTES - 1) + "é".encode()[:1]
    with pytest.raises(AnswerCut):
        parse_reply(payload).data()


def test_a_whole_answer_of_that_length_is_none_of_it() -> None:
    text = json.dumps("x" * (CUT_BYTES - 5))
    assert parse_reply(b"ok " + text.encode()).data() == "x" * (CUT_BYTES - 5)


def test_above_it_there_is_no_cut() -> None:
    assert parse_reply(padded("ok text", CUT_BYTES + 1)).data() == "text" + "x" * (CUT_BYTES + 1 - 7)


@given(st.binary(max_size=40))
def test_anything_else_is_a_named_error(payload: bytes) -> None:
    try:
        reply = parse_reply(payload)
    except AnswerInvalid as exc:
        assert exc.code == 1014  # noqa: PT017 -- either outcome is right
    else:
        assert reply.status in ("ok", "err", "due", "json")


json_texts = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
).map(json.dumps)


@given(st.sampled_from(["ok ", "ok", "ok  ", "due ", "err "]), json_texts, st.sampled_from(["", "\n", "\0", " ", "x"]))
def test_the_quick_way_says_the_same(begin: str, text: str, end: str) -> None:
    payload = f"{begin}{text}{end}".encode()
    found = quick_data(payload)
    if begin == "ok " and not end:
        assert found is not NOT_QUICK
    if found is not NOT_QUICK:
        assert found == parse_reply(payload).data()


@pytest.mark.parametrize("payload", [b"ok \xff", b'ok "\xff"', b"ok " + b"[" * 100_000, padded('ok "', CUT_BYTES)])
def test_the_quick_way_is_not_for_these(payload: bytes) -> None:
    assert quick_data(payload) is NOT_QUICK


queries = st.one_of(
    st.sampled_from(
        [
            "global get-all-agents",
            "global get-all-agents last_id 5",
            "global sql select {last_id}",
            "agent 001 package get",
            " agent 001 hotfix get\n",
            "global get-agent-info 1",
            "global sync-agent-groups-get {}",
            "agent 001 sql select 1",
            "",
            " ",
            "a\0b",
            "\ud800",
        ]
    ),
    st.text(max_size=20),
    st.none(),
)


@pytest.mark.parametrize("count", [65535, 65536, 65537])
def test_a_long_query_is_prepared_as_by_its_parts(count: int) -> None:
    assert_prepared_as_by_its_parts("x" * count)


@given(queries)
def test_a_query_is_prepared_as_by_its_parts(query: str | None) -> None:
    assert_prepared_as_by_its_parts(query)


def assert_prepared_as_by_its_parts(query: str | None) -> None:
    def by_its_parts() -> object:
        payload = encode_query(query)
        return encode_frame(payload), due_meaning(payload.decode())

    assert outcome(lambda: prepare(query)) == outcome(by_its_parts)


def outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except WazuhException as error:
        return type(error), str(error)


@pytest.mark.parametrize(
    "payload", [b"{", b'{"a":', b'{"a":1}x', b'{"a":' + b"[" * 5000, b'{"a":' + b"9" * 5000 + b"}"]
)
def test_the_members_of_what_only_begins_as_an_object(payload: bytes) -> None:
    with pytest.raises(AnswerInvalid):
        parse_reply(payload).members()
