"""The JSON messages, and the answers' three parts."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wazuh_comms_trio.errors import AnswerInvalid, DaemonRefusal, WazuhException, WazuhInternalError
from wazuh_comms_trio.wire.envelope import (
    SOCKET_COMMUNICATION_PROTOCOL_VERSION,
    carries_version,
    create_wazuh_socket_message,
    decode_json,
    decode_text,
    encode_json,
    encode_text,
    reply_data,
)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def test_each_part_that_was_given_is_there() -> None:
    assert SOCKET_COMMUNICATION_PROTOCOL_VERSION == 1
    assert create_wazuh_socket_message() == {"version": 1}
    assert create_wazuh_socket_message({"module": "m"}, "c", {}) == {
        "version": 1,
        "origin": {"module": "m"},
        "command": "c",
        "parameters": {},
    }
    assert create_wazuh_socket_message(command="c") == {"version": 1, "command": "c"}


@given(anything)
def test_what_json_can_say_comes_back(message: Any) -> None:
    assert decode_json(encode_json(message)) == message
    assert decode_json(encode_json(message) + b"\0") == message


def looped() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize("message", [{1, 2}, float("nan"), b"bytes", object(), looped(), {(1, 2): 3}])
def test_what_json_cannot_say(message: Any) -> None:
    with pytest.raises(WazuhInternalError, match=r"Error 1012 .*can't be written as JSON"):
        encode_json(message)


def test_one_trailing_nul_is_no_text() -> None:
    assert decode_text(b"ok\0") == "ok"
    assert decode_text(b"ok\0\0") == "ok\0"
    assert decode_text("é".encode()) == "é"
    assert decode_text(b"a\xffb\0") == "a\ufffdb", "one byte doesn't cost the whole answer"
    assert decode_text(b"a\xffb", "surrogateescape").encode(errors="surrogateescape") == b"a\xffb"
    with pytest.raises(AnswerInvalid, match=r"isn't UTF-8"):
        decode_text(b"a\xffb", "strict")
    with pytest.raises(WazuhInternalError, match=r"UTF-8"):
        encode_text("\ud800")


@pytest.mark.parametrize("payload", [b"", b"{", b"ok", b"{}x", b"\xff{}", b"[" * 100_000])
def test_what_is_no_json(payload: bytes) -> None:
    with pytest.raises(AnswerInvalid) as caught:
        decode_json(payload)
    assert caught.value.code == 1014


@pytest.mark.parametrize(
    ("reply", "data"),
    [
        ({"error": 0, "message": "ok", "data": [1]}, [1]),
        ({"error": 0, "data": {"id": "001"}}, {"id": "001"}),
        ({"error": 0, "message": "ok"}, None),
        ({"data": "x"}, "x"),
        ({"error": None, "data": 1}, 1),
    ],
)
def test_data_of_a_success(reply: Any, data: Any) -> None:
    assert reply_data(reply) == data


def test_the_daemons_own_error() -> None:
    with pytest.raises(WazuhException) as caught:
        reply_data({"error": 9008, "message": "Duplicate name"})
    assert type(caught.value) is WazuhException
    assert (caught.value.code, caught.value.message) == (9008, "Duplicate name")
    assert str(caught.value) == "Error 9008 - Duplicate name"
    with pytest.raises(WazuhException, match=r"Error 5 - the daemon gave no reason"):
        reply_data({"error": 5})


@pytest.mark.parametrize("reply", [[], "ok", 1, None, {"error": "no"}, {"error": [1]}])
def test_an_answer_of_another_form(reply: Any) -> None:
    with pytest.raises(AnswerInvalid):
        reply_data(reply)


@pytest.mark.parametrize(
    ("reply", "data"),
    [
        ({"status": "ok", "task_id": "t"}, {"status": "ok", "task_id": "t"}),
        ({"status": "ok"}, {"status": "ok"}),
        ({"status": "ok", "data": 5}, 5),
        ({"error": 1, "message": "due", "data": {"agents": []}}, {"agents": []}),
    ],
)
def test_answers_of_other_releases(reply: Any, data: Any) -> None:
    assert reply_data(reply) == data


@pytest.mark.parametrize(
    ("reply", "word", "reason"),
    [
        ({"error": "parsing_error", "message": "no action"}, "parsing_error", "no action"),
        ({"error": "create_failed"}, "create_failed", None),
        ({"status": "error", "message": "no such family"}, "error", "no such family"),
    ],
)
def test_an_error_that_is_a_word(reply: Any, word: str, reason: str | None) -> None:
    with pytest.raises(DaemonRefusal) as caught:
        reply_data(reply)
    assert (caught.value.code, caught.value.word, caught.value.reason) == (1014, word, reason)
    assert str(caught.value) == f"Error 1014 - {word}" + (f": {reason}" if reason else "")
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 -- our own bytes
    assert (copy.word, copy.reason, str(copy)) == (word, reason, str(caught.value))


def test_true_is_error_1() -> None:
    with pytest.raises(WazuhException) as caught:
        reply_data({"error": True, "message": "why"})
    assert (type(caught.value.code), str(caught.value)) == (int, "Error 1 - why")


def test_due_is_a_page_only_with_error_1() -> None:
    with pytest.raises(WazuhException, match="Error 2 - due"):
        reply_data({"error": 2, "message": "due"})
    with pytest.raises(WazuhException, match="Error 1 - other"):
        reply_data({"error": 1, "message": "other"})


def test_an_answer_that_says_nothing() -> None:
    with pytest.raises(AnswerInvalid, match="neither error nor data nor status"):
        reply_data({"message": "ok"})


def test_version_is_seen() -> None:
    assert carries_version({"version": 1})
    assert not carries_version({"command": "status"})
    assert not carries_version("version")


def test_errors_survive_pickling() -> None:
    error = WazuhInternalError(1013, "gone")
    error.__cause__ = OSError("x")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own bytes
    assert type(copy) is WazuhInternalError
    assert (str(copy), copy.args, copy.remediation) == (str(error), error.args, error.remediation)


def test_json_is_ascii() -> None:
    assert encode_json({"é": 1}) == json.dumps({"é": 1}).encode()
