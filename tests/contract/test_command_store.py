"""The contract of ``CommandStore``."""

from collections.abc import Collection
from typing import Any

import pytest
import trio

from tests.contract.harness import A1, A2, A3, Clock, Harness
from wazuh_comms_trio.backends.interfaces import (
    Action,
    Backends,
    Command,
    CommandReport,
    CommandResult,
    Outcome,
    Target,
)
from wazuh_comms_trio.errors import BackendUnavailable


def command(document_id: str, agent_id: str = A1, **more: Any) -> Command:
    return Command(document_id, Target("agent", agent_id), Action("restart"), **more)


async def get(backends: Backends, document_id: str) -> Command:
    found = await backends.commands.get(document_id)
    assert found is not None
    return found


async def deliver(backends: Backends, *document_ids: str, agent_id: str = A1) -> None:
    await backends.commands.add([command(document_id, agent_id) for document_id in document_ids])
    claimed = await backends.commands.claim([agent_id])
    await backends.commands.mark_sent([c.document_id for c in claimed])


def ids(commands: Collection[Command]) -> list[str]:
    return [c.document_id for c in commands]


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


async def test_an_agent_reports(backends: Backends, clock: Clock) -> None:
    await deliver(backends, "c1", "c2", "c3", "c4", "c5")
    clock.advance(1)
    results = await backends.commands.report(
        [
            CommandReport(A1, f"c{n}", CommandResult(code, f"m{code}", {"k": code}))
            for n, code in ((1, 0), (2, 1), (3, 2), (4, 3), (5, 4))
        ]
    )
    assert [(r.status, r.outcome) for r in results] == [(200, Outcome.DONE)] * 5
    stored = [await get(backends, f"c{n}") for n in range(1, 6)]
    assert [c.status for c in stored] == ["success", "failed", "sent", "failed", "failed"]
    assert stored[0].result == CommandResult(0, "m0", {"k": 0})


async def test_an_equal_report_again_is_a_success(backends: Backends) -> None:
    await deliver(backends, "c1")
    report = CommandReport(A1, "c1", CommandResult(0, "done"))
    for _ in range(2):
        (result,) = await backends.commands.report([report])
        assert (result.status, result.outcome) == (200, Outcome.DONE)
    assert (await get(backends, "c1")).status == "success"


async def test_progress_then_the_end(backends: Backends) -> None:
    await deliver(backends, "c1")
    await backends.commands.report([CommandReport(A1, "c1", CommandResult(2, "working"))])
    await backends.commands.report([CommandReport(A1, "c1", CommandResult(0, "done"))])
    await backends.commands.report([CommandReport(A1, "c1", CommandResult(2, "working"))])
    ended = await get(backends, "c1")
    assert (ended.status, ended.result) == ("success", CommandResult(0, "done"))


@pytest.mark.parametrize("first", [0, 1, 3, 4])
@pytest.mark.parametrize("together", [False, True])
async def test_the_first_final_report_stands(backends: Backends, first: int, together: bool) -> None:
    """A command that is delivered twice, after a crash, comes back as failed the second time: the agent has it."""
    await deliver(backends, "c1")
    reports = [
        CommandReport(A1, "c1", CommandResult(code, text, {"k": text}))
        for code, text in ((2, "working"), (first, "ended"), (1, "it is there"), (2, "working"), (0, "done"))
    ]
    calls = [reports] if together else [[report] for report in reports]
    results = [result for call in calls for result in await backends.commands.report(call)]
    assert [(result.status, result.outcome) for result in results] == [(200, Outcome.DONE)] * 5
    assert [result.result for result in results] == ["updated", "updated", "noop", "noop", "noop"]
    ended = await get(backends, "c1")
    assert ended.status == ("success" if first == 0 else "failed")
    assert ended.result == CommandResult(first, "ended", {"k": "ended"})


@pytest.mark.parametrize("first", [0, 1])
async def test_after_no_answer_a_report_counts_once(backends: Backends, clock: Clock, first: int) -> None:
    await deliver(backends, "c1")
    clock.advance(101)
    await backends.commands.expire()
    assert (await get(backends, "c1")).result == CommandResult(message="no answer")
    for code, text in ((first, "late"), (1, "it is there"), (0, "done")):
        (result,) = await backends.commands.report([CommandReport(A1, "c1", CommandResult(code, text))])
        assert result.status == 200
    clock.advance(101)
    await backends.commands.expire()
    ended = await get(backends, "c1")
    assert (ended.status, ended.result) == ("success" if first == 0 else "failed", CommandResult(first, "late"))


async def test_a_groups_children_end_each_as_its_agent_said_first(harness: Harness, backends: Backends) -> None:
    await harness.enrol(A1, groups=("web",))
    await harness.enrol(A2, groups=("web",))
    await backends.commands.add([Command("p", Target("group", "web"), Action("restart"))])
    await backends.commands.mark_sent(ids(await backends.commands.claim([A1, A2])))
    for code, text in ((0, "done"), (1, "it is there")):
        await backends.commands.report([CommandReport(A1, f"p_{A1}", CommandResult(code, text))])
    for code, text in ((1, "not here"), (0, "done")):
        await backends.commands.report([CommandReport(A2, f"p_{A2}", CommandResult(code, text))])
    ended = [(await get(backends, f"p_{agent_id}")) for agent_id in (A1, A2)]
    assert [command.status for command in ended] == ["success", "failed"]
    assert [command.result for command in ended] == [CommandResult(0, "done"), CommandResult(1, "not here")]
    assert (await get(backends, "p")).status == "sent"


async def test_reports_on_what_is_not_theirs_are_refused(backends: Backends) -> None:
    await deliver(backends, "c1")
    await backends.commands.add([command("c2"), command("c3", A2)])
    results = await backends.commands.report(
        [
            CommandReport(A2, "c1", CommandResult(0)),  # another agent's
            CommandReport(A1, "c2", CommandResult(0)),  # never offered
            CommandReport(A1, "unknown", CommandResult(0)),
            CommandReport(A1, "c1", CommandResult(0)),
        ]
    )
    refused, done = (400, Outcome.REFUSED), Outcome.DONE
    assert [(r.status, r.outcome) for r in results] == [refused, refused, (404, done), (200, done)]
    assert (await get(backends, "c2")).status == "pending"


async def test_a_report_may_come_before_the_delivery_is_confirmed(backends: Backends) -> None:
    await backends.commands.add([command("c1"), command("c2")])
    await backends.commands.claim([A1])
    results = await backends.commands.report([CommandReport(A1, f"c{n}", CommandResult(0)) for n in (1, 2)])
    assert [r.status for r in results] == [200, 200]
    await backends.commands.mark_sent(["c1"])
    await backends.commands.release(["c2"])
    for document_id in ("c1", "c2"):
        assert (await get(backends, document_id)).status == "success"
    assert not await backends.commands.claim([A1])


async def test_a_report_counts_after_a_delivery_that_looked_broken(backends: Backends) -> None:
    await backends.commands.add([command("c1")])
    await backends.commands.claim([A1])
    await backends.commands.release(["c1"])
    (result,) = await backends.commands.report([CommandReport(A1, "c1", CommandResult(0))])
    assert result.status == 200
    assert (await get(backends, "c1")).status == "success"
    assert not await backends.commands.claim([A1])


async def test_pending_ends_with_its_timeout(backends: Backends, clock: Clock) -> None:
    await backends.commands.add([command("c1", timeout=10), command("c2", timeout=20)])
    clock.advance(10)
    await backends.commands.expire()
    assert (await get(backends, "c1")).status == "pending"
    clock.advance(1)
    assert ids(await backends.commands.claim([A1])) == ["c2"]  # what is overdue isn't offered
    await backends.commands.release(["c2"])
    await backends.commands.expire()
    ended = await get(backends, "c1")
    assert ended.status == "failed"
    assert ended.result is not None
    assert ended.result.message
    assert (await get(backends, "c2")).status == "pending"


async def test_what_is_being_offered_does_not_expire_meanwhile(backends: Backends, clock: Clock) -> None:
    await backends.commands.add([command("c1", timeout=10)])
    await backends.commands.claim([A1])
    clock.advance(11)
    await backends.commands.expire()
    await backends.commands.mark_sent(["c1"])
    assert (await get(backends, "c1")).status == "sent"


async def test_sent_and_not_answered(backends: Backends, clock: Clock) -> None:
    await backends.commands.add([command("c1", timeout=10), command("c2", timeout=10)])
    clock.advance(8)
    await backends.commands.claim([A1])
    await backends.commands.mark_sent(["c1", "c2"])
    clock.advance(9)
    await backends.commands.expire()
    assert (await get(backends, "c1")).status == "sent"
    clock.advance(2)
    await backends.commands.expire()
    ended = await get(backends, "c1")
    assert ended.status == "failed"
    assert ended.result is not None
    assert ended.result.message == "no answer"
    (late,) = await backends.commands.report([CommandReport(A1, "c2", CommandResult(0, "late"))])
    assert late.status == 200
    assert (await get(backends, "c2")).status == "success"
    clock.advance(100)
    await backends.commands.expire()
    assert (await get(backends, "c2")).status == "success"


async def test_cancel(backends: Backends) -> None:
    await deliver(backends, "sent")
    await backends.commands.add([command("c1")])
    cancelled = await backends.commands.cancel("c1")
    assert cancelled is not None
    assert cancelled.status == "failed"
    assert cancelled.result is not None
    assert cancelled.result.message == "cancelled"
    assert await get(backends, "c1") == cancelled
    assert await backends.commands.cancel("c1") == cancelled
    sent = await backends.commands.cancel("sent")
    assert sent is not None
    assert sent.status == "sent"
    assert await backends.commands.cancel("unknown") is None
    assert not await backends.commands.claim([A1])


async def test_what_is_being_handed_over_is_not_cancelled(backends: Backends) -> None:
    await backends.commands.add([command("c1")])
    await backends.commands.claim([A1])
    returned = await backends.commands.cancel("c1")
    assert returned is not None
    assert returned.status == "pending"
    await backends.commands.mark_sent(["c1"])
    assert (await get(backends, "c1")).status == "sent"


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
