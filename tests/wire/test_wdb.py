"""wazuh-db's answers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wazuh_comms_trio.errors import AnswerCut, AnswerInvalid, WazuhError, WazuhException
from wazuh_comms_trio.wire.wdb import CUT_BYTES, WdbReply, is_last_frame, parse_reply


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
