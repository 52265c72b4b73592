"""The contract of ``CommandStore``: groups' commands and what they became."""

from collections.abc import Collection

import pytest

from tests.contract.harness import A1, A2, A3, Harness
from wazuh_comms_trio.backends.interfaces import Action, Backends, Command, Target


def for_group(document_id: str, group: str = "web", **more: str) -> Command:
    return Command(document_id, Target("group", group), Action("restart"), **more)


def for_agent(document_id: str, agent_id: str = A1) -> Command:
    return Command(document_id, Target("agent", agent_id), Action("restart"))


def ids(commands: Collection[Command]) -> set[str]:
    return {command.document_id for command in commands}


@pytest.fixture
async def backends(harness: Harness) -> Backends:
    """With two agents in one group and a third in another."""
    await harness.enrol(A1, groups=("web",))
    await harness.enrol(A2, groups=("web",))
    await harness.enrol(A3, groups=("db",))
    return harness.backends


@pytest.mark.parametrize("order", ["o1", None])
async def test_the_children_of_groups_commands(backends: Backends, order: str | None) -> None:
    more = {} if order is None else {"order_id": order}
    await backends.commands.add([for_group("p", **more), for_group("q", "db", **more), for_group("p_1", **more)])
    await backends.commands.add([for_agent("p_x"), for_agent(f"x_{A1}"), for_agent("lone")])
    assert ids(await backends.commands.children(["p"])) == {f"p_{A1}", f"p_{A2}"}
    assert ids(await backends.commands.children(["p", "q", "p"])) == {f"p_{A1}", f"p_{A2}", f"q_{A3}"}
    assert ids(await backends.commands.children(["x", "p_x", "lone", "nothing", "", "\ud800"])) == set()
    assert await backends.commands.children([]) == []


async def test_a_listing_without_children(backends: Backends) -> None:
    await backends.commands.add([for_agent(f"x_{A1}"), for_group("p", order_id="o"), for_agent("lone")])
    assert ids(await backends.commands.list(children=False)) == {f"x_{A1}", "p", "lone"}
    assert ids(await backends.commands.list(children=False, status="pending")) == {f"x_{A1}", "lone"}
    assert ids(await backends.commands.list()) == {f"x_{A1}", "p", "lone", f"p_{A1}", f"p_{A2}"}
    assert ids(await backends.commands.list(agent_id=A1, children=False)) == {f"x_{A1}", "lone"}


async def test_cancelling_a_groups_command_ends_what_is_pending(backends: Backends) -> None:
    await backends.commands.add([for_group("p", order_id="o"), for_agent("lone")])
    claimed = await backends.commands.claim([A1])
    await backends.commands.mark_sent([command.document_id for command in claimed])
    await backends.commands.add([for_agent("other", A2)])
    parent = await backends.commands.cancel("p")
    assert parent is not None
    assert (parent.document_id, parent.status) == ("p", "sent")
    status = {command.document_id: command.status for command in await backends.commands.list()}
    assert status == {"p": "sent", f"p_{A1}": "sent", f"p_{A2}": "failed", "lone": "sent", "other": "pending"}
    assert ids(await backends.commands.claim([A1, A2])) == {"other"}


async def test_cancelling_twice_and_while_one_is_offered(backends: Backends) -> None:
    await backends.commands.add([for_group("p", order_id="o")])
    offered = ids(await backends.commands.claim([A1]))
    assert offered == {f"p_{A1}"}
    await backends.commands.cancel("p")
    await backends.commands.cancel("p")
    status = {command.document_id: command.status for command in await backends.commands.children(["p"])}
    assert status == {f"p_{A1}": "pending", f"p_{A2}": "failed"}  # what is being handed out goes its way
    await backends.commands.mark_sent(offered)
    sent = await backends.commands.get(f"p_{A1}")
    assert sent is not None
    assert sent.status == "sent"


async def test_a_groups_command_that_was_expanded_already(backends: Backends) -> None:
    """As a sender stores it who hands its children out bit by bit."""
    parent = Command("p", Target("group", "web"), Action("restart"), order_id="o", status="sent", sent_at=1_750_000_000)
    (stored,) = await backends.commands.add([parent])
    assert stored.status == "sent"
    assert await backends.commands.children(["p"]) == []
    await backends.commands.add([Command(f"p_{A2}", Target("agent", A2), Action("restart"), order_id="o")])
    assert ids(await backends.commands.children(["p"])) == {f"p_{A2}"}
    assert ids(await backends.commands.claim([A1, A2])) == {f"p_{A2}"}
