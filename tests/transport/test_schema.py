"""JSON Schema validation, both ways, per daemon and command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wazuh_comms_trio.errors import AnswerInvalid, WazuhInternalError
from wazuh_comms_trio.testing import AuthdModel, ComponentModel, RemotedModel, TaskManagerModel, WazuhDBModel
from wazuh_comms_trio.transport import (
    MessageInvalid,
    daemons,
    register_schemas,
    unregister_schemas,
    validate_reply,
    validate_request,
)
from wazuh_comms_trio.transport.schema import schema_for

ADD = {"function": "add", "arguments": {"name": "web-1", "ip": "any"}}

FORCE = {
    "enabled": True,
    "key_mismatch": True,
    "disconnected_time": {"enabled": True, "value": "1h"},
    "after_registration_time": 3600,
}


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    for daemon in ("mine", "authd"):
        unregister_schemas(daemon)


@pytest.mark.parametrize(
    ("daemon", "message"),
    [
        ("authd", ADD),
        ("authd", {"function": "add", "arguments": {"name": "web-1", "force": FORCE, "extra": 1}}),
        ("authd", {"function": "remove", "arguments": {"id": "001", "purge": False}}),
        ("authd", {"function": "unknown", "arguments": 5}),
        ("task-manager", {"command": "status"}),
        ("task-manager", {"version": 1, "command": "upgrade_get_status", "parameters": {"agents": [1, 2]}}),
        ("remoted", {"version": 1, "command": "getagentsstats", "parameters": {"agents": "all", "last_id": 0}}),
        ("analysis", {"version": 1, "origin": {"module": "api"}, "command": "getstats", "parameters": {}}),
        ("wazuh-db", {"version": 1, "command": "getconfig", "parameters": {"section": "internal"}}),
        (None, {"version": 1, "command": "anything", "more": True}),
        (None, ["no", "object"]),
        ("mine", {"command": ["not", "text"]}),
    ],
)
def test_messages_that_fit(daemon: str | None, message: Any) -> None:
    before = json.dumps(message)
    validate_request(daemon, message)
    assert json.dumps(message) == before


@pytest.mark.parametrize(
    ("daemon", "message", "where"),
    [
        ("authd", {"function": "add", "arguments": {"name": 5}}, "arguments.name must be string"),
        ("authd", {"function": "add", "arguments": {}}, "'name'"),
        ("authd", {"function": "add", "arguments": {"name": "x", "groups": ["a"]}}, "arguments.groups must be string"),
        ("authd", {"function": "remove", "arguments": {"id": 1}}, "arguments.id must be string"),
        ("authd", {"function": "get", "arguments": {"id": "1"}}, "arguments.id"),
        ("remoted", {"version": 1, "command": "getagentsstats", "parameters": {"agents": ["1"]}}, "agents"),
        ("task-manager", {"version": 1, "command": "upgrade", "parameters": {"agents": "all"}}, "agents"),
        (None, {"version": 2, "command": "x"}, "version"),
        (None, {"version": 1}, "'command'"),
        (None, {"version": 1, "command": "x", "parameters": []}, "parameters must be object"),
        (None, {"version": 1, "command": "x", "origin": {"module": 5}}, "origin.module must be string"),
    ],
)
def test_messages_that_do_not_fit(daemon: str | None, message: Any, where: str) -> None:
    with pytest.raises(MessageInvalid) as caught:
        validate_request(daemon, message)
    assert isinstance(caught.value, WazuhInternalError)
    assert caught.value.code == 1012
    assert where in caught.value.message


def test_answers() -> None:
    validate_reply("authd", "add", {"error": 9008, "message": "Duplicate name"})
    validate_reply("authd", "add", {"error": 0, "data": {"id": "001", "name": "x", "ip": "any", "key": "k"}})
    validate_reply("task-manager", "status", {"anything": "goes"})
    wrong: list[Any] = [{"error": 0}, {"error": 0, "data": {"id": 1}}, {"error": 1}, {"error": "0"}, []]
    for reply in wrong:
        with pytest.raises(AnswerInvalid, match="authd add") as caught:
            validate_reply("authd", "add", reply)
        assert caught.value.code == 1014
    with pytest.raises(AnswerInvalid):
        validate_reply("task-manager", "upgrade_result", {"error": 0, "message": "Success", "data": {}})


def test_answers_to_messages_with_a_version_have_an_error_number() -> None:
    validate_reply("mine", "x", {"data": 1})
    validate_reply("mine", "x", {"error": 0, "data": 1}, versioned=True)
    with pytest.raises(AnswerInvalid, match="'error'"):
        validate_reply("mine", "x", {"data": 1}, versioned=True)


@pytest.mark.parametrize(
    ("daemon", "model", "message"),
    [
        ("authd", AuthdModel(), ADD),
        ("authd", AuthdModel(), {"function": "get", "arguments": {"id": "009"}}),
        ("remoted", RemotedModel(stats={1: {}}), {"command": "getagentsstats", "parameters": {"agents": "all"}}),
        ("remoted", RemotedModel(), {"command": "getstats"}),
        ("remoted", RemotedModel(), {"command": "getconfig", "parameters": {}}),
        ("task-manager", TaskManagerModel(), {"command": "upgrade_result", "parameters": {"agents": [4]}}),
        ("analysis", ComponentModel(), {"command": "getconfig", "parameters": {"section": "none"}}),
        ("analysis", ComponentModel(), {"command": "getstats"}),
        ("wazuh-db", WazuhDBModel(), {"command": "getconfig"}),
    ],
)
def test_the_models_say_what_the_schemas_expect(daemon: str, model: Any, message: Any) -> None:
    command = message.get("command", message.get("function"))
    assert schema_for(daemon, command, "reply") is not None
    validate_request(daemon, message)
    validate_reply(daemon, command, model(json.dumps(message).encode()))


def test_a_schema_given_takes_the_place_of_all_others() -> None:
    validate_request("authd", {"function": "add", "arguments": {"name": 5}}, schema={"type": "object"})
    with pytest.raises(MessageInvalid):
        validate_request("task-manager", {"command": "status"}, schema={"required": ["node"]})
    both = {"request": {"required": ["a"]}, "reply": {"required": ["b"]}}
    with pytest.raises(MessageInvalid):
        validate_request(None, {}, schema=both)
    with pytest.raises(AnswerInvalid):
        validate_reply(None, None, {}, schema=both)
    validate_reply(None, None, {}, schema={"required": ["b"]})


def test_a_schema_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"properties": {"a": {"type": "integer"}}}')
    validate_request(None, {"a": 1}, schema=path)
    with pytest.raises(MessageInvalid, match="a must be integer"):
        validate_request(None, {"a": "1"}, schema=str(path))
    with pytest.raises(FileNotFoundError):
        validate_request(None, {}, schema=tmp_path / "missing.json")


def test_registered_schemas(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"commands": {"go": {"request": {"required": ["to"]}}, "*": {"reply": False}}}))
    register_schemas("mine", path)
    validate_request("mine", {"command": "go", "to": "there"})
    with pytest.raises(MessageInvalid, match="mine go"):
        validate_request("mine", {"command": "go"})
    validate_request("mine", {"command": "stay"})
    validate_reply("mine", "go", {})
    with pytest.raises(AnswerInvalid):
        validate_reply("mine", "stay", {})
    unregister_schemas("mine")
    validate_request("mine", {"command": "go"})


def test_registered_schemas_replace_those_of_the_package() -> None:
    register_schemas("authd", {"commands": {"add": {"request": True}}})
    validate_request("authd", {"function": "add", "arguments": {"name": 5}})
    with pytest.raises(MessageInvalid):
        validate_request("authd", {"function": "remove", "arguments": {"id": 5}})


@pytest.mark.parametrize(
    "source",
    [
        {},
        {"commands": []},
        {"commands": {"x": {}}},
        {"commands": {"x": {"request": 5}}},
        {"commands": {"x": {"question": {}}}},
        {"commands": {"x": {"request": {"type": "no type"}}}},
        {"commands": {"x": {"request": {"properties": [1]}}}},
        {"commands": {"x": {"request": {"pattern": "("}}}},
        {"commands": {"x": {"request": {"$ref": "http://example.invalid/schema"}}}},
        {"commands": {"x": {"request": {"$ref": "file:///etc/hostname"}}}},
    ],
)
def test_sources_that_are_no_schemas(source: Any) -> None:
    with pytest.raises(ValueError, match=r"(?i)schema|commands"):
        register_schemas("mine", source)
    validate_request("mine", {"command": "x"})


def test_misuse() -> None:
    with pytest.raises(TypeError, match="mapping or a file's path"):
        validate_request(None, {}, schema=5)  # type: ignore[arg-type]


def test_defaults_are_not_written_into_the_message() -> None:
    message: dict[str, Any] = {}
    validate_request(None, message, schema={"properties": {"a": {"default": 1}}})
    assert message == {}


def test_every_registered_daemon_has_schemas_in_the_package() -> None:
    for name in daemons:
        commands = ("getconfig", "add", "upgrade")
        assert any(schema_for(name, command, "request") is not None for command in commands), name


def test_imported_on_first_use() -> None:
    code = (
        "import wazuh_comms_trio.transport.schema, sys; print('fastjsonschema' in sys.modules, 'trio' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"]
