"""The contract of ``CommandStore``."""

from collections.abc import Collection
from typing import Any

import pytest
import trio

from tests.contract.commands import command, deliver, get, ids
from tests.contract.harness import A1, A2, A3, Clock, Harness
from wazuh_comms_trio.backends.interfaces import Action, Backends, Command, CommandReport, CommandResult, Target
from wazuh_comms_trio.errors import BackendUnavailable


async def news(backends: Backends, *, within: float = 10) -> Collection[str]:
    with trio.fail_after(within):
        return await backends.commands.wait_news()


async def test_a_command_comes_back_as_it_was_added(backends: Backends, clock: Clock) -> None:
    whole = Command(
        document_id="c1",
        target=Target("agent", A1),
        action=Action("set-group", "5.0.0", {"groups": ["a", "b"], "n": 1.5, "o": {"x": None}}),
        timeout=30.5,
        request_id="r1",
        order_id="o1",
        source="Users/Services",
        user="Management API",
    )
    (stored,) = await backends.commands.add([whole])
    assert stored.created_at == clock()
    assert stored.status == "pending"
    assert stored.action == whole.action
    assert await backends.commands.get("c1") == stored
    assert (stored.timeout, stored.request_id, stored.order_id) == (30.5, "r1", "o1")
    assert (stored.source, stored.user) == ("Users/Services", "Management API")
    assert await backends.commands.get("c2") is None


async def test_adding_is_idempotent(backends: Backends) -> None:
    await deliver(backends, "c1")
    again, new = await backends.commands.add([command("c1", timeout=7), command("c2")])
    assert (again.status, again.timeout) == ("sent", 100)
    assert new.status == "pending"
    assert ids(await backends.commands.claim([A1])) == ["c2"]


async def test_equal_ids_in_one_call(backends: Backends) -> None:
    first, second = await backends.commands.add([command("c1", timeout=5), command("c1", timeout=7)])
    assert first == second
    assert first.timeout == 5


async def test_claims_are_exclusive_until_released(backends: Backends) -> None:
    await backends.commands.add([command("c1"), command("c2", A2)])
    assert ids(await backends.commands.claim([A1])) == ["c1"]
    assert ids(await backends.commands.claim([A1])) == []
    assert ids(await backends.commands.claim([A3])) == []
    assert ids(await backends.commands.claim([])) == []
    assert (await get(backends, "c1")).status == "pending"
    await backends.commands.release(["c1", "unknown"])
    assert set(ids(await backends.commands.claim([A1, A2]))) == {"c1", "c2"}


async def test_two_who_claim_at_once_share(backends: Backends) -> None:
    await backends.commands.add([command(f"c{n}") for n in range(50)])
    got: list[str] = []

    async def one() -> None:
        got.extend(ids(await backends.commands.claim([A1])))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(one)
    assert sorted(got) == sorted(f"c{n}" for n in range(50))


async def test_oldest_first_and_a_hundred_at_most(backends: Backends, clock: Clock) -> None:
    for n in range(3):
        await backends.commands.add([command(f"c{n}-{m}") for m in range(50)])
        await backends.commands.add([command(f"d{n}", A2)])
        clock.advance(1)
    first = await backends.commands.claim([A1, A2])
    mine = [c.document_id for c in first if c.target.id == A1]
    assert mine == [f"c{n}-{m}" for n in range(2) for m in range(50)]
    assert [c.document_id for c in first if c.target.id == A2] == ["d0", "d1", "d2"]
    assert ids(await backends.commands.claim([A1])) == [f"c2-{m}" for m in range(50)]


async def test_a_delivered_command_is_sent(backends: Backends, clock: Clock) -> None:
    await backends.commands.add([command("c1")])
    await backends.commands.claim([A1])
    clock.advance(2)
    await backends.commands.mark_sent(["c1", "unknown"])
    sent = await get(backends, "c1")
    assert (sent.status, sent.sent_at) == ("sent", clock())
    clock.advance(2)
    await backends.commands.mark_sent(["c1"])
    assert await get(backends, "c1") == sent
    await backends.commands.release(["c1"])
    assert not await backends.commands.claim([A1])
    assert await get(backends, "c1") == sent


async def test_news_of_what_is_added_and_released(backends: Backends) -> None:
    await backends.commands.add([command("c1"), command("c2", A2)])
    assert set(await news(backends)) == {A1, A2}
    await backends.commands.claim([A1])
    await backends.commands.release(["c1"])
    assert set(await news(backends)) == {A1}


async def test_news_wake_the_one_who_waits(backends: Backends) -> None:
    found: list[str] = []

    async def wait(task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        found.extend(await news(backends))

    async with trio.open_nursery() as nursery:
        await nursery.start(wait)
        await backends.commands.add([command("c1")])
    assert found == [A1]


async def test_no_news_is_lost_between_two_waits(backends: Backends) -> None:
    seen: set[str] = set()
    total = 40

    async def listen() -> None:
        while len(seen) < total:
            for agent_id in await news(backends):
                for c in await backends.commands.claim([agent_id]):
                    seen.add(c.document_id)

    async def post(part: int) -> None:
        for n in range(10):
            await backends.commands.add([command(f"c{part}-{n}", f"agent-{part}-{n}")])

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            for part in range(4):
                nursery.start_soon(post, part)
    assert len(seen) == total


async def test_a_cancelled_wait_loses_nothing(backends: Backends) -> None:
    await backends.commands.add([command("c1")])
    with trio.CancelScope() as scope:
        scope.cancel()
        await backends.commands.wait_news()
    if scope.cancelled_caught:
        assert set(await news(backends)) == {A1}


async def test_a_groups_command_becomes_one_for_each_member(harness: Harness, backends: Backends) -> None:
    await harness.enrol(A1, groups=("web",))
    await harness.enrol(A2, groups=("web", "db"))
    await harness.enrol(A3)
    parent = Command(
        "p", Target("group", "web"), Action("restart", "1", {"x": 1}), timeout=33, request_id="r", order_id="o"
    )
    (stored,) = await backends.commands.add([parent])
    assert stored.status == "sent"
    children = await backends.commands.claim([A1, A2, A3])
    assert sorted(ids(children)) == [f"p_{A1}", f"p_{A2}"]
    for child in children:
        assert child.target == Target("agent", child.document_id.removeprefix("p_"))
        assert (child.action, child.timeout, child.request_id, child.order_id) == (parent.action, 33, "r", "o")
    await harness.enrol("0194857f-39b5-7bfb-a7bc-c5c6835f03d9", groups=("web",))
    await backends.commands.add([parent])
    assert len(await backends.commands.list()) == 3


async def test_all_is_a_group(harness: Harness, backends: Backends) -> None:
    await harness.enrol(A1, groups=("web",))
    await harness.enrol(A2)
    await backends.commands.add([Command("p", Target("group", "all"), Action("restart"))])
    assert set(await news(backends)) == {A1, A2}
    assert sorted(ids(await backends.commands.claim([A1, A2]))) == [f"p_{A1}", f"p_{A2}"]


async def test_a_group_of_nobody(backends: Backends, clock: Clock) -> None:
    (parent,) = await backends.commands.add([Command("p", Target("group", "web"), Action("restart"), timeout=5)])
    assert parent.status == "sent"
    clock.advance(6)
    await backends.commands.expire()
    assert (await get(backends, "p")).status == "sent"


async def test_commands_for_servers_are_left_alone(backends: Backends) -> None:
    theirs = Command("s", Target("server", "s1"), Action("restart"))
    (returned,) = await backends.commands.add([theirs])
    assert (returned.document_id, returned.target) == ("s", theirs.target)
    assert not await backends.commands.claim(["s1"])


async def test_list_newest_first(backends: Backends, clock: Clock) -> None:
    for n in range(4):
        await backends.commands.add([command(f"c{n}", A1 if n % 2 else A2)])
        clock.advance(1)
    await backends.commands.claim([A1])
    await backends.commands.mark_sent(["c1"])
    assert ids(await backends.commands.list()) == ["c3", "c2", "c1", "c0"]
    assert ids(await backends.commands.list(limit=2)) == ["c3", "c2"]
    assert ids(await backends.commands.list(agent_id=A1)) == ["c3", "c1"]
    assert ids(await backends.commands.list(status="pending")) == ["c3", "c2", "c0"]
    assert ids(await backends.commands.list(status="sent", agent_id=A1)) == ["c1"]
    assert ids(await backends.commands.list(status="failed")) == []


async def test_pages_are_the_whole_list(harness: Harness, backends: Backends, clock: Clock) -> None:
    await backends.commands.add([command(f"c{number}", A1 if number % 3 else A2) for number in range(503)])
    await harness.refreshed()
    wanted: list[dict[str, Any]] = [{}, {"agent_id": A1}, {"status": "pending", "agent_id": A2}, {"status": "failed"}]
    for options in wanted:
        pages = [page async for page in backends.commands.pages(**options)]
        found = [one for page in pages for one in page]
        listed = await backends.commands.list(limit=2000, **options)
        assert len(set(ids(found))) == len(found) == len(listed)
        assert sorted(ids(found)) == sorted(ids(listed))
        assert max(map(len, pages), default=0) <= 500


async def test_a_delivered_set_group_is_applied(harness: Harness, backends: Backends) -> None:
    """Where commands are this store's to keep; elsewhere the registry is changed by those who posted it."""
    await harness.enrol(A1, groups=("default",))
    await backends.commands.add([Command("c1", Target("agent", A1), Action("set-group", None, {"groups": ["a", "b"]}))])
    await backends.commands.claim([A1])
    agent = await backends.agents.get(A1)
    assert agent is not None
    assert agent.groups == ("default",)
    await backends.commands.mark_sent(["c1"])
    agent = await backends.agents.lookup(A1)
    assert agent is not None
    assert agent.groups == (("a", "b") if backends.commands.keeps_posted else ("default",))


async def test_a_set_group_that_cant_be_delivered_changes_no_group(harness: Harness, backends: Backends) -> None:
    await harness.enrol(A1, groups=("default",))
    await backends.commands.add([Command("c1", Target("agent", A1), Action("set-group", None, {"groups": ["a", "b"]}))])
    await backends.commands.claim([A1])
    report = CommandReport(A1, "c1", CommandResult(message="too large"), is_received=False)
    for _ in range(2):
        assert [one.status for one in await backends.commands.report([report])] == [200]
    await backends.commands.release(["c1"])
    failed = await backends.commands.get("c1")
    assert failed is not None
    assert (failed.status, failed.sent_at, failed.result) == ("failed", None, CommandResult(message="too large"))
    agent = await backends.agents.lookup(A1)
    assert agent is not None
    assert agent.groups == ("default",)


async def test_another_process_sends_a_command(harness: Harness, backends: Backends) -> None:
    if harness.second is None:
        pytest.skip("one process only")
    async with harness.second() as others:
        await others.commands.add([command("c1")])
        assert set(await news(backends)) == {A1}
        assert ids(await backends.commands.claim([A1])) == ["c1"]
        assert ids(await others.commands.claim([A1])) == []
        returned = await others.commands.cancel("c1")
        assert returned is not None
        assert returned.status == "pending"


async def test_a_release_that_comes_again_frees_nothing_of_anothers(harness: Harness, backends: Backends) -> None:
    """The answer to the first one was lost, say."""
    if harness.second is None:
        pytest.skip("one process only")
    async with harness.second() as others:
        await backends.commands.add([command("c1")])
        assert ids(await backends.commands.claim([A1])) == ["c1"]
        await backends.commands.release(["c1"])
        assert set(await news(others)) == {A1}
        assert ids(await others.commands.claim([A1])) == ["c1"]
        await backends.commands.release(["c1"])
        assert ids(await backends.commands.claim([A1])) == []


async def test_the_claims_of_one_who_went_are_taken_over(harness: Harness, backends: Backends) -> None:
    if harness.second is None:
        pytest.skip("one process only")
    async with harness.second() as others:
        await others.commands.add([command("c1")])
        assert ids(await others.commands.claim([A1])) == ["c1"]
        assert not await backends.commands.claim([A1])
    await backends.commands.expire()
    assert set(await news(backends)) == {A1}
    assert ids(await backends.commands.claim([A1])) == ["c1"]


@pytest.mark.expects_errors
async def test_an_outage_is_a_passing_failure(harness: Harness, backends: Backends) -> None:
    if harness.outage is None:
        pytest.skip("no outages to be had")
    async with harness.outage():
        with pytest.raises(BackendUnavailable):
            await backends.commands.add([command("c1")])
        with pytest.raises(BackendUnavailable):
            await backends.commands.get("c1")
    await backends.commands.add([command("c1")])
    assert ids(await backends.commands.claim([A1])) == ["c1"]
