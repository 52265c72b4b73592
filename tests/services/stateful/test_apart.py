"""What is tried apart, since its index takes nothing: how much of it there is, and what else waits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.services.bench import A1, Stateful, body, event, gather, open_stateful, results
from wazuh_comms_trio.backends.interfaces import DocumentOperation, ItemResult, Outcome
from wazuh_comms_trio.errors import BackendUnavailable

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
