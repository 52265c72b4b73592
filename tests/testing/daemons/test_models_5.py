"""The models of 5.0's daemons and the HTTP fakes, asked by hand: what the description says of them, line by line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from wazuh_comms_trio.testing import (
    Act,
    AgentTasksModel,
    AuthdModel5,
    ControlModel,
    EngineModel,
    FakeReply,
    FakeRequest,
    InventoryModel,
    KeystoreModel,
    RemotedAdminModel,
    RemotedModel5,
    ScannerModel,
    UpgradeModel,
    WazuhDBHTTPModel,
    WazuhDBModel,
    WazuhDBModel5,
    open_fake_http,
)
from wazuh_comms_trio.testing.daemons.releases import conduct_of, place_of

NOW = 1_700_000_000


def said(model: Any, message: Any) -> Any:
    return model(message if isinstance(message, bytes) else json.dumps(message).encode())


def http(model: Any, method: str, target: str, body: Any = b"", **headers: str) -> tuple[int, Any]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = model(
        FakeRequest(method, target, {name.replace("_", "-"): value for name, value in headers.items()}, content)
    )
    assert isinstance(reply, FakeReply)
    return reply.status, reply.body


# --- task-manager of 5.0.0 ---


def test_what_a_task_needs() -> None:
    model = AgentTasksModel(now=NOW)
    good = {
        "action": "create_task",
        "agent_id": "001",
        "task_type": "agent_restart",
        "payload": {},
        "create_time": NOW,
    }
    first = said(model, good)
    assert first["status"] == "ok"
    assert said(model, good) == first, "the same four are the same task"
    assert said(model, {**good, "source_id": 5}) == first, "a source_id of another type is ignored"
    assert said(model, {**good, "source_id": "a"}) != first
    for wrong in ({"agent_id": 1}, {"task_type": "x"}, {"create_time": None}, {"create_time": NOW - 31536001}):
        assert said(model, {**good, **wrong})["error"] == "parsing_error"
    without = {name: value for name, value in good.items() if name != "payload"}
    assert said(model, without)["error"] == "parsing_error"
    assert said(model, b"{") == {"error": "invalid_json"}
    assert said(model, {"action": "?"})["error"] == "parsing_error"


def test_at_most_100_pending_tasks_and_each_once() -> None:
    model = AgentTasksModel(now=NOW)
    for number in range(150):
        task = {"action": "create_task", "agent_id": "001", "task_type": "agent_reload", "payload": {}}
        said(model, {**task, "create_time": NOW - number})
    counts = [len(said(model, {"action": "get_pending_tasks", "agent_id": "001"})["tasks"]) for _ in range(3)]
    assert counts == [100, 50, 0]


# --- the small ones ---


def test_keystore() -> None:
    model = KeystoreModel()
    assert model(b"PUT|f|k|a|b")["status"] == "ok"
    assert model(b"GET|f|k")["value"] == "a|b"
    assert model(b"GET|f|other")["value"] == "wazuh-manager"
    assert model(b"DELETE|f|other")["status"] == "ok"
    assert model(b"LIST|f")["status"] == "error"


@pytest.mark.parametrize(
    ("release", "word", "answer"),
    [
        ("4.7.5", b"restart", "192.0.2.1"),
        ("4.14.2", b"anything", "192.0.2.1"),
        ("5.0.0-beta1", b"restart", "ok "),
        ("5.0.0-beta1", b"halt", b"Err\0"),
        ("5.0.0", b"reload", "ok accepted"),
        ("5.0.0", b"restart now", "err Invalid command"),
    ],
)
def test_control(release: str, word: bytes, answer: Any) -> None:
    assert ControlModel(release)(word) == answer
    if release == "5.0.0":
        assert ControlModel(release, stranger=True)(word) is Act.CLOSE


def test_upgrade_wants_numbers() -> None:
    ask = {"version": 1, "origin": {"module": "api"}, "command": "upgrade", "parameters": {"agents": ["001"]}}
    assert said(UpgradeModel(), ask)["error"] == 2
    assert said(UpgradeModel(), {"command": "x"})["error"] == 1


# --- what changed ---


def test_authd_of_5_doesnt_crash() -> None:
    model = AuthdModel5()
    assert said(model, {"function": 1})["error"] == 9003
    assert said(model, {"function": "remove", "arguments": {"id": 1}})["error"] == 9010
    assert said(model, {"function": "add", "arguments": {"name": "a b"}})["error"] == 9017
    assert said(model, {"function": "add", "arguments": {"name": 5}})["error"] == 9017
    assert said(model, {"function": "add", "arguments": {"name": "a", "ip": 5}})["error"] == 9006
    assert said(model, {"function": "add", "arguments": {"name": "web-1", "ip": "any", "key": None}})["error"] == 0
    assert model(b"getconfig auth") == 'ok {"auth": {}}'
    full = AuthdModel5(max_agents=1)
    assert said(full, {"function": "add", "arguments": {"name": "web-1"}})["error"] == 0
    assert said(full, {"function": "add", "arguments": {"name": "web-2"}})["error"] == 9013
    assert said(AuthdModel5(worker=True), {"function": "add", "arguments": {"name": "web-1"}})["error"] == 0
    worker = AuthdModel5(worker=True, reachable=False)
    assert said(worker, {"function": "add", "arguments": {"name": "web-1"}})["error"] == 9016
    assert said(worker, {"function": "add", "arguments": {"name": "web-1", "id": "001"}})["error"] == 9015
    assert said(worker, {"function": "get", "arguments": {"id": "001"}})["error"] == 9015


def test_remoted_of_5() -> None:
    model = RemotedModel5(sessions={"001"}, states={("002", "agent"): {}})
    assert model(b"001 control restart") == "ok "
    assert model(b"002 control restart") == "err Cannot send request"
    assert model(b"009 control restart") is Act.CLOSE
    final = RemotedModel5(release="5.0.0", sessions={"001"}, legacy=False)
    for server, code in ((final, 8), (RemotedModel5(), 12)):
        assert said(server, {"command": "assigngroup", "parameters": {"agent": "001"}})["error"] == code
    assert final(b"001 control restart") == "err Legacy delivery disabled"
    assert said(final, {"command": "getagentsstats", "parameters": {"agents": [1]}})["error"] == 4


def test_wazuh_db_of_5_has_no_databases_of_agents() -> None:
    model = WazuhDBModel5()
    model.add_agent(1, "a")
    assert str(model(b"agent 001 package get")).startswith("err ")
    assert str(model(b"wazuhdb remove 1")).startswith("err ")
    assert str(model(b"global get-labels 1")).startswith("err ")
    assert str(model(b" \n global get-agent-info 1")).startswith("ok ")


@pytest.mark.parametrize("kind", [WazuhDBModel, WazuhDBModel5])
def test_wazuh_db_answers_for_its_other_actors_what_a_test_says(kind: type[WazuhDBModel]) -> None:
    model = kind(commands={"mitre sql SELECT 1": 'ok [{"1":1}]', "wazuhdb remove 1": "ok"})
    assert model(b"mitre sql SELECT 1") == 'ok [{"1":1}]'
    assert model(b"\nmitre sql SELECT 1\n") == 'ok [{"1":1}]\n'
    assert str(model(b"mitre other")).startswith("err Invalid DB query syntax")
    assert str(model(b"task other")).startswith("err Invalid DB query syntax")
    assert str(model(b"tasks other")).startswith("err Invalid DB query actor")
    assert (model(b"wazuhdb remove 1") == "ok") is (kind is WazuhDBModel)


# --- HTTP ---


def test_wazuh_db_over_http() -> None:
    old = WazuhDBHTTPModel("4.14.2", {1: {"connection_status": "active"}}, {1: ["default"], 2: []})
    assert http(old, "GET", "/v1/agents/ids") == (200, [1])
    assert http(old, "GET", "/v1/agents/ids/groups") == (200, {"data": {"1": ["default"]}})
    assert http(WazuhDBHTTPModel("4.14.2"), "GET", "/v1/agents/ids/groups") == (200, {}), "empty members are left out"
    assert http(old, "GET", "/v1/agents/x/groups")[0] == 500
    assert http(old, "GET", "/v1/agents/all")[0] == 404
    assert http(old, "POST", "/v1/agents/summary", b'["1"]')[1]["agents_by_status"] == {"active": 1}
    new = WazuhDBHTTPModel("5.0.0", {1: {"name": "a", "ip": "", "os.name": " "}}, {1: ["default"]})
    assert http(new, "GET", "/v1/agents/groups")[0] == 400
    assert http(new, "GET", "/v1/agents/groups", x_wazuh_agent_id="001") == (200, ["default"])
    assert http(new, "GET", "/v1/agents/groups", x_wazuh_agent_id="x")[0] == 500
    assert http(new, "GET", "/v1/agents/all") == (200, [{"id": 1, "name": "a"}])
    assert http(new, "GET", "/v1/agents/ids")[0] == 404
    assert http(new, "POST", "/v1/agents/all")[0] == 405
    assert http(new, "DELETE", "/v1/agents/sync")[0] == 405
    assert http(new, "POST", "/v1/agents/sync", b"{")[0] == 500
    assert http(old, "POST", "/v1/agents/sync", b"{") == (500, "")


def test_a_summary_of_all_agents_has_the_five_most() -> None:
    agents = {n: {"connection_status": "active", "os_name": f"os-{min(n, 9)}"} for n in range(1, 12)}
    for release in ("4.14.2", "5.0.0"):
        model = WazuhDBHTTPModel(release, agents)
        counted = http(model, "POST", "/v1/agents/summary", b"")[1]["agents_by_os"]
        assert len(counted) == 5
        assert counted["os-9"] == 3
        assert len(http(model, "POST", "/v1/agents/summary", list(agents))[1]["agents_by_os"]) == 9
        assert http(model, "POST", "/v1/agents/summary", []) == (200, {})


def test_the_other_services() -> None:
    assert http(EngineModel("5.0.0-beta2"), "GET", "/status")[0] == 404
    assert http(EngineModel(), "POST", "/metrics/dump", {})[0] == 200
    assert http(EngineModel(routes={"/content/ioc/state": {"a": 1}}), "POST", "/content/ioc/state", {}) == (
        200,
        {"a": 1},
    )
    assert http(EngineModel(), "POST", "/_internal/x", {})[0] == 404
    scanner = ScannerModel()
    for body in (b"{", b"[]"):
        assert http(scanner, "POST", "/ondemand", body)[0] == 500
    assert http(scanner, "POST", "/vulnerability-detector/scan", {"agent_id": "1" * 4096})[0] == 413
    assert http(scanner, "POST", "/vulnerability-detector/scan", b"{")[1]["error"] == "internal_error"
    assert http(scanner, "POST", "/vulnerability-detector/scan", {})[1]["error"] == "missing_required_fields"
    assert http(scanner, "POST", "/vulnerability-detector/scan", {"agent_id": 1})[1]["error"] == "invalid_agent_id"
    assert http(ScannerModel("5.0.0-beta3"), "GET", "/")[0] == 404
    assert http(InventoryModel(), "POST", "/stateful", b"x")[0] == 400
    assert http(InventoryModel(), "GET", "/other")[0] == 404
    assert http(RemotedAdminModel(), "GET", "/")[1]["module"] == "remoted_module"


# --- places and conduct ---


def test_where_a_release_has_nothing() -> None:
    for name, group in (("com", "E"), ("keystore", "D"), ("wdb-http", "B"), ("ar", "G"), ("unknown", "A")):
        with pytest.raises(LookupError, match=f"group {group} has no {name}"):
            place_of(name, group)
    assert not conduct_of("task-manager", "G").one_shot
    assert conduct_of("task-manager", "F").one_shot
    assert conduct_of("authd", "G").threads == 128
    assert not conduct_of("keystore", "E").one_shot


async def test_routes_for_data_take_more_than_the_others() -> None:
    """Of 5.0's own server: 64 KiB for a question, and long names and values of headers nowhere."""

    async def status(name: str, head: bytes, body: bytes = b"") -> bytes:
        model = {"inventory-sync": InventoryModel(), "remoted-admin": RemotedAdminModel()}[name]
        async with open_fake_http(name, model) as daemon, await daemon.connect() as stream:
            await stream.send_all(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            return bytes(await stream.receive_some()).split(b" ")[1]

    long = b"x" * (64 * 1024 + 1)
    stateful = b"POST /stateful HTTP/1.1\r\nX-Wazuh-Agent-Id: 001\r\n"
    assert await status("inventory-sync", stateful, long) == b"200"
    assert await status("remoted-admin", b"POST /metrics HTTP/1.1\r\n", long) == b"413"
    assert await status("remoted-admin", b"GET / HTTP/1.1\r\n" + b"n" * 257 + b": 1\r\n") == b"431"
    assert await status("remoted-admin", b"GET / HTTP/1.1\r\nn: " + b"v" * 8193 + b"\r\n") == b"431"
    assert await status("remoted-admin", b"GET / HTTP/1.1\r\nn: " + b"v" * 8192 + b"\r\n") == b"200"
