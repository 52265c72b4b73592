"""The contract of ``CommandStore`` and ``AgentRegistry``: an agent's groups are those of the ``set-group`` that it was
given last, in whatever order the store is told of deliveries and results.

Agents carry commands out in the order of their delivery; a delivery's mark may wait for the store, and a result comes
with some later request."""

from __future__ import annotations

import pytest

from tests.contract.harness import A1, Clock, Harness
from wazuh_comms_trio.backends.interfaces import Action, Backends, Command, CommandReport, CommandResult, Target


async def _set_groups(backends: Backends, *groups: str, lasts: float = 100) -> None:
    """One command for each, whose id is the group."""
    await backends.commands.add(
        [Command(group, Target("agent", A1), Action("set-group", None, {"groups": [group]}), lasts) for group in groups]
    )


async def _claim(backends: Backends, *groups: str) -> None:
    assert [command.document_id for command in await backends.commands.claim([A1])] == list(groups)


async def _give(backends: Backends, *groups: str, lasts: float = 100) -> None:
    """What ``_set_groups`` posts is given to the agent, and nothing has said yet that it arrived."""
    await _set_groups(backends, *groups, lasts=lasts)
    await _claim(backends, *groups)


async def _report(backends: Backends, *groups: str) -> None:
    for group in groups:
        (result,) = await backends.commands.report([CommandReport(A1, group, CommandResult(0, "done"))])
        assert result.status == 200


async def _ends_in(backends: Backends, group: str) -> None:
    """Where commands are this store's to keep; elsewhere the registry is changed by those who posted them."""
    agent = await backends.agents.get(A1)
    assert agent is not None
    assert agent.groups == ((group,) if backends.commands.keeps_posted else ("default",))


@pytest.fixture
async def backends(harness: Harness) -> Backends:
    await harness.enrol(A1, groups=("default",))
    return harness.backends


async def test_results_come_before_and_in_another_order(backends: Backends) -> None:
    await _give(backends, "first", "second", "third")
    await _report(backends, "second", "third", "first")
    await _ends_in(backends, "third")
    await backends.commands.mark_sent(["first", "second", "third"])
    await _ends_in(backends, "third")


async def test_deliveries_are_noted_in_another_order(backends: Backends) -> None:
    """One of two workers' stores was away for a while."""
    await _give(backends, "first")
    await _give(backends, "second")
    await backends.commands.mark_sent(["second"])
    await backends.commands.mark_sent(["first"])
    await _ends_in(backends, "second")


async def test_two_processes_note_them(harness: Harness, backends: Backends) -> None:
    if harness.second is None:
        pytest.skip("one process only")
    await _give(backends, "first")
    async with harness.second() as others:
        await _set_groups(others, "second")
        await harness.refreshed()
        if not backends.commands.keeps_posted:
            await others.commands.wait_news()
        await _claim(others, "second")
        await others.commands.mark_sent(["second"])
        await backends.commands.mark_sent(["first"])
        await _ends_in(others, "second")


async def test_one_that_is_delivered_again_is_the_later_one(backends: Backends) -> None:
    await _give(backends, "first")
    await _give(backends, "second")
    await backends.commands.mark_sent(["second"])
    await _ends_in(backends, "second")
    await backends.commands.release(["first"])
    await _claim(backends, "first")
    await backends.commands.mark_sent(["first"])
    await _ends_in(backends, "first")


async def test_what_the_registry_is_told_itself_is_in_the_order_too(backends: Backends) -> None:
    await _give(backends, "first")
    await backends.agents.set_groups(A1, ["default"])
    await backends.commands.mark_sent(["first"])
    agent = await backends.agents.get(A1)
    assert agent is not None
    assert agent.groups == ("default",)
    await _give(backends, "second")
    await backends.commands.mark_sent(["second"])
    await _ends_in(backends, "second")


async def test_a_delivery_that_only_the_agent_knows_of(harness: Harness, backends: Backends, clock: Clock) -> None:
    """It looked broken from here, and the command's time was over when the agent said that it has it."""
    await _give(backends, "first", lasts=10)
    await backends.commands.release(["first"])
    clock.advance(11)
    await harness.refreshed()
    await backends.commands.expire()
    expired = await backends.commands.get("first")
    assert expired is not None
    assert expired.status == "failed"
    await _report(backends, "first")
    await _ends_in(backends, "first")
