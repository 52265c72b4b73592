"""One order, carried out as each release does: over both kinds of server, against that release's fakes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.transport.server.kinds import Open
from wazuh_comms_trio.errors import NotInRelease, PeerClosed, WazuhError, WazuhException, WazuhInternalError
from wazuh_comms_trio.testing import (
    Act,
    AgentTasksModel,
    Answer,
    ArMessage,
    ControlModel,
    ExecMessage,
    RemotedModel5,
    UpgradeModel,
    WazuhDBHTTPModel,
    WazuhDBModel,
    WazuhDBModel5,
    open_fake_daemon,
    open_fake_http,
    open_fake_queue,
)
from wazuh_comms_trio.transport import release_of
from wazuh_comms_trio.wire.agent_command import RESTART_AGENTS_JSON

WITH_AR = ["4.7.5", "4.9.0", "4.14.1", "4.14.2", "5.0.0-alpha0"]
BY_WORD = ["5.0.0-beta1", "5.0.0-beta2", "5.0.0-beta4"]
FINAL = "5.0.0"
EVERY = [*WITH_AR, *BY_WORD, FINAL]


@asynccontextmanager
async def final_server(home: Path, model: AgentTasksModel, versions: dict[int, str]) -> AsyncIterator[None]:
    agents = {number: {"version": version} for number, version in versions.items()}
    database = WazuhDBModel5(page_rows=2)
    for number in versions:
        database.add_agent(number, f"a{number}")
    database.add_agent(90, "off", connection_status="disconnected")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(open_fake_daemon("task-manager", model, home=home, release=FINAL))
        await stack.enter_async_context(open_fake_daemon("wazuh-db", database, home=home, release=FINAL))
        await stack.enter_async_context(open_fake_http("wdb-http", WazuhDBHTTPModel(agents=agents), home=home))
        yield


@pytest.mark.parametrize("release", WITH_AR)
async def test_agents_are_restarted_by_the_ar_queue(opener: Open, home: Path, release: str) -> None:
    async with open_fake_queue("ar", home=home, release=release) as ar, opener(home=home, release=release) as server:
        report = await server("restart_agents", ["001", "002"])
        assert (report.via, report.done, report.complete) == ("ar", ("001", "002"), True)
        everybody = await server("restart_agents", "all")
        assert everybody.done == ("all",)
        await server("restart_agents", "003", legacy=True)
        await ar.wait_datagrams(4)
        assert [one.agent_id for one in ar.messages if isinstance(one, ArMessage)] == ["001", "002", "(null)", "003"]
        texts = [one.message for one in ar.messages if isinstance(one, ArMessage)]
        assert all(text.startswith(RESTART_AGENTS_JSON) for text in texts[:3])
        assert texts[3].startswith("restart-ossec0")
        assert ar.dropped == []


@pytest.mark.parametrize("release", BY_WORD)
async def test_agents_are_restarted_by_a_word_to_remoted(opener: Open, home: Path, release: str) -> None:
    model = RemotedModel5(release=release, sessions={"001", "003"}, states={("002", "agent"): {}})
    database = WazuhDBModel5(page_rows=2)
    for number in (1, 2, 3, 4):
        database.add_agent(number, f"a{number}")
    async with (
        open_fake_daemon("remoted", model, home=home, release=release) as remoted,
        open_fake_daemon("wazuh-db", database, home=home, release=release),
        opener(home=home, release=release) as server,
    ):
        report = await server("restart_agents", ["001", "002", "007", "003"])
        assert (report.via, report.done) == ("remoted", ("001", "003"))
        assert [(one.agent_id, one.reason[:20]) for one in report.not_done] == [
            ("002", "Cannot send request"),
            ("007", "closed without an an"),
        ]
        assert (await server("reload_agents", "001")).complete
        assert model.orders == [("001", "restart"), ("003", "restart"), ("001", "reload")]
        everybody = await server("restart_agents", "all")
        assert everybody.done == ("001", "003")
        assert [one.agent_id for one in everybody.not_done] == ["002", "004"]
        assert remoted.requests[-1] == b"004 control restart"


async def test_agents_are_restarted_by_tasks(opener: Open, home: Path) -> None:

    model = AgentTasksModel()
    versions = {1: "Wazuh v5.0.0", 2: "Wazuh v4.14.2", 3: "v5.0.0"}
    async with final_server(home, model, versions), opener(home=home, release=FINAL) as server:
        report = await server("restart_agents", ["001", "002"])
        assert (report.via, report.done, report.not_done) == ("task-manager", ("001", "002"), ())
        assert set(report.task_ids) == {"001", "002"}
        assert report.warnings == ("agent 002 is older than 5.0: the server takes such a task and drops it",)
        reloaded = await server("reload_agents", "all")
        assert reloaded.done == ("001", "002", "003")
        kinds = [(task["agent_id"], task["task_type"]) for task in model.tasks.values()]
        assert kinds[:2] == [("001", "agent_restart"), ("002", "agent_restart")]
        assert {kind for _, kind in kinds[2:]} == {"agent_reload"}


async def test_versions_that_cant_be_found_out(opener: Open, home: Path) -> None:

    model = AgentTasksModel()
    async with (
        open_fake_daemon("task-manager", model, home=home, release=FINAL),
        opener(home=home, release=FINAL) as server,
    ):
        report = await server("restart_agents", "001")
        assert report.done == ("001",)
        assert len(report.warnings) == 1
        assert "unknown" in report.warnings[0]


async def test_nobody_is_connected(opener: Open, home: Path) -> None:
    async with (
        open_fake_daemon("wazuh-db", WazuhDBModel5(), home=home, release=FINAL),
        opener(home=home, release=FINAL) as server,
    ):
        report = await server("restart_agents", "all")
        assert (report.done, report.complete) == ((), True)


@pytest.mark.parametrize("release", EVERY)
async def test_what_a_release_has_no_more_or_not_yet(opener: Open, home: Path, release: str) -> None:
    group = release_of(release).group
    async with opener(home=home, release=release) as server:
        refused = []
        if group in "ABCD" or group == "alpha":
            refused.append("reload_agents")
        if group in "EFG":
            refused.append("restart_syscheck")
        if group == "G":
            refused.append("reconnect_agents")
        for order in refused:
            with pytest.raises(NotInRelease, match=f"Error 1012 .* is not in {release}"):
                await server(order, ["001"])


@pytest.mark.parametrize("release", [*WITH_AR, *BY_WORD])
async def test_an_active_response_by_the_ar_queue(opener: Open, home: Path, release: str) -> None:
    async with open_fake_queue("ar", home=home, release=release) as ar, opener(home=home, release=release) as server:
        report = await server("active_response", ["001"], "firewall-drop", ["-", "10.0.0.7"], alert={"id": 5})
        assert (report.via, report.done) == ("ar", ("001",))
        await ar.wait_datagrams(1)
        (message,) = ar.messages
        assert isinstance(message, ArMessage)
        sent = json.loads(message.message)
        assert (sent["command"], sent["parameters"]) == (
            "firewall-drop",
            {"extra_args": ["-", "10.0.0.7"], "alert": {"id": 5}},
        )
        with pytest.raises(WazuhInternalError, match="takes a command, not a document"):
            await server("active_response", ["001"], document={"a": 1})
        assert (await server("reconnect_agents", "001")).complete
        await ar.wait_datagrams(2)
        assert ar.dropped == []


async def test_an_active_response_by_a_task(opener: Open, home: Path) -> None:
    model = AgentTasksModel(now=1_700_000_000.0)
    document = {"wazuh": {"active_response": {"name": "x"}}}
    moment = 1_700_000_000
    async with final_server(home, model, {1: "v5.0.0"}), opener(home=home, release=FINAL) as server:
        for _ in range(2):
            report = await server("active_response", "001", "firewall-drop", document=document, create_time=moment)
            assert report.complete
        assert [task["payload"] for task in model.tasks.values()] == [document], "the same four are the same task"
        with pytest.raises(WazuhInternalError, match="give it as document"):
            await server("active_response", "001", "firewall-drop")


async def test_the_server_itself_runs_a_command(opener: Open, home: Path) -> None:
    async with (
        open_fake_queue("execq", home=home, release="4.14.2") as execq,
        opener(home=home, release="4.14.2") as server,
    ):
        report = await server("active_response", "000", "firewall-drop")
        assert (report.via, report.done) == ("execq", ("000",))
        await execq.wait_datagrams(1)
        assert execq.dropped == []
        for wrong in (["000", "001"], "000"):
            with pytest.raises(WazuhInternalError, match="000 is the server itself"):
                await server("restart_agents", wrong)
    async with opener(home=home, release="5.0.0-beta1") as server:
        with pytest.raises(WazuhInternalError, match="000 is the server itself"):
            await server("active_response", "000", "firewall-drop")


# --- the server itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", WITH_AR)
async def test_the_server_is_restarted_by_execd(opener: Open, home: Path, release: str) -> None:
    async with (
        open_fake_queue("execq", home=home, release=release) as execq,
        opener(home=home, release=release) as server,
    ):
        assert (await server("restart")).via == "execq"
        await execq.wait_datagrams(1)
        (message,) = execq.messages
        assert isinstance(message, ExecMessage)
        assert (message.command, message.parameters) == ("restart-wazuh", {"extra_args": [], "alert": {}})
    async with opener(home=home, release=release) as server:
        with pytest.raises(WazuhInternalError, match="Error 1010"):
            await server("restart")


@pytest.mark.parametrize("release", [*BY_WORD, FINAL])
async def test_the_server_is_restarted_by_its_control_socket(opener: Open, home: Path, release: str) -> None:
    model = ControlModel(release)
    async with (
        open_fake_daemon("control", model, home=home, release=release) as control,
        opener(home=home, release=release) as server,
    ):
        assert (await server("restart")).via == "control"
        assert (await server("reload")).done == ("000",)
        assert model.orders == ["restart", "reload"]
        assert control.requests == [b"restart", b"reload"], "no header, no newline"


async def test_what_the_control_socket_may_say(opener: Open, home: Path) -> None:
    for answer, expected in (
        ("err busy", (WazuhError, "Error 1014 - busy")),
        (b"Err\0", (WazuhError, "Error 1014")),
        ("192.0.2.1", (WazuhError, "neither ok nor err: '192.0.2.1'")),
    ):
        kind, text = expected
        async with (
            open_fake_daemon("control", lambda request, said=answer: said, home=home, release=FINAL),
            opener(home=home, release=FINAL) as server,
        ):
            with pytest.raises(kind, match=text):
                await server("restart")
    async with (
        open_fake_daemon("control", ControlModel(stranger=True), home=home, release=FINAL) as control,
        opener(home=home, release=FINAL) as server,
    ):
        with pytest.raises(PeerClosed):
            await server("restart")
        assert len(control.requests) == 1, "a restart isn't sent twice"
        await control.crash()
        with pytest.raises(WazuhInternalError, match="Error 1902"):
            await server("restart")
    async with opener(home=home, release=FINAL) as server:
        with pytest.raises(WazuhInternalError, match="Error 1901"):
            await server("reload")


async def test_a_reload_of_the_server_in_4(opener: Open, home: Path) -> None:
    async with (
        open_fake_daemon("com", ["ok", "err no"], home=home, release="4.14.2") as com,
        opener(home=home, release="4.14.2") as server,
    ):
        assert (await server("reload")).via == "com"
        with pytest.raises(WazuhException, match="Error 1014 - no"):
            await server("reload")
        assert com.requests == [b"reload", b"reload"]
    for release in ("4.12.0", "4.13.1"):
        async with opener(home=home, release=release) as server:
            with pytest.raises(NotInRelease):
                await server("reload")


@pytest.mark.parametrize("release", EVERY)
async def test_an_agents_groups(opener: Open, home: Path, release: str) -> None:
    database = WazuhDBModel()
    database.add_agent(1, "a", groups=["default", "web"])
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(open_fake_daemon("wazuh-db", database, home=home, release=release))
        if release_of(release).at_least("C"):
            model = WazuhDBHTTPModel(release, groups={1: ["default", "web"]})
            await stack.enter_async_context(open_fake_http("wdb-http", model, home=home, release=release))
        server = await stack.enter_async_context(opener(home=home, release=release))
        assert await server("agent_groups", "001") == ["default", "web"]
        assert await server("agent_groups", "009") == []


@pytest.mark.parametrize("release", EVERY)
async def test_any_number_of_agents_is_upgraded(opener: Open, home: Path, release: str) -> None:
    agents = [f"{number:03}" for number in range(1, 1102)]
    async with (
        open_fake_daemon("upgrade", UpgradeModel(release), home=home, release=release) as upgrade,
        opener(home=home, release=release) as server,
    ):
        rows = await server("upgrade_agents", agents, version="v4.14.2")
        assert [row["agent"] for row in rows] == list(range(1, 1102))
        asked = [json.loads(request)["parameters"] for request in upgrade.requests]
        assert [len(one["agents"]) for one in asked] == [500, 500, 101]
        (row,) = await server("upgrade_agents", "2000", file_path="/tmp/a.wpk", installer="i.sh")
        assert row["error"] == 0
        for wrong in ({"installer": "x"}, {"file_path": "/a", "version": "v1"}):
            with pytest.raises(WazuhInternalError, match="Error 1012"):
                await server("upgrade_agents", "001", **wrong)


async def test_a_daemon_that_is_gone_is_asked_once(opener: Open, home: Path) -> None:
    async with opener(home=home, release="5.0.0-beta3") as server:
        report = await server("restart_agents", ["001", "002"])
        assert [one.agent_id for one in report.not_done] == ["001", "002"]
        assert "No such file" in report.not_done[0].reason


async def test_an_agent_that_is_silent_holds_nobody_up(opener: Open, home: Path) -> None:
    def answer(request: bytes) -> Answer:
        return Act.SILENCE if request.startswith(b"001") else "ok "

    limit = {"timeout": 0.05} if "plain" in repr(opener) else {"call_timeout": 0.05}
    async with (
        open_fake_daemon("remoted", answer, home=home, release="5.0.0-beta3"),
        opener(home=home, release="5.0.0-beta3", **limit) as server,
    ):
        report = await server("restart_agents", ["001", "002"])
        assert report.done == ("002",)
        assert [one.agent_id for one in report.not_done] == ["001"]


@pytest.mark.parametrize("release", EVERY)
async def test_groups_are_assigned_alike_everywhere(opener: Open, home: Path, release: str) -> None:
    database = WazuhDBModel5() if release_of(release).at_least("E") else WazuhDBModel()
    for number in (1, 2):
        database.add_agent(number, f"a{number}")
    async with (
        open_fake_daemon("wazuh-db", database, home=home, release=release),
        opener(home=home, release=release) as server,
    ):
        await server("assign_groups", ["001", "002"], ["web", "db"])
        assert database.groups_of(1) == database.groups_of(2) == ["db", "default", "web"]
        await server("assign_groups", "002", ["web"], mode="remove", sync_status="synced")
        assert database.groups_of(2) == ["db", "default"]
        with pytest.raises(WazuhInternalError, match="Error 1012"):
            await server("assign_groups", "001", ["a b"])


async def test_a_full_queue_is_in_the_report(opener: Open, home: Path) -> None:
    named: dict[str, Any] = {"home": home, "release": "4.14.2"}
    async with open_fake_queue("ar", home=home, release="4.14.2", reading=False):
        plain = "plain" in repr(opener)
        limit = {"timeout": 0.05} if plain else {"call_timeout": 0.05}
        async with opener(**named, **limit) as server:
            report = await server("restart_agents", [f"{number:03}" for number in range(1, 41)])
    assert 0 < len(report.done) < 40
    assert [one.agent_id for one in report.not_done] == [f"{n:03}" for n in range(len(report.done) + 1, 41)]
    assert not report.complete


async def test_the_release_is_found_out(opener: Open, home: Path) -> None:
    async with open_fake_http("wdb-http", WazuhDBHTTPModel(), home=home), opener(home=home) as server:
        assert server.server.release.group == "G"
        assert "5.0.0" in repr(server.server)
