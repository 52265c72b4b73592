"""Commands as JSON, both ways."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.services.bench import A1
from wazuh_comms_trio.backends.interfaces import Action, Command, CommandResult, Target
from wazuh_comms_trio.errors import MalformedRequest
from wazuh_comms_trio.services.commands.command_json import decode_commands, encode_command, encode_commands

COMMAND: dict[str, Any] = {
    "document_id": "c1",
    "request_id": "r1",
    "order_id": "o1",
    "source": "Users/Services",
    "user": "Management API",
    "target": {"type": "agent", "id": A1},
    "action": {"name": "set-group", "version": "v5.0.0", "args": {"groups": ["web", "db"]}},
    "timeout": 100,
    "status": "pending",
}


def decode(*commands: Any) -> list[Command]:
    return decode_commands(json.dumps({"commands": list(commands)}).encode())


def changed(**changes: Any) -> dict[str, Any]:
    return {**COMMAND, **changes}


def test_there_and_back() -> None:
    (found,) = decode(COMMAND)
    assert found == Command(
        document_id="c1",
        request_id="r1",
        order_id="o1",
        source="Users/Services",
        user="Management API",
        target=Target("agent", A1),
        action=Action("set-group", "v5.0.0", {"groups": ["web", "db"]}),
        timeout=100,
    )
    assert encode_command(found) == COMMAND
    assert json.loads(encode_commands([found, found])) == {"commands": [COMMAND, COMMAND]}
    assert encode_commands([]) == b'{"commands":[]}'


def test_nulls_are_left_out() -> None:
    (found,) = decode({"document_id": "c1", "target": {"type": "group", "id": "all"}, "action": {"name": "restart"}})
    assert encode_command(found) == {
        "document_id": "c1",
        "target": {"type": "group", "id": "all"},
        "action": {"name": "restart"},
        "timeout": 100,
        "status": "pending",
    }


def test_what_is_tolerated() -> None:
    assert decode(changed(status="PENDING"))[0].status == "pending"
    assert decode(changed(status="Failure"))[0].status == "failed"
    assert decode(changed(status=None, user=None, later_field={"x": 1}))[0].user is None
    assert decode(changed(target={"type": "agent", "id": A1.upper()}))[0].target.id == A1
    assert decode(changed(target={"type": "group", "id": "Web"}))[0].target.id == "Web"
    (found,) = decode(changed(result={"code": 0, "message": "m", "data": [1]}, status="success"))
    assert found.result == CommandResult(0, "m", [1])
    assert encode_command(found)["result"] == {"code": 0, "message": "m", "data": [1]}
    assert decode() == []


@pytest.mark.parametrize(
    ("command", "where"),
    [
        ({}, r"commands\[0\]: .*document_id"),
        ([], r"commands\[0\]: Expected `object`"),
        (changed(document_id=7), r"commands\[0\]\.document_id: Expected `str`"),
        (changed(document_id=""), r"commands\[0\]\.document_id"),
        (changed(document_id="x" * 513), r"commands\[0\]\.document_id"),
        (changed(document_id="a\0b"), r"commands\[0\]\.document_id"),
        (changed(target={"type": "pet", "id": "x"}), r"commands\[0\]\.target\.type"),
        (changed(target={"type": "agent"}), r"commands\[0\]\.target: .*id"),
        (changed(action={"name": "x", "args": ["a"]}), r"commands\[0\]\.action\.args: Expected `object \| null`"),
        (changed(action={}), r"commands\[0\]\.action: .*name"),
        (changed(timeout=1.5), r"commands\[0\]\.timeout: Expected `int`"),
        (changed(timeout=-1), r"commands\[0\]\.timeout"),
        (changed(timeout="9"), r"commands\[0\]\.timeout"),
        (changed(status="lost"), r"commands\[0\]\.status"),
    ],
)
def test_what_is_not(command: Any, where: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        decode(command)
    assert caught.value.code == 400
    assert re.match(where, caught.value.message)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b"{}",
        b'{"commands":{}}',
        b'{"commands":[\x00]}',
        b'{"commands":"\xff"}',
        b'{"x":"\xff"}',
    ],
)
def test_bodies_that_are_none(body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        decode_commands(body)


def test_depth() -> None:
    with pytest.raises(MalformedRequest, match="nested too deeply"):
        decode_commands(b'{"commands":[],"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}")


@given(st.binary(max_size=50) | st.from_regex(rb'\{"commands":\[\{.{0,30}\}\]\}', fullmatch=True))
def test_any_bytes(body: bytes) -> None:
    with suppress(MalformedRequest):
        decode_commands(body)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_what_can_just_be_read_and_not_written_again_is_refused() -> None:
    """A reader takes some 950 levels, less those of its own stack; the store and the hub write at another depth."""
    (found,) = decode(changed(action={"name": "x", "args": {"a": nested(199)}}))
    assert encode_command(found)["action"]["args"] == {"a": nested(199)}
    for deep in ({"action": {"name": "x", "args": {"a": nested(201)}}}, {"result": {"data": nested(900)}}):
        with pytest.raises(MalformedRequest, match=r"commands\[0\] is nested too deeply"):
            decode(changed(**deep))
