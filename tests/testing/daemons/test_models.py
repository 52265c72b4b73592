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
    assert (list(answer.payloads), answer.streamed) == (['due {"name":"bash"}', 'ok {"status":"SUCCESS"}'], True)
    assert list(asked(db, "agent 002 package get").payloads) == ['ok {"status":"NOT_SYNCED"}']


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
        "global get-agent-info",
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
    section = {"command": "getconfig", "parameters": {"section": "wdb"}}
    assert asked(db, section)["data"] == {"wazuh-db": {"worker_pool_size": 8}}
    for number, message in enumerate(
        (
            "{nonsense",
            {},
            {"command": "x"},
            {"command": "getconfig"},
            {"command": "getconfig", "parameters": {}},
            {"command": "getconfig", "parameters": {"section": "x"}},
        ),
        1,
    ):
        assert asked(db, message)["error"] == number


def test_wazuh_db_skips_blanks_and_reads_json_as_agent_0(db: WazuhDBModel) -> None:
    assert asked(db, " \n global find-group default") == 'ok [{"id":1}]'
    assert asked(db, 'global get-agent-info {"id":1}') == "ok []"
    assert str(asked(db, "global get-agent-info 1")).startswith('ok [{"id":1,')


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
    for message, code in zip(others, (9007, 9012, 9014, 9005, 9011, 9011, 9001, 9004, 9002), strict=True):
        answer = asked(authd, message)
        assert answer["error"] == code
        assert "data" not in answer
    for message in ({"function": "get", "arguments": {"id": 1}}, {"function": 1}, {"function": None, "arguments": {}}):
        crashes = asked(authd, message) is Act.CRASH
        assert crashes == (message["function"] is not None)
    assert asked(authd, {"function": "get", "arguments": {}})["error"] == 9010
    assert asked(authd, "getconfig auth").startswith("ok {")


def test_authd_wants_all_of_force() -> None:
    authd = AuthdModel()
    asked(authd, {"function": "add", "arguments": {"name": "web-1", "ip": "10.0.0.1"}})
    force = {
        "enabled": True,
        "key_mismatch": True,
        "disconnected_time": {"enabled": True, "value": "1h"},
        "after_registration_time": 3600,
    }
    for name in force:
        without = {key: value for key, value in force.items() if key != name}
        again = {"function": "add", "arguments": {"name": "web-1", "force": without}}
        assert asked(authd, again) == {"error": 9002, "message": "Parsing JSON input"}
    again = {"function": "add", "arguments": {"name": "web-1", "force": force}}
    assert asked(authd, again)["error"] == 0
    assert len(authd.agents) == 1


def test_authd_checks_neither_name_nor_key() -> None:
    authd = AuthdModel()
    for name in ("two words", "a\n002 b any key"):
        authd.agents.clear()
        assert asked(authd, {"function": "add", "arguments": {"name": "web-1", "key": "k"}})["error"] == 0
        assert (authd.damaged, authd.key_file) == (False, "001 web-1 any k\n")
        assert asked(authd, {"function": "add", "arguments": {"name": name}})["error"] == 0
        assert authd.damaged


def test_remoted() -> None:
    remoted = RemotedModel(states={("001", "agent"): {"status": "connected"}}, stats={1: {}, 2: {}}, page_rows=1)
    assert asked(remoted, "001 agent getstate") == {"error": 0, "data": {"status": "connected"}}
    assert asked(remoted, "001 other getstate")["error"] != 0
    assert asked(remoted, "001 agent getconfig x").startswith("err ")
    assert asked(remoted, "002 agent getstate") is Act.CLOSE
    assert asked(remoted, "nonsense") is Act.CLOSE
    page = asked(remoted, {"command": "getagentsstats", "parameters": {"agents": "all", "last_id": 0}})
    assert (page["error"], page["message"]) == (1, "due")
    assert [agent["id"] for agent in page["data"]["agents"]] == [1]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{nonsense", 2),
        ({}, 3),
        ({"command": "x"}, 4),
        ({"command": "getconfig"}, 5),
        ({"command": "getconfig", "parameters": {}}, 6),
        ({"command": "getconfig", "parameters": {"section": "x"}}, 7),
        ({"command": "getagentsstats", "parameters": {}}, 8),
        ({"command": "getagentsstats", "parameters": {"agents": [7]}}, 9),
        ({"command": "getagentsstats", "parameters": {"agents": "all"}}, 10),
        ({"command": "getagentsstats", "parameters": {"agents": list(range(150))}}, 11),
        ({"command": "assigngroup", "parameters": {"agent": 1}}, 12),
        ({"command": "assigngroup", "parameters": {"agent": "001", "md5": "x"}}, 0),
        ({"command": "getagentsstats", "parameters": {"agents": list(range(149))}}, 0),
    ],
)
def test_remoteds_numbers(message: Any, code: int) -> None:
    answer = asked(RemotedModel(stats={1: {}}), message)
    assert answer["error"] == code
    assert isinstance(answer["data"], dict)


def test_analysisd_takes_half_as_many_agents() -> None:
    analysisd = ComponentModel(stats={number: {} for number in range(1, 200)})
    for count, code in ((75, 11), (74, 0)):
        message = {"command": "getagentsstats", "parameters": {"agents": list(range(1, count + 1))}}
        assert asked(analysisd, message)["error"] == code
    page = asked(analysisd, {"command": "getagentsstats", "parameters": {"agents": "all", "last_id": 0}})
    assert (page["error"], len(page["data"]["agents"])) == (1, 75)


def test_task_manager_answers_with_an_array() -> None:
    tasks = TaskManagerModel({1: {"status": "Updated"}})
    origin = {"name": "node01", "module": "api"}
    question = {"origin": origin, "command": "upgrade_result", "parameters": {"agents": [1, 2]}}
    assert [row["error"] for row in asked(tasks, question)["data"]] == [0, 3]
    for message, code in (
        ({"command": "status"}, 1),  # the published example
        (question | {"command": "status"}, 2),
        (question | {"origin": {"module": "api"}}, 1),
        (question | {"parameters": {"agents": ["001"]}}, 5),
        ("nonsense", 1),
    ):
        answer = asked(tasks, message)
        assert (answer["error"], answer["data"]) == (code, [])


def test_components() -> None:
    execd = ComponentModel("wazuh-execd", configurations={"a": {"b": 1}}, takes="text")
    assert asked(execd, "getconfig a") == 'ok {"b": 1}'
    assert asked(execd, "getconfig x").startswith("err ")
    assert asked(execd, {"command": "getconfig", "parameters": {"section": "a"}}).startswith("err ")
    analysisd = ComponentModel(configurations={"a": {"b": 1}})
    assert asked(analysisd, {"command": "getconfig", "parameters": {"section": "a"}})["data"] == {"b": 1}
    assert asked(analysisd, "getconfig a")["error"] == 2


def test_execd_and_analysisd_answer_more_than_configurations() -> None:
    execd = ComponentModel(
        "execd", takes="text", commands={"reload": "ok ", "check-manager-configuration": {"error": 0}}
    )
    assert execd(b"reload") == "ok "
    assert execd(b"check-manager-configuration") == {"error": 0}
    assert execd(b"reload now") == "err Unrecognized command"
    analysisd = ComponentModel(commands={"reload-ruleset": {"error": 0, "message": "ok", "data": []}})
    assert asked(analysisd, {"command": "reload-ruleset", "parameters": {}})["data"] == []
    assert asked(analysisd, {"command": "other", "parameters": {}})["error"] == 4


def test_authd_of_a_worker_and_wrong_addresses() -> None:
    worker = AuthdModel(worker=True)
    for function in ("add", "remove", "get"):
        assert asked(worker, {"function": function, "arguments": {"id": "001", "name": "web-1"}})["error"] == 9015
    model = AuthdModel()
    assert asked(model, {"function": "add", "arguments": {"name": "a", "ip": "10.0.0.300"}})["error"] == 9006
    assert asked(model, {"function": "add", "arguments": {"name": "a", "ip": "10.0.0.0/8"}})["error"] == 0
    assert asked(model, {"function": "add", "arguments": {"name": "b"}})["error"] == 0
