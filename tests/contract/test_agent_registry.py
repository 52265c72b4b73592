"""The contract of ``AgentRegistry``."""

import pytest

from tests.contract.harness import A1, A2, A3, Clock, Harness
from wazuh_comms_trio.backends.agent_orders import AgentOrder
from wazuh_comms_trio.backends.embedded import agents as embedded_agents
from wazuh_comms_trio.backends.interfaces import Action, Agent, Backends, Command, Target
from wazuh_comms_trio.backends.opensearch.agents import agent_search
from wazuh_comms_trio.errors import AgentExists, BackendUnavailable


async def test_an_agent_comes_back_as_it_was_added(backends: Backends) -> None:
    agent = Agent(
        id=A1,
        name='böse "quotes" \\',
        key_hash="c2FsdA==",
        type="Endpoint",
        version="6.0.0",
        groups=("default", "web"),
        host={"hostname": "h1", "ip": ["10.0.0.5"], "os": {"name": "Ubuntu", "version": "24.04"}},
    )
    await backends.agents.add(agent)
    assert await backends.agents.get(A1) == agent
    assert await backends.agents.lookup(A1) == agent
    assert list(await backends.agents.list()) == [agent]


async def test_nobody_is_there_at_first(backends: Backends) -> None:
    assert await backends.agents.get(A1) is None
    assert await backends.agents.lookup(A1) is None
    assert list(await backends.agents.list()) == []
    assert not await backends.agents.remove(A1)
    assert not await backends.agents.rekey(A1, "x")
    assert not await backends.agents.set_groups(A1, ["g"])
    assert list(await backends.agents.revoked({A1: "0" * 16})) == [A1]
    await backends.agents.record_login(A1, 1.0)


async def test_an_id_is_enrolled_once(harness: Harness, backends: Backends) -> None:
    first = await harness.enrol(A1)
    with pytest.raises(AgentExists):
        await harness.enrol(A1)
    assert await backends.agents.get(A1) == first


async def test_ids_are_compared_in_lower_case(harness: Harness, backends: Backends) -> None:
    await harness.enrol(A1.upper())
    agent = await backends.agents.get(A1)
    assert agent is not None
    assert agent.id == A1
    assert await backends.agents.lookup(A1.upper()) == agent
    with pytest.raises(AgentExists):
        await harness.enrol(A1)


async def test_removal_shows_at_once(harness: Harness, backends: Backends) -> None:
    first = await harness.enrol(A1)
    second = await harness.enrol(A2)
    assert await backends.agents.lookup(A1) == first
    assert await backends.agents.remove(A1)
    assert await backends.agents.lookup(A1) is None
    assert await backends.agents.get(A1) is None
    assert await backends.agents.lookup(A2) == second
    assert not await backends.agents.remove(A1)


async def test_rekeying_shows_at_once(harness: Harness, backends: Backends) -> None:
    before = await harness.enrol(A1)
    assert await backends.agents.lookup(A1) == before
    assert await backends.agents.current(A1.upper()) == before
    assert await backends.agents.rekey(A1, "another")
    current = await backends.agents.current(A1)
    assert current is not None
    assert current.key_hash == "another"
    after = await backends.agents.lookup(A1)
    assert after is not None
    assert after.key_hash == "another"
    assert after.fingerprint != before.fingerprint


async def test_what_is_known_at_once_is_what_lookup_says(harness: Harness, backends: Backends) -> None:
    """A store may know nothing at once."""
    assert backends.agents.known(A1) is None
    before = await harness.enrol(A1)
    assert await backends.agents.lookup(A1) == before
    assert backends.agents.known(A1.upper()) in (None, before)
    assert await backends.agents.rekey(A1, "another")
    after = await backends.agents.lookup(A1)
    assert backends.agents.known(A1) in (None, after)
    await backends.agents.remove(A1)
    assert await backends.agents.current(A1) is None
    assert backends.agents.known(A1) is None


async def test_an_agent_enrolled_anew_is_another(harness: Harness, backends: Backends) -> None:
    before = await harness.enrol(A1)
    assert await backends.agents.lookup(A1) == before
    await backends.agents.remove(A1)
    after = await harness.enrol(A1)
    assert await backends.agents.lookup(A1) == after
    assert list(await backends.agents.revoked({A1: before.fingerprint})) == [A1]
    assert list(await backends.agents.revoked({A1: after.fingerprint})) == []


async def test_revoked_names_the_removed_and_the_rekeyed(harness: Harness, backends: Backends) -> None:
    agents = {agent.id: agent.fingerprint for agent in [await harness.enrol(A1), await harness.enrol(A2)]}
    agents[A3] = "0" * 16
    assert list(await backends.agents.revoked({})) == []
    assert set(await backends.agents.revoked(agents)) == {A3}
    await backends.agents.rekey(A1, "another")
    await backends.agents.remove(A2)
    assert set(await backends.agents.revoked(agents)) == {A1, A2, A3}


async def test_what_changed_is_named_once_or_any_may_have(harness: Harness, backends: Backends) -> None:
    first, second = await harness.enrol(A1), await harness.enrol(A2)
    await backends.agents.lookup(A1)
    await backends.agents.changed()
    await backends.agents.rekey(A1, "another")
    for gone in (A1, A2):
        named = await backends.agents.changed()
        assert named is None or gone in named
        await backends.agents.remove(A2)
    agents = {A1: first.fingerprint, A2: second.fingerprint}
    assert set(await backends.agents.revoked(agents)) == {A1, A2}
    last = await backends.agents.changed()
    assert last is None or not last


async def test_a_log_in_is_recorded_and_revokes_nothing(harness: Harness, backends: Backends) -> None:
    agent = await harness.enrol(A1)
    assert agent.status == "disconnected"
    await backends.agents.record_login(A1, 1_750_000_001.5)
    await harness.settle()
    stored = await backends.agents.get(A1)
    assert stored is not None
    assert stored.last_login == 1_750_000_001.5
    assert stored.status == "active"
    assert list(await backends.agents.revoked({A1: agent.fingerprint})) == []


async def test_the_last_log_in_is_known_at_the_next_one(harness: Harness, backends: Backends) -> None:
    """Also where the agent was remembered before that."""
    await harness.enrol(A1)
    for moment in (1_750_000_001.5, 1_750_000_900.5):
        assert await backends.agents.lookup(A1) is not None
        await backends.agents.record_login(A1, moment)
        await harness.settle()
        current = await backends.agents.current(A1.upper())
        assert current is not None
        assert current.last_login == moment
    assert await backends.agents.current(A2) is None


async def test_the_last_log_in_is_known_to_another_worker_or_node(harness: Harness, backends: Backends) -> None:
    if harness.second is None:
        pytest.skip("one at a time")
    await harness.enrol(A1)
    async with harness.second() as other:
        assert await other.agents.lookup(A1) is not None
        await backends.agents.record_login(A1, 1_750_000_001.5)
        await harness.settle()
        current = await other.agents.current(A1)
        assert current is not None
        assert current.last_login == 1_750_000_001.5


async def test_groups_and_members(harness: Harness, backends: Backends) -> None:
    await harness.enrol(A1, groups=("default", "web"))
    await harness.enrol(A2, groups=("default",))
    await harness.enrol(A3)
    assert set(await backends.agents.members("default")) == {A1, A2}
    assert set(await backends.agents.members("web")) == {A1}
    assert set(await backends.agents.members("all")) == {A1, A2, A3}
    assert list(await backends.agents.members("we")) == []
    assert await backends.agents.set_groups(A1, ["db"])
    assert list(await backends.agents.members("web")) == []
    agent = await backends.agents.lookup(A1)
    assert agent is not None
    assert agent.groups == ("db",)


async def test_agents_of_a_name(backends: Backends) -> None:
    """Character by character: neither a part of it, nor another case, nor a pattern finds it."""
    for agent_id, name in ((A2, "web 1"), (A1, "web 1"), (A3, "Web 1")):
        await backends.agents.add(Agent(agent_id, name, "c2FsdA=="))
    assert list(await backends.agents.named("web 1")) == sorted([A1, A2])
    assert list(await backends.agents.named("Web 1")) == [A3]
    for other in ("web", "1", "web*", "web%", "web_1", "web 1 ", "WEB 1", "", "\ud800"):
        assert list(await backends.agents.named(other)) == []
    await backends.agents.remove(A1)
    assert list(await backends.agents.named("web 1")) == [A2]


async def test_names_that_tell_who_it_is(backends: Backends) -> None:
    for agent_id, name in ((A1, "web 1"), (A2, "web 2"), (A3, "web 2")):
        await backends.agents.add(Agent(agent_id, name, "c2FsdA=="))
    gone = "0194857f-39b5-7bfb-a7bc-ffffffffffff"
    assert await backends.agents.unique_names([A1.upper(), A1, A2, gone, "\ud800"]) == {
        A1.upper(): "web 1",
        A1: "web 1",
    }
    assert await backends.agents.unique_names([A3]) == {}  # whom it shares the name with wasn't asked for
    assert await backends.agents.unique_names([]) == {}
    strangers = [f"0194857f-39b5-7bfb-a7bc-{number:012}" for number in range(1200)]
    assert await backends.agents.unique_names([*strangers, A1, A2]) == {A1: "web 1"}
    await backends.agents.remove(A2)
    assert await backends.agents.unique_names([A1, A3]) == {A1: "web 1", A3: "web 2"}


async def test_removing_an_agent_ends_its_pending_commands(harness: Harness, backends: Backends) -> None:
    await harness.enrol(A1)
    await harness.enrol(A2)
    mine, other, sent = (
        Command(document_id, Target("agent", agent_id), Action("restart"))
        for document_id, agent_id in (("c1", A1), ("c2", A2), ("c3", A1))
    )
    await backends.commands.add([sent])
    await backends.commands.claim([A1])
    await backends.commands.mark_sent(["c3"])
    await backends.commands.add([mine, other])
    await backends.agents.remove(A1)
    ended = await backends.commands.get("c1")
    assert ended is not None
    assert ended.status == "failed"
    assert ended.result is not None
    assert ended.result.message == "agent removed"
    for document_id, status in (("c2", "pending"), ("c3", "sent")):
        command = await backends.commands.get(document_id)
        assert command is not None
        assert command.status == status


async def test_another_process_is_noticed(harness: Harness, backends: Backends) -> None:
    if harness.second is None:
        pytest.skip("one process only")
    first = await harness.enrol(A1)
    second = await harness.enrol(A2)
    assert await backends.agents.lookup(A1) == first
    assert await backends.agents.lookup(A2) == second

    async def is_gone() -> bool:
        return await backends.agents.lookup(A1) is None

    async def is_rekeyed() -> bool:
        agent = await backends.agents.lookup(A2)
        return agent is not None and agent.key_hash == "another"

    async def is_moved() -> bool:
        agent = await backends.agents.lookup(A2)
        return agent is not None and agent.groups == ("g",)

    async def is_back() -> bool:
        return await backends.agents.lookup(A1) == first

    async with harness.second() as others:
        await others.agents.remove(A1)
        assert await harness.noticed(is_gone)
        await others.agents.rekey(A2, "another")
        assert await harness.noticed(is_rekeyed)
        assert set(await backends.agents.revoked({A1: first.fingerprint, A2: second.fingerprint})) == {A1, A2}
        await others.agents.set_groups(A2, ["g"])
        assert await harness.noticed(is_moved)
        await others.agents.add(first)
        assert await harness.noticed(is_back)


@pytest.mark.expects_errors
async def test_an_outage_is_a_passing_failure(harness: Harness, backends: Backends, clock: Clock) -> None:
    if harness.outage is None:
        pytest.skip("no outages to be had")
    await harness.enrol(A1)
    async with harness.outage():
        with pytest.raises(BackendUnavailable):
            await backends.agents.get(A1)
        with pytest.raises(BackendUnavailable):
            await harness.enrol(A2)
        await backends.agents.record_login(A1, clock())
    assert await backends.agents.get(A1) is not None
    await harness.enrol(A2)


A4 = A3[:-1] + "f"
ORDERS: list[tuple[AgentOrder, bool, list[tuple[str, str]]]] = [
    ("name", False, [("A", A2), ("b", A1), ("b", A3), ("\U0001f600", A4)]),
    ("name", True, [("\U0001f600", A4), ("b", A1), ("b", A3), ("A", A2)]),
    ("uuid", False, [("b", A1), ("A", A2), ("b", A3), ("\U0001f600", A4)]),
    ("uuid", True, [("\U0001f600", A4), ("b", A3), ("A", A2), ("b", A1)]),
]


@pytest.mark.parametrize(("order", "reverse", "expected"), ORDERS)
async def test_pages_are_all_in_order(
    harness: Harness,
    backends: Backends,
    monkeypatch: pytest.MonkeyPatch,
    order: AgentOrder,
    reverse: bool,
    expected: list[tuple[str, str]],
) -> None:
    for module in (agent_search, embedded_agents):
        monkeypatch.setattr(module, "_PAGE", 1)
    pages = backends.agents.pages
    assert [page async for page in pages(order, reverse=reverse) if page] == []
    for name, agent_id in expected[::2] + expected[1::2]:
        await backends.agents.add(Agent(agent_id, name, "k", groups=("g",)))
    await harness.refreshed()
    read = [page async for page in pages(order, reverse=reverse)]
    found = [agent for page in read for agent in page]
    assert [(agent.name, agent.id) for agent in found] == expected
    assert max(map(len, read)) <= 2
    assert sorted(found, key=lambda agent: agent.id) == list(await backends.agents.list())
