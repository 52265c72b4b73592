"""What is tried apart, since its index takes nothing: how much of it there is, and what else waits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.services.bench import A1, Stateful, body, caller, event, gather, open_stateful, results
from wazuh_comms_trio.backends.interfaces import DocumentOperation, ItemResult, Outcome
from wazuh_comms_trio.errors import BackendUnavailable, Overloaded
from wazuh_comms_trio.services.stateful.batcher import MAX_WAITING

SCA = "wazuh-states-sca"
NOT_NOW = ItemResult(503, "not now", Outcome.PASSING)


def close(stateful: Stateful) -> None:
    stateful.backends.events.judge = lambda one: NOT_NOW if one.index == SCA else None


def agents(count: int, kind: str) -> list[str]:
    return [f"{A1[:-4]}{kind}{number:03x}" for number in range(count)]


async def fail(stateful: Stateful, agent_id: str, packet: bytes) -> None:
    with pytest.raises(BackendUnavailable):
        await stateful.submit(packet, agent_id)


async def test_others_find_room_beside_what_waits_behind_it(autojump_clock: MockClock) -> None:
    """A hundred and twenty agents with eight packets each."""
    async with open_stateful() as stateful:
        close(stateful)

        async def other(agent_id: str) -> float:
            await trio.sleep(5)
            began = trio.current_time()
            assert results(await stateful.submit(body(event(), agent_id=agent_id), agent_id)) == [("e1", 201)]
            return trio.current_time() - began

        async with trio.open_nursery() as nursery:
            for one in [one for one in agents(120, "f") for _ in range(8)]:
                nursery.start_soon(fail, stateful, one, body(event("s", module="sca"), agent_id=one))
            took = await gather(*(partial(other, agent_id) for agent_id in agents(10, "a")))
        assert max(took) < 1


async def test_others_find_room_beside_one_agents_packets(autojump_clock: MockClock) -> None:
    """They wait behind its first, before that is known to be of such an index."""
    async with open_stateful() as stateful:
        close(stateful)
        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(fail, stateful, A1, body(event("s", module="sca")))
            await trio.sleep(5)
            (agent_id,) = agents(1, "a")
            reply = await stateful.submit(body(event(), agent_id=agent_id), agent_id)
            assert results(reply) == [("e1", 201)]
            assert trio.current_time() < 6


def big_event(event_id: str = "big", module: str = "fim") -> bytes:
    return event(event_id, data={"text": "x" * 100_000}, module=module)


async def test_others_find_room_beside_what_waits_behind_big_packets_of_such_an_index(
    autojump_clock: MockClock,
) -> None:
    """A hundred and twenty agents with a big packet and seven small ones."""
    async with open_stateful() as stateful:
        close(stateful)
        async with trio.open_nursery() as nursery:
            for one in agents(120, "f"):
                nursery.start_soon(fail, stateful, one, body(big_event(module="sca"), agent_id=one))
            await wait_all_tasks_blocked()
            for one in [one for one in agents(120, "f") for _ in range(7)]:
                nursery.start_soon(fail, stateful, one, body(event("s", module="sca"), agent_id=one))
            await trio.sleep(5)
            (agent_id,) = agents(1, "a")
            reply = await stateful.submit(body(event(), agent_id=agent_id), agent_id)
            assert results(reply) == [("e1", 201)]
            assert trio.current_time() < 6


async def test_others_find_room_beside_one_agents_big_packet(autojump_clock: MockClock) -> None:
    """It takes twenty seconds, as a hundred megabytes do; its agent sends a thousand small ones meanwhile. Another
    agent, that has one behind its own big one, isn't the one that goes."""
    async with open_stateful() as stateful:
        events = stateful.backends.events
        complete = events.bulk
        refused = 0

        async def bulk(operations: Sequence[DocumentOperation], **more: Any) -> Sequence[ItemResult]:
            if any(len(one.body or b"") > 10_000 for one in operations):
                await trio.sleep(20)
            return await complete(operations, **more)

        async def submit(agent_id: str, packet: bytes) -> None:
            nonlocal refused
            try:
                await stateful.submit(packet, agent_id)
            except Overloaded:
                refused += 1

        events.bulk = bulk  # type: ignore[method-assign]
        other, third = agents(2, "a")
        async with trio.open_nursery() as nursery:
            for agent_id in (A1, other):
                nursery.start_soon(submit, agent_id, body(big_event(), agent_id=agent_id))
            await wait_all_tasks_blocked()
            for _ in range(MAX_WAITING):
                nursery.start_soon(submit, A1, body(event("s")))
            await wait_all_tasks_blocked()
            nursery.start_soon(partial(stateful.submit, body(event("o"), agent_id=other), other))
            await trio.sleep(5)
            assert results(await stateful.submit(body(event(), agent_id=third), third)) == [("e1", 201)]
            assert trio.current_time() == 5
        assert MAX_WAITING / 3 < refused < MAX_WAITING


async def test_a_big_packet_that_is_ended_while_it_waits_leaves_its_agent_in_order(autojump_clock: MockClock) -> None:
    """Others wait for the room that its body has."""
    async with open_stateful() as stateful, trio.open_nursery() as nursery:
        stateful.backends.events.faults.hang()
        nursery.start_soon(partial(stateful.submit, body(big_event("first"))))
        await wait_all_tasks_blocked()
        scope = trio.CancelScope()

        @contextmanager
        def queued() -> Iterator[None]:
            with scope:
                yield
            if scope.cancelled_caught:
                raise Overloaded

        async def ended() -> None:
            with pytest.raises(Overloaded):
                await stateful.service.submit(caller(), body(big_event("second")), deadline=30, queued=queued)

        nursery.start_soon(ended)
        await wait_all_tasks_blocked()
        nursery.start_soon(partial(stateful.submit, body(big_event("third"))))
        await wait_all_tasks_blocked()
        scope.cancel()
        await wait_all_tasks_blocked()
        stateful.backends.events.faults.release()
        await wait_all_tasks_blocked()
        assert [id_ for _, id_ in stateful.backends.events.documents] == [f"{A1}_first", f"{A1}_third"]


async def test_a_call_for_pieces_is_bounded_in_bytes(autojump_clock: MockClock) -> None:
    async with open_stateful() as stateful:
        close(stateful)
        events = stateful.backends.events
        complete = events.bulk
        sizes: list[int] = []

        async def bulk(operations: Sequence[DocumentOperation], **more: Any) -> Sequence[ItemResult]:
            sizes.append(sum(len(one.body or b"") for one in operations))
            return await complete(operations, **more)

        events.bulk = bulk  # type: ignore[method-assign]
        big = event("s", data={"text": "x" * 300_000}, module="sca")
        await gather(*(partial(fail, stateful, one, body(big, agent_id=one)) for one in agents(30, "f")))
        assert 600_000 < max(sizes) < 1_500_000


async def test_an_index_isnt_to_blame_for_what_nobody_waits_for(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    """A store that takes long doesn't begin that."""
    async with open_stateful() as stateful:
        events = stateful.backends.events
        complete = events.bulk

        async def bulk(operations: Sequence[DocumentOperation], **more: Any) -> Sequence[ItemResult]:
            await trio.sleep(3)
            return await complete(operations) if more["is_open"](0) else [NOT_NOW] * len(operations)

        events.bulk = bulk  # type: ignore[method-assign]
        for _ in range(2):
            with trio.move_on_after(2):
                await stateful.submit(body(event()))
        await trio.sleep(10)
        assert results(await stateful.submit(body(event()))) == [("e1", 201)]
    assert not caplog.records


async def test_large_events_of_such_an_index_dont_hold_up_others_large_events(autojump_clock: MockClock) -> None:
    """One at a time is in memory, and its index takes nothing for as long as its request lasts: others' would be 503.
    Nor do those of a crowd."""
    async with open_stateful() as stateful:
        close(stateful)
        events = stateful.backends.events
        complete = events.bulk

        async def bulk(operations: Sequence[DocumentOperation], **more: Any) -> Sequence[ItemResult]:
            await trio.sleep(3 if any(one.index == SCA for one in operations) else 0)
            return await complete(operations, **more)

        events.bulk = bulk  # type: ignore[method-assign]

        async def other(event_id: str) -> float:
            (agent_id,) = agents(1, "a")
            began = trio.current_time()
            reply = await stateful.submit(body(large(event_id), agent_id=agent_id), agent_id)
            assert results(reply) == [(event_id, 201)]
            return trio.current_time() - began

        async with trio.open_nursery() as nursery:
            for one in agents(20, "f"):
                nursery.start_soon(fail, stateful, one, body(large(module="sca"), agent_id=one))
            await trio.sleep(0.5)
            assert await other("beside a crowd") < 4
            nursery.start_soon(fail, stateful, A1, body(large(module="sca")))
            await trio.sleep(4)
            assert await other("beside one") < 4


def large(event_id: str = "large", module: str = "fim") -> bytes:
    return event(event_id, data={"text": "x" * 2_000_000}, module=module)
