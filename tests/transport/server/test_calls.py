"""Typed calls to the server's small sockets, over both kinds of server and each release that has them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.transport.server.kinds import Open
from wazuh_comms_trio.errors import (
    AnswerInvalid,
    DaemonRefusal,
    NotInRelease,
    PayloadTooLarge,
    WazuhError,
    WazuhException,
    WazuhInternalError,
)
from wazuh_comms_trio.testing import (
    Act,
    AgentTasksModel,
    Answer,
    ComponentModel,
    ControlModel,
    KeystoreModel,
    Oddities,
    TaskManagerModel,
    UpgradeModel,
    open_fake_daemon,
)
from wazuh_comms_trio.transport import (
    PendingTask,
    all_module_configurations,
    check_configuration,
    component_configuration,
    control,
    create_task,
    engine_status,
    get_pending_tasks,
    host_address,
    keystore_delete,
    keystore_get,
    keystore_put,
    module_query,
    reload_ruleset,
    task_status,
    upgrade_agents,
    upgrade_agents_custom,
    upgrade_result,
)

OLD = ["4.7.5", "4.9.0", "4.13.0", "4.14.2"]
NEW = ["5.0.0-beta1", "5.0.0-beta4", "5.0.0"]
NOW = 1_700_000_000


# --- tasks of 5.0.0 --------------------------------------------------------------------------------------------------


async def test_tasks(opener: Open, home: Path) -> None:
    model = AgentTasksModel(now=NOW)
    async with (
        open_fake_daemon("task-manager", model, home=home, release="5.0.0") as tasks,
        opener(home=home, release="5.0.0") as server,
    ):
        first = create_task("001", "agent_restart", create_time=NOW)
        task_id = await server("call", first)
        assert await server("call", first) == task_id, "the same call is the same task"
        other = await server("call", create_task("001", "agent_restart", create_time=NOW, source_id="doc-1"))
        assert other != task_id
        assert await server("call", get_pending_tasks("001")) == [
            PendingTask(task_id, "agent_restart", {}),
            PendingTask(other, "agent_restart", {}),
        ]
        assert await server("call", get_pending_tasks("001")) == [], "what was handed out is delivered"
        assert tasks.connections == 1, "5.0.0 keeps the connection"
        with pytest.raises(DaemonRefusal, match="Error 1014 - parsing_error: Invalid create_time") as caught:
            await server("call", create_task("001", "agent_restart", create_time=NOW + 61))
        assert caught.value.word == "parsing_error"
        assert isinstance(caught.value, WazuhError)


async def test_a_task_is_sent_again_and_pending_tasks_are_not(opener: Open, home: Path) -> None:
    model = AgentTasksModel(now=NOW)
    lost = [True]

    def answer(request: bytes) -> Answer:
        said = model(request)
        return Act.CLOSE if lost and lost.pop() else said

    async with (
        open_fake_daemon("task-manager", answer, home=home, release="5.0.0") as tasks,
        opener(home=home, release="5.0.0") as server,
    ):
        task_id = await server("call", create_task("001", "agent_reload", create_time=NOW))
        assert list(model.tasks) == [task_id]
        assert len(tasks.requests) == 2
        lost.append(True)
        with pytest.raises(WazuhError, match="Error 1014"):
            await server("call", get_pending_tasks("001"))
        assert len(tasks.requests) == 3, "asked once: what it answered is delivered"


@pytest.mark.parametrize("answer", [{"status": "ok"}, {"status": "ok", "tasks": [{}]}, [], "ok", {"tasks": 5}])
async def test_answers_of_another_form(opener: Open, home: Path, answer: Any) -> None:
    async with (
        open_fake_daemon("task-manager", lambda request: answer, home=home, release="5.0.0"),
        opener(home=home, release="5.0.0") as server,
    ):
        for call in (create_task("001", "agent_restart", create_time=NOW), get_pending_tasks("001")):
            with pytest.raises(AnswerInvalid):
                await server("call", call)


async def test_a_payload_above_the_frame(opener: Open, home: Path) -> None:
    async with (
        open_fake_daemon("task-manager", AgentTasksModel(), home=home, release="5.0.0") as tasks,
        opener(home=home, release="5.0.0") as server,
    ):
        with pytest.raises(PayloadTooLarge):
            await server("call", create_task("001", "active_response", {"x": "y" * 66000}, create_time=NOW))
        assert tasks.requests == []


@pytest.mark.parametrize("release", [*OLD, "5.0.0-beta4"])
async def test_no_tasks_before_5(opener: Open, home: Path, release: str) -> None:
    async with opener(home=home, release=release) as server:
        for call in (create_task("001", "agent_restart"), get_pending_tasks("001"), all_module_configurations()):
            with pytest.raises(NotInRelease):
                await server("call", call)


# --- upgrades --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", [*OLD, *NEW])
async def test_upgrades(opener: Open, home: Path, release: str) -> None:
    model = UpgradeModel(release)
    async with (
        open_fake_daemon("upgrade", model, home=home, release=release) as upgrade,
        opener(home=home, release=release) as server,
    ):
        rows = await server("call", upgrade_agents(["001", "002"], version="v4.14.2", force_upgrade=True))
        assert [(row["agent"], row["error"], row["task_id"]) for row in rows] == [(1, 0, 1), (2, 0, 2)]
        (row,) = await server("call", upgrade_agents_custom("001", "/tmp/a.wpk", installer="upgrade.sh"))
        assert row["message"] == "Upgrade procedure is already running"
        assert [row["error"] for row in await server("call", upgrade_result(["001", "009"]))] == [0, 7]
        first = json.loads(upgrade.requests[0])
        stamp = first["parameters"].pop("request_time", None)
        assert (stamp is not None) is (release == "5.0.0")
        assert first["parameters"] == {"agents": [1, 2], "version": "v4.14.2", "force_upgrade": True}
        typed = upgrade_agents("003", package_type="deb")
        if release in ("4.7.5", "4.9.0"):
            with pytest.raises(NotInRelease):
                await server("call", typed)
        else:
            await server("call", typed)


@pytest.mark.parametrize("release", [*OLD, "5.0.0-beta4"])
async def test_the_task_manager_of_4(opener: Open, home: Path, release: str) -> None:
    async with (
        open_fake_daemon("task-manager", TaskManagerModel({1: {"status": "Updated"}}), home=home, release=release),
        opener(home=home, release=release) as server,
    ):
        rows = await server("call", task_status(["001", "002"]))
        assert [(row["agent"], row["error"]) for row in rows] == [(1, 0), (2, 3)]
    async with opener(home=home, release="5.0.0") as server:
        with pytest.raises(NotInRelease):
            await server("call", task_status("001"))


# --- keystore, control -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", NEW)
async def test_the_keystore(opener: Open, home: Path, release: str) -> None:
    model = KeystoreModel()
    async with (
        open_fake_daemon("keystore", model, home=home, release=release) as keystore,
        opener(home=home, release=release) as server,
    ):
        await server("call", keystore_put("indexer", "password", "a|b|\n ü"))
        assert await server("call", keystore_get("indexer", "password")) == "a|b|\n ü"
        await server("call", keystore_delete("indexer", "password"))
        assert await server("call", keystore_get("indexer", "password")) == "wazuh-manager"
        assert keystore.connections == 1
        keystore.set_answer([{"status": "error", "message": "no such family"}, {"error": 0}])
        with pytest.raises(DaemonRefusal, match="no such family"):
            await server("call", keystore_get("x", "y"))
        with pytest.raises(AnswerInvalid):
            await server("call", keystore_get("x", "y"))


@pytest.mark.parametrize("release", OLD)
async def test_the_control_socket_of_4(opener: Open, home: Path, release: str) -> None:
    model = ControlModel(release)
    async with (
        open_fake_daemon("control", model, home=home, release=release) as socket,
        opener(home=home, release=release) as server,
    ):
        assert await server("call", host_address()) == "192.0.2.1"
        model.address = None
        with pytest.raises(WazuhError, match="couldn't be found out"):
            await server("call", host_address())
        asked = len(socket.requests)
        for call in (control("restart"), control("reload"), keystore_get("a", "b")):
            with pytest.raises(NotInRelease):
                await server("call", call)
        assert len(socket.requests) == asked, "4.x would answer a restart with an address"
    async with opener(home=home, release="5.0.0") as server:
        with pytest.raises(NotInRelease):
            await server("call", host_address())


async def test_an_unframed_answer_in_pieces(opener: Open, home: Path) -> None:
    drops = Oddities(piece_bytes=1)
    async with (
        open_fake_daemon("control", ControlModel(), home=home, release="5.0.0", oddities=drops),
        opener(home=home, release="5.0.0") as server,
    ):
        assert await server("call", control("reload")) is None


# --- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("daemon", "release", "request_"),
    [
        ("monitor", "4.7.5", b"getconfig global"),
        ("monitor", "5.0.0", b"getconfig global"),
        ("wmodules", "5.0.0-beta4", b"getconfig global"),
        ("authd", "4.14.2", b"getconfig global"),
        ("com", "4.14.2", b"getconfig global"),
        ("analysis", "4.14.2", None),
        ("remoted", "5.0.0", None),
        ("wazuh-db", "5.0.0", None),
        ("wazuh-manager-db", "4.7.5", None),
    ],
)
async def test_configuration_as_text_or_json(
    opener: Open, home: Path, daemon: str, release: str, request_: bytes | None
) -> None:
    model = ComponentModel(configurations={"global": {"a": 1}}, takes="text" if request_ else "json")
    name = daemon.replace("wazuh-manager-db", "wazuh-db")
    async with (
        open_fake_daemon(name, model, home=home, release=release) as fake,
        opener(home=home, release=release) as server,
    ):
        assert await server("call", component_configuration(daemon, "global")) == {"a": 1}
        if request_ is not None:
            assert fake.requests == [request_]
        else:
            assert json.loads(fake.requests[0])["parameters"] == {"section": "global"}
        with pytest.raises(WazuhException):
            await server("call", component_configuration(daemon, "other"))


async def test_what_tells_no_configuration(opener: Open, home: Path) -> None:
    async with opener(home=home, release="5.0.0") as server:
        for daemon in ("com", "analysis", "engine", "control"):
            with pytest.raises(NotInRelease):
                await server("call", component_configuration(daemon, "global"))


async def test_the_rest(opener: Open, home: Path) -> None:
    async with (
        open_fake_daemon("wmodules", ["ok {}", "err no module", 'ok {"a":{}}'], home=home, release="5.0.0") as modules,
        opener(home=home, release="5.0.0") as server,
    ):
        assert await server("call", module_query("agent-upgrade x")) == {}
        with pytest.raises(WazuhError, match="no module"):
            await server("call", module_query("nothing"))
        assert await server("call", all_module_configurations()) == {"a": {}}
        assert modules.requests == [b"query agent-upgrade x", b"query nothing", b"getallconfig"]
    log = [{"error": 0, "message": "a\nb"}, {"error": 1, "message": "wrong"}]
    async with (
        open_fake_daemon("com", log, home=home, release="4.14.2"),
        open_fake_daemon("analysis", [{"error": 0, "data": ["w"]}], home=home, release="4.14.2") as analysis,
        opener(home=home, release="4.14.2") as server,
    ):
        assert await server("call", check_configuration()) == ["a", "b"]
        with pytest.raises(WazuhException, match="Error 1 - wrong"):
            await server("call", check_configuration())
        assert await server("call", reload_ruleset()) == ["w"]
        assert json.loads(analysis.requests[0])["command"] == "reload-ruleset"
        with pytest.raises(NotInRelease):
            await server("call", engine_status())
    async with opener(home=home, release="4.12.0") as server:
        with pytest.raises(NotInRelease):
            await server("call", reload_ruleset())


# --- what no call can be made of -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: create_task("1", "agent_restart"),
        lambda: create_task("001", "other"),  # type: ignore[arg-type]
        lambda: create_task("001", "agent_restart", create_time=True),
        lambda: create_task("001", "agent_restart", create_time="now"),  # type: ignore[arg-type]
        lambda: create_task("001", "agent_restart", source_id="a\nb"),
        lambda: create_task("001", "agent_restart", {"x": float("nan")}),
        lambda: get_pending_tasks("all"),
        lambda: upgrade_agents([]),
        lambda: upgrade_agents([f"{n:03}" for n in range(1, 502)]),
        lambda: upgrade_agents(None),  # type: ignore[arg-type]
        lambda: upgrade_agents("001", package_type="exe"),  # type: ignore[arg-type]
        lambda: upgrade_agents("001", force_upgrade="false"),  # type: ignore[arg-type]
        lambda: upgrade_agents("001", use_http=1),  # type: ignore[arg-type]
        lambda: create_task("001", ["agent_restart"]),  # type: ignore[arg-type]
        lambda: upgrade_agents("001", version="a\0b"),
        lambda: upgrade_agents_custom("001", "relative.wpk"),
        lambda: keystore_get("a|b", "c"),
        lambda: keystore_get("a", "c\nd"),
        lambda: keystore_put("a", "b", "\0"),
        lambda: keystore_put("a", "b", "\ud800"),
        lambda: control("halt"),
        lambda: component_configuration("monitor", "a b"),
        lambda: component_configuration("monitor", ""),
        lambda: module_query("a\nb"),
    ],
)
def test_what_no_call_can_be_made_of(make: Callable[[], Any]) -> None:
    with pytest.raises(WazuhInternalError, match="Error 1012"):
        make()
