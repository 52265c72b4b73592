"""Bodies: streamed, collected, skipped; and how much memory those in the making may take together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from wazuh_comms_trio.errors import BackendUnavailable, BodyTooLarge, ClientDisconnected
from wazuh_comms_trio.http.server.bodies import (
    FREE_BYTES,
    BodyBudget,
    BodyChunks,
    collect_body,
    content_length,
    skip_body,
)
from wazuh_comms_trio.http.server.body_budget import Share

DISCONNECT = {"type": "http.disconnect"}


def body_messages(parts: Sequence[bytes]) -> list[dict[str, Any]]:
    return [
        {"type": "http.request", "body": part, "more_body": number + 1 < len(parts)}
        for number, part in enumerate(parts)
    ]


def receiver(messages: Sequence[dict[str, Any]], interval: float = 0) -> Callable[[], Awaitable[dict[str, Any]]]:
    left = list(messages)

    async def receive() -> dict[str, Any]:
        await trio.sleep(interval)
        return left.pop(0)

    return receive


async def collect(parts: Sequence[bytes], limit: int = 10**9, budget: BodyBudget | None = None) -> bytes:
    budget = budget or BodyBudget(10**9)
    async with collect_body(receiver(body_messages(parts)), limit=limit, budget=budget, room_timeout=10) as body:
        return bytes(body)


async def test_collected_whole() -> None:
    assert await collect([b""]) == b""
    assert await collect([b"one"]) == b"one"
    assert await collect([b"one", b"", b"two", b""]) == b"onetwo"


async def test_a_body_in_one_message_isnt_copied() -> None:
    part = b"x" * 1000
    receive = receiver(body_messages([part]))
    async with collect_body(receive, limit=1000, budget=BodyBudget(0), room_timeout=1) as body:
        assert body is part


@pytest.mark.parametrize("parts", [[b"12345"], [b"123", b"45"], [b"1", b"2", b"3", b"45", b"6"]])
async def test_a_limit_of_its_own(parts: list[bytes]) -> None:
    with pytest.raises(BodyTooLarge):
        await collect(parts, limit=4)
    assert await collect([b"12", b"34"], limit=4) == b"1234"


@pytest.mark.parametrize("before", [[], body_messages([b"1", b"2"])[:1]])
async def test_a_peer_that_leaves(before: list[dict[str, Any]]) -> None:
    messages = [*before, DISCONNECT]
    with pytest.raises(ClientDisconnected):
        async with collect_body(receiver(messages), limit=9, budget=BodyBudget(9), room_timeout=1):
            raise AssertionError
    with pytest.raises(ClientDisconnected):
        await skip_body(receiver(messages))
    chunks = BodyChunks(receiver(messages), lambda: None)
    with pytest.raises(ClientDisconnected):
        [chunk async for chunk in chunks]


async def test_chunks() -> None:
    ended: list[bool] = []
    chunks = BodyChunks(receiver(body_messages([b"one", b"", b"two", b""])), lambda: ended.append(True))
    assert [chunk async for chunk in chunks] == [b"one", b"two"]
    assert ended == [True]
    assert [chunk async for chunk in chunks] == []


@pytest.mark.parametrize(
    ("headers", "length"),
    [([], 0), ([(b"content-length", b"17")], 17), ([(b"host", b"x"), (b"transfer-encoding", b"chunked")], None)],
)
def test_content_length(headers: list[tuple[bytes, bytes]], length: int | None) -> None:
    assert content_length({"headers": headers}) == length


# --- the budget


PART = b"x" * 65536
LARGE = [PART] * 4  # of which two are counted: what follows the free bytes


async def test_what_is_counted_is_given_back() -> None:
    budget = BodyBudget(10**6)
    async with collect_body(receiver(body_messages(LARGE)), limit=10**6, budget=budget, room_timeout=1):
        assert budget.used_bytes == sum(map(len, LARGE)) - FREE_BYTES - len(PART)
    assert budget.used_bytes == 0
    with pytest.raises(BodyTooLarge):
        await collect(LARGE, limit=200_000, budget=budget)
    assert budget.used_bytes == 0


async def test_strangers_bodies_are_counted_from_their_second_part(autojump_clock: MockClock) -> None:
    budget = BodyBudget(100)
    parts = body_messages([b"x" * 60, b"x" * 60, b"x"])
    async with collect_body(receiver(parts), limit=1000, budget=budget, room_timeout=1, free_bytes=0):
        assert budget.used_bytes == 61


async def test_small_bodies_ask_for_nothing(autojump_clock: MockClock) -> None:
    budget = BodyBudget(0)
    await budget.take(Share(), 1)  # used up
    assert await collect([b"x" * 1000, b"y"], budget=budget) == b"x" * 1000 + b"y"


async def test_bodies_wait_for_each_other_and_all_get_done(autojump_clock: MockClock) -> None:
    """There is room for less than one of them, so they go one after the other, however they arrive."""
    budget = BodyBudget(70_000)
    most = 0

    async def one(interval: float) -> None:
        nonlocal most
        receive = receiver(body_messages(LARGE), interval)
        async with collect_body(receive, limit=10**6, budget=budget, room_timeout=1000) as body:
            most = max(most, budget.used_bytes)
            assert len(body) == 4 * len(PART)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(one, 0.1 * number)
    assert budget.used_bytes == 0
    # The senior's whole body, and what the others had when it became one.
    assert most <= 70_000 + 2 * len(PART) + len(PART)


async def test_no_room_in_time_is_503(autojump_clock: MockClock) -> None:
    budget = BodyBudget(100)
    holder = Share()
    await budget.take(holder, 200)
    began = trio.current_time()
    with pytest.raises(BackendUnavailable):
        async with collect_body(receiver(body_messages(LARGE)), limit=10**6, budget=budget, room_timeout=7):
            raise AssertionError
    assert trio.current_time() - began == pytest.approx(7)
    budget.give_back(holder)
    assert budget.used_bytes == 0
    assert len(await collect(LARGE, budget=budget)) == 4 * len(PART)


async def test_the_wait_limit_never_becomes_negative(mock_clock: MockClock) -> None:
    """The room came in time, and the loop was late: the next part may wait no longer, and needs no wait."""
    budget = BodyBudget(4 * len(PART))
    holder = Share()
    await budget.take(holder, 5 * len(PART))
    received = []

    async def one() -> None:
        receive = receiver(body_messages([*LARGE, PART, PART]))
        async with collect_body(receive, limit=10**6, budget=budget, room_timeout=7) as body:
            received.append(len(body))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        await wait_all_tasks_blocked()
        budget.give_back(holder)
        mock_clock.jump(8)
    assert received == [6 * len(PART)]
    assert budget.used_bytes == 0


async def test_those_that_wait_dont_wake_each_other(autojump_clock: MockClock) -> None:
    """Room that isn't enough for anybody is looked at once by each."""

    class Watched(BodyBudget):
        looks = 0

        def _may_take(self, share: Share, size: int) -> bool:
            self.looks += 1
            assert self.looks < 100
            return super()._may_take(share, size)

    budget, senior = Watched(100), Share("a")
    await budget.take(senior, 200)
    async with trio.open_nursery() as nursery:
        for owner in ("b", "c"):
            nursery.start_soon(budget.take, Share(owner), 10)
        await wait_all_tasks_blocked()
        before = budget.looks
        budget.hold(senior, 150)
        await wait_all_tasks_blocked()
        assert budget.looks == before + 2
        budget.give_back(senior)
    assert budget.used_bytes == 20


async def test_a_cancelled_wait_takes_nothing(autojump_clock: MockClock) -> None:
    budget = BodyBudget(100)
    holder, waiter = Share(), Share()
    await budget.take(holder, 200)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(budget.take, waiter, 50)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert waiter.held_bytes == 0
    budget.give_back(holder)
    assert budget.used_bytes == 0
