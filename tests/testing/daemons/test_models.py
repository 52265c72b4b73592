"""The models of the daemons: the facts that are known of the real ones."""

from __future__ import annotations

import json
from typing import Any

import pytest

from wazuh_comms_trio.testing import (
    Act,
    AuthdModel,
    ComponentModel,
    Frames,
    RemotedModel,
    TaskManagerModel,
    WazuhDBModel,
)


def asked(model: Any, message: Any) -> Any:
    return model(message.encode() if isinstance(message, str) else json.dumps(message).encode())


@pytest.fixture
def db() -> WazuhDBModel:
    model = WazuhDBModel(page_rows=2)
    for number in range(1, 6):
        model.add_agent(number, f"agent-{number}", os_name="Linux" if number == 1 else None)
    return model


def test_wazuh_db_pages(db: WazuhDBModel) -> None:
    assert asked(db, "global get-all-agents last_id 0") == 'due [{"id":1},{"id":2}]'
    assert asked(db, "global get-all-agents last_id 4") == 'ok [{"id":5}]'
    assert asked(db, "global get-group-agents default last_id 3") == "ok [4,5]"
    assert asked(db, "global get-agents-by-connection-status 3 active") == 'ok [{"id":4},{"id":5}]'


def test_wazuh_db_streams_rows(db: WazuhDBModel) -> None:
    db.packages[1] = [{"name": "bash", "vendor": None}]
    answer = asked(db, "agent 001 package get")
    assert isinstance(answer, Frames)
    assert (list(answer.payloads), answer.streamed) == (['due {"name":"bash"}', "ok"], True)


def test_wazuh_db_leaves_nulls_out(db: WazuhDBModel) -> None:
    answer = asked(db, "global sql SELECT id, os_name FROM agent WHERE id < 3 ORDER BY id")
    assert answer == 'ok [{"id":1,"os_name":"Linux"},{"id":2}]'
    assert asked(db, "global sql SELECT 1 AS a WHERE 0") == "ok []"


@pytest.mark.parametrize(
    "query",
    [
        "",
        "global",
        "global nonsense",
        "global get-all-agents",
        "global get-all-agents last_id x",
        "GLOBAL get-all-agents last_id 0",
        "global get-agent-info x",
        "global get-agents-by-connection-status active",
        "global get-group-agents x",
        "global set-agent-groups {",
        'global set-agent-groups {"mode":"x","data":[]}',
        'global set-agent-groups {"mode":"append","data":[{"id":99,"groups":[]}]}',
        "agent 99 package get",
        "agent 1 nonsense",
        "global sql nonsense",
    ],
)
def test_wazuh_db_refuses(db: WazuhDBModel, query: str) -> None:
    assert str(asked(db, query)).startswith("err ")


def test_wazuh_db_answers_a_newline_with_one(db: WazuhDBModel) -> None:
    assert asked(db, "global find-group default\n") == 'ok [{"id":1}]\n'


def test_wazuh_db_in_json(db: WazuhDBModel) -> None:
    assert asked(db, {"command": "getstats"})["message"] == "ok"
    assert asked(db, {"command": "x"})["error"] != 0
    assert asked(db, "{nonsense")["error"] != 0


def test_authd() -> None:
    authd = AuthdModel()
    added = asked(authd, {"function": "add", "arguments": {"name": "a", "ip": "10.0.0.1"}})
    assert (added["error"], added["data"]["id"], "message" in added) == (0, "001", False)
    same = {"function": "add", "arguments": {"name": "a"}}
    assert asked(authd, same) == {"error": 9008, "message": "Duplicate name"}
    others = [
        {"function": "add", "arguments": {"name": "b", "ip": "10.0.0.1"}},
        {"function": "add", "arguments": {"name": "b", "id": "001"}},
        {"function": "add", "arguments": {"name": "b", "groups": "nobody"}},
        {"function": "add", "arguments": {}},
        {"function": "get", "arguments": {"id": "009"}},
        {"function": "remove", "arguments": {"id": "009"}},
        {"function": "x", "arguments": {}},
        {"function": "add"},
        [],
    ]
    for message in others:
        answer = asked(authd, message)
        assert answer["error"] > 9000
        assert "data" not in answer
    assert asked(authd, {"function": "get", "arguments": {"id": 1}}) is Act.CRASH


def test_remoted() -> None:
    remoted = RemotedModel(states={("001", "agent"): {"status": "connected"}}, stats={1: {}, 2: {}}, page_rows=1)
    assert asked(remoted, "001 agent getstate") == {"error": 0, "data": {"status": "connected"}}
    assert asked(remoted, "001 other getstate")["error"] != 0
    assert asked(remoted, "001 agent getconfig x").startswith("err ")
    assert asked(remoted, "002 agent getstate") is Act.CLOSE
    assert asked(remoted, "nonsense") is Act.CLOSE
    page = asked(remoted, {"command": "getagentsstats", "parameters": {"agents": "all", "last_id": 0}})
    assert (page["message"], [agent["id"] for agent in page["data"]["agents"]]) == ("due", [1])
    assert asked(remoted, {"command": "getagentsstats", "parameters": {}})["error"] != 0
    assert asked(remoted, {"command": "x"})["error"] != 0


def test_task_manager_answers_with_an_array() -> None:
    tasks = TaskManagerModel({1: {"status": "Updated"}})
    answer = asked(tasks, {"command": "upgrade_result", "parameters": {"agents": [1, 2]}})
    assert [row["error"] for row in answer["data"]] == [0, 7]
    for message in ({"command": "status"}, {"command": "x"}, "nonsense"):
        assert isinstance(asked(tasks, message)["data"], list)


def test_components() -> None:
    execd = ComponentModel("wazuh-execd", configurations={"a": {"b": 1}})
    assert asked(execd, "getconfig a") == 'ok {"b": 1}'
    assert asked(execd, "getconfig x").startswith("err ")
    assert asked(execd, {"command": "getconfig", "parameters": {"section": "a"}})["data"] == {"b": 1}
    assert asked(execd, {"command": "x"})["error"] != 0
