"""The contract of ``CommandStore``: how commands end, by an agent's report, by time or by an operator."""

import pytest
import trio

from tests.contract.commands import command, deliver, get, ids
from tests.contract.harness import A1, A2, Clock, Harness
from wazuh_comms_trio.backends.interfaces import (
    Action,
    Backends,
    Command,
    CommandReport,
    CommandResult,
    Outcome,
    Target,
)


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


async def test_of_two_nodes_reports_at_once_one_stands(harness: Harness, backends: Backends) -> None:
    """The first delivery's report and the second's come to different nodes."""
    if harness.second is None:
        pytest.skip("one at a time")
    names = [f"c{number}" for number in range(6)]
    await deliver(backends, *names)
    async with harness.second() as others:
        for name in names:
            statuses = []

            async def report(store: Backends, name: str, code: int, statuses: list[int]) -> None:
                results = await store.commands.report([CommandReport(A1, name, CommandResult(code, str(code)))])
                statuses += [result.status for result in results if result.outcome is Outcome.DONE]

            async with trio.open_nursery() as nursery:
                nursery.start_soon(report, backends, name, 0, statuses)
                nursery.start_soon(report, others, name, 1, statuses)
            assert set(statuses) == {200}  # one that lost the race may be told to come again
            ended = await get(backends, name)
            assert ended.result in (CommandResult(0, "0"), CommandResult(1, "1"))
            for store in (others, backends):
                await store.commands.report([CommandReport(A1, name, CommandResult(3, "later"))])
            assert await get(backends, name) == await get(others, name) == ended
            assert (ended.status == "success") == (ended.result == CommandResult(0, "0"))


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


async def test_begun_before_the_delivery_is_confirmed_and_never_ended(backends: Backends, clock: Clock) -> None:
    """Its time counts from the report, which shows that the agent has it."""
    await backends.commands.add([command("c1", timeout=10)])
    clock.advance(5)
    await backends.commands.claim([A1])
    await backends.commands.report([CommandReport(A1, "c1", CommandResult(2, "working"))])
    await backends.commands.mark_sent(["c1"])
    clock.advance(9)
    await backends.commands.expire()
    assert (await get(backends, "c1")).status == "sent"
    clock.advance(2)
    await backends.commands.expire()
    ended = await get(backends, "c1")
    assert (ended.status, ended.result) == ("failed", CommandResult(message="no answer"))


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
