"""wazuh-db's answers: the quick way and the whole one agree, and nothing but Wazuh's numbered errors comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.fuzz.target import Target
from wazuh_comms_trio.errors import WazuhException
from wazuh_comms_trio.wire.envelope import decode_json
from wazuh_comms_trio.wire.wdb import DUE, NOT_QUICK, OK, is_last_frame, parse_reply, quick_data
from wazuh_comms_trio.wire.wdb_paging import Paging, due_meaning, encode_query, last_id_of, next_page, prepare

__all__ = ["TARGETS"]

PAGED = "global get-all-agents last_id 0"


def numbered(work: Callable[[], Any]) -> Any:
    """What it gives, or the error, which must have a number."""
    try:
        return work()
    except WazuhException as error:
        assert isinstance(error.code, int)
        return error


def same(one: Any, other: Any) -> bool:
    return json.dumps(one) == json.dumps(other)  # NaN is NaN


def check(data: bytes) -> None:
    quick = quick_data(data)
    for errors in ("replace", "strict"):
        reply = numbered(lambda errors=errors: parse_reply(data, errors))
        if isinstance(reply, WazuhException):
            assert quick is NOT_QUICK
            continue
        value = numbered(reply.data)
        if quick is not NOT_QUICK:
            assert reply.status == OK
            assert same(value, quick)
        assert reply.is_last is not (reply.status == DUE)
        assert reply.status != DUE or not is_last_frame(data)
        rows = numbered(reply.rows)
        assert isinstance(rows, WazuhException) or all(isinstance(row, dict) for row in rows)
        numbered(reply.only)
        numbered(reply.members)
        paging = Paging(PAGED, last_id_of)
        numbered(lambda reply=reply, paging=paging: paging.take(reply))
    numbered(lambda: decode_json(data))


ANSWERS = Target(
    check,
    (
        b"ok",
        b'ok [{"id":1,"name":"a"},{"id":2}]',
        b'due [{"id":3}]',
        b"err Agent \xe9 not found",
        b'{"error":0,"data":{"a":1}}',
        b'{"error":2001,"message":"no","data":[]}',
        b'ok {"a":NaN,"b":1e400,"c":"\\ud800"}',
        b"ok " + b"[" * 30 + b"]" * 30,
        b"ok plain text\n",
        b"ok\nx",
    ),
    (b"ok ", b"due ", b"err ", b'"data":', b'"error":', b"null", b"[" * 3000, b"NaN", b"\xff", b"\\ud800", b"9" * 5000),
    longest=70_000,
    cases=1000,
)


def check_query(data: bytes) -> None:
    query = data.decode("utf-8", "surrogateescape")
    prepared = numbered(lambda: prepare(query))
    slow = numbered(lambda: (encode_query(query), due_meaning(query)))
    if isinstance(slow, WazuhException) or isinstance(prepared, WazuhException):
        assert type(slow) is type(prepared)
        assert str(slow) == str(prepared)
        return
    frame, meaning = prepared
    assert (frame[4:], meaning) == slow
    page = numbered(lambda: next_page(query, 12))
    assert isinstance(page, WazuhException) or "12" in page


QUERIES = Target(
    check_query,
    (
        b"global get-all-agents last_id 0",
        b"global get-agents-by-connection-status 5 active",
        b'global sync-agent-groups-get {"last_id":0,"condition":"all"}',
        b"agent 001 package get",
        b"agent 001 sql select 1",
        b"global disconnect-agents 0 100 syncreq",
        b"  \nglobal get-group-agents web {last_id}",
    ),
    (b"last_id", b"{last_id}", b"global ", b'{"last_id": 3}', b"\0", b"\n", b"\xff", b" 12"),
    longest=400,
    cases=2000,
)

TARGETS = {"wazuh-db": ANSWERS, "wazuh-db-query": QUERIES}
