"""``wazuh-comms commands``, of groups: counts, the end, cancelling, many agents, spreading."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import trio

from tests.cli.conftest import Tool
from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.backends.interfaces import Action, Agent, Command, CommandReport, CommandResult, Target
from wazuh_comms_trio.cli.commands import send as sending
from wazuh_comms_trio.config.models import Config

UUIDS = [f"0194857f-39b5-7bfb-a7bc-c5c6835f0{n:03}" for n in range(1, 5)]

Audit = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def agents(tool: Tool) -> None:
    for number, uuid in enumerate(UUIDS):
        tool("agents", "add", f"web-{number}", "--uuid", uuid, "--group", "web")


def enrol(config: Config, count: int) -> None:
    async def run() -> None:
        async with open_backends(config) as backends, trio.open_nursery() as nursery:
            for n in range(count):
                uuid = f"0194857f-39b5-7bfb-a7bc-{n:012}"
                nursery.start_soon(backends.agents.add, Agent(uuid, f"agent-{n}", "hash"))

    trio.run(run)


def deliver(config: Config, results: dict[str, CommandResult | None]) -> None:
    """To these agents; what they answer, if they do."""

    async def run() -> None:
        async with open_backends(config) as backends:
            commands = await backends.commands.claim(list(results))
            await backends.commands.mark_sent([command.document_id for command in commands])
            answers = [(command, results[command.target.id]) for command in commands]
            reports = [CommandReport(one.target.id, one.document_id, result) for one, result in answers if result]
            await backends.commands.report(reports)

    trio.run(run)


def ids(documents: list[dict[str, Any]]) -> set[str]:
    return {document["document_id"] for document in documents}


@pytest.mark.usefixtures("agents")
def test_a_groups_command_is_listed_as_counts_until_it_is_done(tool: Tool, config: Config) -> None:
    parent = tool("commands", "send", "--group", "web", "restart", "--timeout", "1000").out.strip()
    deliver(config, {UUIDS[0]: CommandResult(0), UUIDS[1]: CommandResult(1, "no"), UUIDS[2]: None})
    (listed,) = tool("commands", "list", "--json").document
    assert listed["progress"] == {
        "done": False, "success": 1, "failed": 1, "never_delivered": 0, "sent": 1, "pending": 1,
    }  # fmt: skip
    assert "under way: 1 success, 1 failed, 1 sent, 1 pending" in tool("commands", "list").out
    cancelled = tool("commands", "cancel", parent)
    assert cancelled.out.startswith(f"cancelled {parent} for 1 agent; under way: 1 success, 1 failed, 1 never")

    async def answer() -> None:
        async with open_backends(config) as backends:
            await backends.commands.report([CommandReport(UUIDS[2], f"{parent}_{UUIDS[2]}", CommandResult(0))])

    trio.run(answer)
    assert "done: 2 success, 1 failed, 1 never delivered" in tool("commands", "list").out
    shown = tool("commands", "show", parent, "--json").document
    assert shown["progress"]["done"] is True
    assert "\nchildren     done: 2 success, 1 failed, 1 never delivered" in tool("commands", "show", parent).out


@pytest.mark.usefixtures("agents")
def test_children_are_listed_when_they_are_asked_for(tool: Tool, config: Config) -> None:
    parent = tool("commands", "send", "--all", "restart").out.strip()
    children = {f"{parent}_{uuid}" for uuid in UUIDS}
    deliver(config, {UUIDS[0]: CommandResult(1)})
    assert ids(tool("commands", "list", "--json").document) == {parent}
    assert ids(tool("commands", "list", "--json", "--children").document) == {parent, *children}
    assert ids(tool("commands", "list", "--json", "--of", parent).document) == children
    failed = tool("commands", "list", "--json", "--of", parent, "--status", "failed").document
    assert ids(failed) == {f"{parent}_{UUIDS[0]}"}
    assert ids(tool("commands", "list", "--json", "--agent", "web-1").document) == {f"{parent}_{UUIDS[1]}"}
    missing = tool("commands", "list", "--of", f"{parent}_{UUIDS[0]}")
    assert (missing.status, missing.err) == (1, f"wazuh-comms: there is no group's command {parent}_{UUIDS[0]}\n")


@pytest.mark.usefixtures("agents")
def test_watch_ends_with_the_last_agent(tool: Tool, config: Config) -> None:
    parent = tool("commands", "send", "--all", "restart").out.strip()
    deliver(config, dict.fromkeys(UUIDS, CommandResult(0)))
    watched = tool("commands", "watch", parent)
    assert watched.status == 0
    assert watched.lines == [*(f"web-{n}  success: (code 0)" for n in range(len(UUIDS))), "done: 4 success"]
    child = tool("commands", "watch", f"{parent}_{UUIDS[0]}", "--json")
    assert (child.status, child.document["status"]) == (0, "success")
    assert tool("commands", "watch", "nothing").err == "wazuh-comms: there is no command nothing\n"


@pytest.mark.usefixtures("agents")
def test_watch_shows_what_failed_first(tool: Tool, config: Config) -> None:
    parent = tool("commands", "send", "--all", "restart").out.strip()
    deliver(config, {uuid: CommandResult(int(uuid == UUIDS[2]), "no\nstatus success") for uuid in UUIDS})
    watched = tool("commands", "watch", parent, "--json")
    assert watched.status == 1
    assert watched.document["progress"]["failed"] == 1
    lines = tool("commands", "watch", parent).lines
    assert lines[0] == "web-2  failed: no\\nstatus success (code 1)"
    assert len(lines) == len(UUIDS) + 1


@pytest.mark.usefixtures("agents")
def test_cancelling_a_groups_command(tool: Tool, config: Config, audit: Audit) -> None:
    parent = tool("commands", "send", "--group", "web", "restart").out.strip()
    deliver(config, {UUIDS[0]: None})
    cancelled = tool("commands", "cancel", parent, "--json").document
    assert cancelled["cancelled"] == len(UUIDS) - 1
    assert (audit()[-1]["action"], audit()[-1]["object"], audit()[-1]["agents"]) == ("commands cancel", parent, 3)
    again = tool("commands", "cancel", parent)
    assert (again.status, again.out) == (1, "")
    assert again.err == f"wazuh-comms: nothing of {parent} can be cancelled any more: 3 never delivered, 1 sent\n"


def test_many_agents_are_asked_for(tool: Tool, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    enrol(config, 101)
    refused = tool("commands", "send", "--all", "restart")
    assert (refused.status, refused.out) == (2, "")
    assert refused.err == "wazuh-comms: this goes to 101 agents: say --yes if that is meant; nothing was done\n"
    assert tool("commands", "list", "--json").document == []

    class Terminal:
        def __init__(self, answer: str) -> None:
            self.readline = lambda: answer
            self.isatty = lambda: True

    for answer in ("\n", "n\n", ""):
        with monkeypatch.context() as patch:
            patch.setattr("wazuh_comms_trio.cli.confirmation.sys.stdin", Terminal(answer))
            patch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
            with pytest.raises(sending.Failure, match="nothing was done"):
                sending.confirm("this goes to 101 agents", yes=False)
    sent = tool("commands", "send", "--all", "restart", "--yes", "--json")
    assert (sent.status, len(sent.document["children"])) == (0, 101)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the tool's pauses go by: its one value moves only by them."""
    clock = [100.0]

    async def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(sending, "sleep", sleep)
    monkeypatch.setattr(sending, "current_time", lambda: clock[0])
    return clock


@pytest.mark.usefixtures("agents")
def test_spread_over_time(tool: Tool, clock: list[float]) -> None:
    sent = tool("commands", "send", "--all", "restart", "--rate", "2/s", "--json")
    assert sent.status == 0
    assert clock[0] == pytest.approx(101.5)  # the last slice is waited for by nobody
    assert sent.err == "sent to 1 of 4 agents\nsent to 2 of 4 agents\nsent to 3 of 4 agents\nsent to 4 of 4 agents\n"
    children = tool("commands", "list", "--json", "--of", sent.document["document_id"]).document
    assert ids(children) == set(sent.document["children"])
    assert {child["status"] for child in children} == {"pending"}


@pytest.mark.usefixtures("clock")
def test_spreading_over_many_is_told_in_parts(tool: Tool, config: Config) -> None:
    async def enrol() -> None:
        async with open_backends(config) as backends, trio.open_nursery() as nursery:
            for number in range(90):
                nursery.start_soon(backends.agents.add, Agent(f"0194857f-39b5-7bfb-a7bc-{number:012}", "web", "h"))

    trio.run(enrol)
    sent = tool("commands", "send", "--all", "restart", "--rate", "2/s", "--json")
    told = sent.err.splitlines()
    assert told == [f"sent to {number} of 90 agents" for number in range(5, 91, 5)]
    assert len(sent.document["children"]) == 90


@pytest.mark.usefixtures("agents")
def test_spreading_is_interrupted(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sending, "sleep", interrupted)
    sent = tool("commands", "send", "--all", "restart", "--rate", "1/s")
    (parent,) = tool("commands", "list", "--json").document
    assert (sent.status, sent.out) == (130, "")
    told = f"the command {parent['document_id']} was sent to 1 of 4 agents; the others don't get it"
    assert told in sent.err
    assert len(tool("commands", "list", "--json", "--of", parent["document_id"]).document) == 1


def test_an_action_that_agents_dont_know(tool: Tool) -> None:
    tool("agents", "add", "one", "--uuid", UUIDS[0])
    refused = tool("commands", "send", "--agent", "one", "reboot")
    assert refused.status == 2
    assert "agents know set-group, fetch-config, restart; to send them 'reboot', say --unknown-action" in refused.err
    assert tool("commands", "send", "--agent", "one", "reboot", "--unknown-action").status == 0


def test_a_command_of_somebody_else_ends_like_a_child(tool: Tool, config: Config) -> None:
    """Its id alone makes it no part of a group's command."""

    async def add() -> None:
        async with open_backends(config) as backends:
            await backends.commands.add([Command(f"x_{UUIDS[0]}", Target("agent", UUIDS[0]), Action("restart"))])

    trio.run(add)
    assert ids(tool("commands", "list", "--json").document) == {f"x_{UUIDS[0]}"}
