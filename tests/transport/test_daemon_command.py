"""``wazuh-comms daemon``: as a function with its output captured, and once as a program."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from wazuh_comms_trio.cli.commands.daemon import add_parser, run
from wazuh_comms_trio.cli.parser import make_tree
from wazuh_comms_trio.testing import (
    AgentTasksModel,
    Answer,
    AuthdModel,
    KeystoreModel,
    Oddities,
    RemotedModel,
    TaskManagerModel,
    WazuhDBModel,
    WazuhDBModel5,
    open_fake_daemon,
)


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Path]:
    model = WazuhDBModel(page_rows=3)
    for number in range(1, 9):
        model.add_agent(number, f"agent-{number}")
    model.packages[1] = [{"name": f"package-{number}"} for number in range(5)]
    remoted = RemotedModel(stats={number: {"n": number} for number in range(1, 9)}, page_rows=3)
    async with (
        open_fake_daemon("wazuh-db", model, home=tmp_path),
        open_fake_daemon("authd", AuthdModel(), home=tmp_path),
        open_fake_daemon("remoted", remoted, home=tmp_path),
        open_fake_daemon("task-manager", TaskManagerModel({1: {"status": "Updated"}}), home=tmp_path),
    ):
        yield tmp_path


class Ask:
    """Runs the command in a thread, as the daemons are tasks of this one."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    async def __call__(self, home: Path, *words: str) -> tuple[int, str, str]:
        tree = make_tree("wazuh-comms", "The tool.")
        add_parser(tree)
        arguments = tree.parser.parse_args(["daemon", "--home", str(home), *words])
        assert arguments.work is run
        status = await trio.to_thread.run_sync(run, arguments)
        captured = self._capsys.readouterr()
        return status, captured.out, captured.err


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    return Ask(capsys)


async def test_text(home: Path, ask: Ask) -> None:
    status, out, err = await ask(home, "wazuh-db", "global get-agent-info 3")
    assert (status, err) == (0, "")
    assert json.loads(out)[0]["name"] == "agent-3"
    assert '\n    "name": "agent-3"' in out, "indented, for people"
    assert await ask(home, "wazuh-db", "global insert-agent-group new") == (0, "ok\n", "")


async def test_json(home: Path, ask: Ask) -> None:
    request = (
        '{"version": 1, "origin": {"name": "node01", "module": "api"}, "command": "upgrade_result",'
        ' "parameters": {"agents": [1]}}'
    )
    status, out, _ = await ask(home, "task-manager", request)
    assert status == 0
    assert json.loads(out) == [{"error": 0, "message": "Success", "agent": 1, "status": "Updated"}]
    assert "Error 1 - " in (await ask(home, "task-manager", '{"command": "status"}'))[2], "no real one knows it"


async def test_one_json_document(home: Path, ask: Ask) -> None:
    status, out, _ = await ask(home, "--json", "wazuh-db", "global find-group default")
    assert (status, out) == (0, '[{"id": 1}]\n')
    assert (await ask(home, "--json", "wazuh-db", "global insert-agent-group x"))[1] == '"ok"\n'


@pytest.mark.parametrize(
    ("request_text", "count"),
    [
        ("global get-all-agents last_id 0", 8),
        ("global get-all-agents last_id {last_id}", 8),
        ("global get-all-agents last_id 5", 3),
        ("global get-agents-by-connection-status 0 active", 8),
        ("global get-group-agents default last_id 0", 8),
        ("agent 001 package get", 5),
    ],
)
async def test_due_answers_are_followed(home: Path, ask: Ask, request_text: str, count: int) -> None:
    status, out, _ = await ask(home, "--json", "wazuh-db", request_text)
    assert status == 0
    assert len(json.loads(out)) == count


async def test_due_answers_in_json_are_followed(home: Path, ask: Ask) -> None:
    request = '{"version": 1, "command": "getagentsstats", "parameters": {"agents": "all", "last_id": 0}}'
    _, out, _ = await ask(home, "--json", "remoted", request)
    assert [agent["id"] for agent in json.loads(out)["agents"]] == list(range(1, 9))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("wazuh-db", "nobody there"), "Invalid DB query actor: nobody"),
        (("wazuh-db", "global sql SELEC"), "Cannot execute SQL query"),
        (("authd", '{"function": "remove", "arguments": {"id": "009"}}'), "Error 9011 - Agent ID not found"),
        (("authd", '{"function": "remove", "arguments": {"id": 9}}'), "arguments.id must be string"),
        (("remoted", "077 agent getstate"), "the peer closed the connection"),
        (("com", "getconfig x"), "No such file or directory"),
        (("wazuh-db", '{"command": '), "begins like JSON and isn't"),
        (("wazuh-db", " "), "the request is empty"),
        (("wazuh-db", "x" * 65537), "at most 65536"),
    ],
)
async def test_errors(home: Path, ask: Ask, words: tuple[str, ...], message: str) -> None:
    status, out, err = await ask(home, *words)
    assert (status, out) == (1, "")
    assert err.startswith("wazuh-comms: Error ")
    assert message in err
    assert err.count("\n") == 1


async def test_refused(tmp_path: Path, ask: Ask) -> None:
    async with open_fake_daemon("authd", [], home=tmp_path) as daemon:
        await daemon.crash()
        status, _, err = await ask(tmp_path, "authd", "{}")
    assert status == 1
    assert "Error 1121" in err


async def test_time_runs_out(tmp_path: Path, ask: Ask) -> None:
    async with open_fake_daemon("wazuh-db", [], home=tmp_path, oddities=Oddities(silent=True)):
        status, _, err = await ask(tmp_path, "--timeout", "0.05", "wazuh-db", "x")
    assert (status, err) == (1, "wazuh-comms: wazuh-db didn't answer within 0.05 s\n")


async def test_time_runs_out_over_many_small_answers(tmp_path: Path, ask: Ask) -> None:
    page = iter(range(1, 1_000_000))

    async def endless(request: bytes) -> Answer:
        await trio.sleep(0.01)
        return f'due [{{"id":{next(page)}}}]'

    async with open_fake_daemon("wazuh-db", endless, home=tmp_path):
        status, _, err = await ask(tmp_path, "--timeout", "0.1", "wazuh-db", "global get-all-agents last_id 0")
    assert status == 1
    assert "within 0.1 s" in err


async def test_pages_that_do_not_move_on(tmp_path: Path, ask: Ask) -> None:
    async with open_fake_daemon("wazuh-db", lambda request: 'due [{"id":5}]', home=tmp_path):
        status, _, err = await ask(tmp_path, "wazuh-db", "global get-all-agents last_id 0")
    assert status == 1
    assert "ends where it began" in err


async def test_plain_text_answers(tmp_path: Path, ask: Ask) -> None:
    async with open_fake_daemon("analysis", ["pong\0"], home=tmp_path):
        assert await ask(tmp_path, "analysis", "ping") == (0, "pong\n", "")


async def test_a_terminal_is_not_given_orders(tmp_path: Path, ask: Ask) -> None:
    async with open_fake_daemon("wazuh-db", ["ok \x1b[2Jhello", "err \x1b[2Jno"], home=tmp_path):
        assert await ask(tmp_path, "wazuh-db", "x") == (0, "\\x1b[2Jhello\n", "")
        assert "\x1b" not in (await ask(tmp_path, "wazuh-db", "x"))[2]


async def test_from_standard_input(home: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("global find-group default\n"))
    assert (await ask(home, "--json", "wazuh-db", "-"))[1] == '[{"id": 1}]\n'


async def test_oddities_of_answers(home: Path, ask: Ask, tmp_path: Path) -> None:
    oddities = Oddities(trailing_nul=True, piece_bytes=1)
    async with open_fake_daemon("analysis", ['{"error":0,"message":"ok"}'], home=tmp_path, oddities=oddities):
        assert await ask(tmp_path, "analysis", '{"command": "x"}') == (0, "ok\n", "")


@pytest.mark.parametrize(
    "words",
    [
        ["daemon"],
        ["daemon", "wazuh-db"],
        ["daemon", "nobody", "x"],
        ["daemon", "--timeout", "0", "wazuh-db", "x"],
        ["daemon", "--timeout", "nan", "wazuh-db", "x"],
        ["daemon", "--timeout", "soon", "wazuh-db", "x"],
    ],
)
def test_misuse(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    tree = make_tree("wazuh-comms", "The tool.")
    add_parser(tree)
    with pytest.raises(SystemExit) as caught:
        tree.parser.parse_args(words)
    assert caught.value.code == 2
    assert "usage: wazuh-comms" in capsys.readouterr().err


async def test_as_a_program_without_a_configuration(home: Path) -> None:
    def start(*words: str) -> Any:
        command = [sys.executable, "-X", "importtime", "-m", "wazuh_comms_trio.cli.tool", "daemon", "--home", str(home)]
        return subprocess.run([*command, *words], capture_output=True, text=True, check=False, env={})

    done = await trio.to_thread.run_sync(start, "wazuh-db", "global find-group default")
    assert (done.returncode, json.loads(done.stdout)) == (0, [{"id": 1}])
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert not imported & {"trio", "msgspec", "quart", "hypercorn", "apsw", "yaml", "jwt"}
    done = await trio.to_thread.run_sync(start, "nobody", "x")
    assert done.returncode == 2


async def test_a_server_of_5(tmp_path: Path, ask: Ask) -> None:
    model = WazuhDBModel5(page_rows=2)
    for number in range(1, 6):
        model.add_agent(number, f"agent-{number}")
    tasks = AgentTasksModel()
    async with (
        open_fake_daemon("wazuh-db", model, home=tmp_path, release="5.0.0"),
        open_fake_daemon("task-manager", tasks, home=tmp_path, release="5.0.0"),
        open_fake_daemon("keystore", KeystoreModel(), home=tmp_path, release="5.0.0"),
    ):
        final = ("--release", "5.0.0")
        status, out, _ = await ask(tmp_path, *final, "--json", "wazuh-manager-db", "global get-all-agents last_id 0")
        assert status == 0
        assert len(json.loads(out)) == 5
        pending = '{"action": "get_pending_tasks", "agent_id": "001"}'
        status, out, _ = await ask(tmp_path, *final, "--json", "task-manager", pending)
        assert (status, json.loads(out)) == (0, {"status": "ok", "tasks": []})
        status, out, _ = await ask(tmp_path, *final, "keystore", "GET|indexer|password")
        assert status == 0
        assert '"value": "wazuh-manager"' in out
        status, _, err = await ask(tmp_path, *final, "task-manager", '{"action": "?"}')
        assert status == 1
        assert "parsing_error" in err
        status, _, err = await ask(tmp_path, *final, "com", "getconfig internal")
        assert status == 1
        assert "5.0.0 has no 'com'" in err
        status, _, err = await ask(tmp_path, *final, "engine", "x")
        assert status == 1
        assert "doesn't speak in frames" in err
        status, _, err = await ask(tmp_path, "--release", "auto", "wazuh-db", "global get-agent-info 1")
        assert (status, err) == (0, "")


async def test_a_release_that_is_none(tmp_path: Path, ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        await ask(tmp_path, "--release", "5.0", "wazuh-db", "x")
    assert "several releases that differ" in capsys.readouterr().err
