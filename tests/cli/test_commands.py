"""``wazuh-comms commands``."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio

from tests.cli.conftest import Outcome, Tool
from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.backends.interfaces import Backends, Command, CommandReport, CommandResult
from wazuh_comms_trio.cli.commands import send as sending
from wazuh_comms_trio.cli.tool import main
from wazuh_comms_trio.config.models import Config

ONE = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1"
TWO = "0194857f-39b5-7bfb-a7bc-c5c6835f03d2"

Audit = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def agents(tool: Tool) -> None:
    tool("agents", "add", "one", "--uuid", ONE, "--group", "web")
    tool("agents", "add", "two", "--uuid", TWO)


def deliver(config: Config) -> list[Command]:
    """What a daemon does when the agents poll."""

    async def run() -> list[Command]:
        async with open_backends(config) as backends:
            commands = list(await backends.commands.claim([ONE, TWO]))
            await backends.commands.mark_sent([command.document_id for command in commands])
            return commands

    return trio.run(run)


@pytest.mark.parametrize("timeout", ["50", "50s"])
@pytest.mark.usefixtures("agents")
def test_send_to_an_agent(timeout: str, tool: Tool, config: Config, audit: Audit) -> None:
    words = ("--version", "v1", "--arg", "n=5", "--arg", "text=five words", "--arg", 'list=["a"]', "--timeout", timeout)
    sent = tool("--json", "commands", "send", "--agent", ONE.upper(), "restart", *words)
    assert sent.status == 0
    document = sent.document
    assert document["status"] == "pending"
    assert document["target"] == {"type": "agent", "id": ONE}
    assert document["action"] == {
        "name": "restart",
        "version": "v1",
        "args": {"n": 5, "text": "five words", "list": ["a"]},
    }
    assert document["timeout"] == 50
    assert document["source"] == "Users/Services"
    (command,) = deliver(config)
    assert command.document_id == document["document_id"]
    assert command.action.args == {"n": 5, "text": "five words", "list": ["a"]}
    entry = audit()[-1]
    assert (entry["action"], entry["object"], entry["to"]) == ("commands send", command.document_id, f"agent {ONE}")


@pytest.mark.usefixtures("agents")
def test_send_prints_the_id(tool: Tool) -> None:
    sent = tool("commands", "send", "--agent", ONE, "restart")
    shown = tool("commands", "show", sent.out.strip(), "--json").document
    assert shown["document_id"] == sent.out.strip()
    assert type(shown["timeout"]) is int  # as it was sent, whatever the store made of it


@pytest.mark.usefixtures("agents")
def test_send_to_a_group_and_to_all(tool: Tool, config: Config) -> None:
    web = tool("commands", "send", "--group", "web", "restart", "--json").document
    everybody = tool("commands", "send", "--all", "restart", "--json").document
    assert web["children"] == [f"{web['document_id']}_{ONE}"]
    assert sorted(everybody["children"]) == [f"{everybody['document_id']}_{uuid}" for uuid in (ONE, TWO)]
    assert {command.document_id for command in deliver(config)} == {*web["children"], *everybody["children"]}


def test_send_to_nobody(tool: Tool, audit: Audit) -> None:
    for words, text in (
        (("--agent", ONE), f"there is no agent {ONE}"),
        (("--group", "web"), "no agent is in the group web"),
        (("--all",), "there are no agents"),
    ):
        refused = tool("commands", "send", *words, "restart")
        assert (refused.status, refused.out, refused.err) == (1, "", f"wazuh-comms: {text}\n")
    assert audit() == []
    assert tool("commands", "list", "--json").document == []


@pytest.mark.parametrize(
    "words",
    [
        ("restart",),
        ("--agent", ONE),
        ("--agent", ONE, "--all", "restart"),
        ("--agent", "a\nb", "restart"),
        ("--agent", ONE, "restarted"),
        ("--agent", ONE, "restart", "--rate", "5/s"),
        ("--all", "restart", "--rate", "5"),
        ("--all", "restart", "--rate", "0/s"),
        ("--agent", ONE, ""),
        ("--agent", ONE, "restart", "--arg", "x"),
        ("--agent", ONE, "restart", "--arg", "x=1", "--arg", "x=2"),
        ("--agent", ONE, "restart", "--timeout", "0"),
        ("--agent", ONE, "restart", "--timeout", "soon"),
        ("--agent", ONE, "set-group"),
        ("--agent", ONE, "set-group", "--arg", "groups=web"),
        ("--agent", ONE, "set-group", "--arg", "groups=[1]"),
    ],
)
@pytest.mark.usefixtures("agents")
def test_misuse_of_send(tool: Tool, words: tuple[str, ...]) -> None:
    refused = tool("commands", "send", *words)
    assert (refused.status, refused.out) == (2, "")
    assert tool("commands", "list", "--json").document == []


@pytest.mark.usefixtures("agents")
def test_list_by_status_and_agent(tool: Tool, config: Config) -> None:
    assert tool("commands", "list").out == ""
    first = tool("commands", "send", "--agent", ONE, "restart").out.strip()
    deliver(config)
    second = tool("commands", "send", "--agent", ONE, "fetch-config").out.strip()
    third = tool("commands", "send", "--agent", TWO, "restart").out.strip()

    def ids(*words: str) -> list[str]:
        return [command["document_id"] for command in tool("commands", "list", "--json", *words).document]

    assert ids() == [third, second, first]
    assert ids("--status", "sent") == [first]
    assert ids("--status", "pending", "--agent", ONE) == [second]
    assert ids("--limit", "1") == [third]
    text = tool("commands", "list").lines
    assert text[0].split() == ["ID", "TARGET", "ACTION", "STATUS", "CREATED"]
    assert text[1].split()[:5] == [third, "agent", "two", "restart", "pending"]
    assert tool("commands", "list", "--status", "done").status == 2


@pytest.mark.usefixtures("agents")
def test_show(tool: Tool) -> None:
    sent = tool("commands", "send", "--agent", ONE, "restart", "--arg", "a=1").out.strip()
    shown = dict(line.split(None, 1) for line in tool("commands", "show", sent).lines)
    assert shown["document_id"] == sent
    assert shown["target"] == f"agent one ({ONE})"
    assert shown["args"] == '{"a": 1}'
    missing = tool("commands", "show", "nothing")
    assert (missing.status, missing.err) == (1, "wazuh-comms: there is no command nothing\n")


@pytest.mark.usefixtures("agents")
def test_cancel(tool: Tool, config: Config, audit: Audit) -> None:
    sent = tool("commands", "send", "--agent", ONE, "restart").out.strip()
    cancelled = tool("commands", "cancel", sent, "--json").document
    assert (cancelled["status"], cancelled["result"]["message"]) == ("failed", "cancelled")
    assert tool("commands", "cancel", sent).status == 0
    assert [entry["action"] for entry in audit()].count("commands cancel") == 1
    delivered = tool("commands", "send", "--agent", ONE, "restart").out.strip()
    assert [command.document_id for command in deliver(config)] == [delivered]
    late = tool("commands", "cancel", delivered)
    assert (late.status, late.err) == (1, f"wazuh-comms: {delivered} can't be cancelled any more: sent\n")
    assert tool("commands", "cancel", "nothing").status == 1


# --- waiting ---------------------------------------------------------------------------------------------------------


def while_agents_work(config: Config, tool: Tool, words: tuple[str, ...], results: dict[str, CommandResult]) -> Outcome:
    """Runs the tool while this thread plays the daemon and its agents until each of these has reported."""

    async def play() -> None:
        async with open_backends(config) as backends:
            left = dict(results)
            while left:
                news = await backends.commands.wait_news()
                for command in await backends.commands.claim(news):
                    await backends.commands.mark_sent([command.document_id])
                    await report(backends, command, left.pop(command.target.id))

    async def report(backends: Backends, command: Command, result: CommandResult) -> None:
        (answer,) = await backends.commands.report([CommandReport(command.target.id, command.document_id, result)])
        assert answer.status == 200

    thread = threading.Thread(target=trio.run, args=(play,))
    thread.start()
    try:
        return tool(*words)
    finally:
        thread.join()


@pytest.mark.real_clock
@pytest.mark.usefixtures("agents")
def test_wait_for_success(tool: Tool, config: Config) -> None:
    words = ("commands", "send", "--agent", ONE, "restart", "--wait", "--json")
    done = while_agents_work(config, tool, words, {ONE: CommandResult(0, "done", {"n": 1})})
    assert done.status == 0
    assert done.document["status"] == "success"
    assert done.document["result"] == {"code": 0, "message": "done", "data": {"n": 1}}


@pytest.mark.real_clock
@pytest.mark.usefixtures("agents")
def test_wait_for_failure(tool: Tool, config: Config) -> None:
    words = ("commands", "send", "--agent", ONE, "restart", "--wait")
    done = while_agents_work(config, tool, words, {ONE: CommandResult(1, "no\x1b[31m")})
    assert done.status == 1
    assert "failed: no\\x1b[31m (code 1)" in done.out
    assert set(done.err.split()) <= {"pending", "sent"}  # a line for each change that was seen


@pytest.mark.real_clock
@pytest.mark.usefixtures("agents")
def test_wait_for_all(tool: Tool, config: Config) -> None:
    words = ("commands", "send", "--all", "restart", "--wait", "--json")
    done = while_agents_work(config, tool, words, {ONE: CommandResult(0, "fine"), TWO: CommandResult(1, "bad")})
    assert done.status == 1
    found = {child["target"]["id"]: child["status"] for child in done.document["children"]}
    assert found == {ONE: "success", TWO: "failed"}


@pytest.mark.real_clock
@pytest.mark.usefixtures("agents")
def test_wait_ends_without_a_daemon(tool: Tool) -> None:
    done = tool("commands", "send", "--agent", ONE, "restart", "--timeout", "1", "--wait", "--json")
    assert done.status == 1
    assert done.document["status"] == "failed"
    assert done.document["result"]["message"]


@pytest.mark.usefixtures("agents")
def test_ctrl_c_names_the_command_that_goes_on(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sending, "until_ended", interrupted)
    left = tool("commands", "send", "--agent", ONE, "restart", "--wait")
    (command,) = tool("commands", "list", "--json").document
    assert (left.status, left.out) == (130, "")
    assert left.err == f"the command {command['document_id']} goes on\n"
    assert command["status"] == "pending"


@pytest.mark.real_clock
@pytest.mark.usefixtures("agents")
def test_progress_on_a_terminal(
    tool: Tool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(["commands", "send", "--agent", ONE, "restart", "--timeout", "1", "--wait"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("\r\x1b[Kpending, 0 s")
    assert shown.endswith("\r\x1b[K")


FORGED = "broken\nstatus       success\r\x1b[2K\u2028x"


@pytest.mark.usefixtures("agents")
def test_an_agents_text_makes_no_lines_of_its_own(tool: Tool, config: Config) -> None:
    for agent in (ONE, TWO):
        tool("commands", "send", "--agent", agent, "restart")
    sent = deliver(config)
    assert len(sent) == 2

    async def report() -> None:
        async with open_backends(config) as backends:
            result = CommandResult(1, FORGED, FORGED)
            await backends.commands.report([CommandReport(one.target.id, one.document_id, result) for one in sent])

    trio.run(report)
    listing = tool("commands", "list")
    assert len(listing.lines) == 1 + len(sent)
    for command in sent:
        shown = tool("commands", "show", command.document_id)
        assert [line.split()[1] for line in shown.lines if line.startswith("status ")] == ["failed"]
        assert not any(char in shown.out for char in "\r\x1b\u2028")
        assert "broken\\nstatus" in shown.out
