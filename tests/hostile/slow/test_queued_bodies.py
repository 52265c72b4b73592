"""One agent's whole bodies, which wait for each other, hold no more than its share of the budget while others wait."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.hostile.slow.test_slow_bodies import BATCH, LIMIT, Sender, bodies
from tests.hostile.slow.test_slow_replies import have_room
from wazuh_comms_trio.http.server.bodies import FREE_BYTES
from wazuh_comms_trio.http.server.body_budget import PATIENCE, Share
from wazuh_comms_trio.http.server.room import QUEUED_BODIES

PATHS = ["/api/v1/events/stateful", "/api/v1/vulnerability/scan"]


def whole(count: int, owner: str = "thief", path: str = PATHS[0]) -> list[Sender]:
    return [Sender(BATCH, owner, burst=BATCH, path=path) for _ in range(count)]


@pytest.mark.parametrize("path", PATHS)
async def test_one_agents_make_room_for_a_share(path: str, autojump_clock: MockClock) -> None:
    """They held all of it until their time was over, and everybody else got 503."""
    thief = whole(LIMIT // BATCH, path=path)
    async with bodies() as (app, server), trio.open_nursery() as nursery:
        server.fakes.stateful.waits = server.fakes.scans.takes = 50
        for sender in thief:
            nursery.start_soon(sender.run, server)
            await wait_all_tasks_blocked()
        app.body_budget.hold(Share("a large reply"), LIMIT + 1 - app.body_budget.used_bytes)
        assert await have_room(app, "somebody") == PATIENCE
        await wait_all_tasks_blocked()
        # A tenth, and what was one byte too many; the newest of them.
        assert [(sender.status, sender.retry_after) for sender in thief[-3:]] == [(503, "5")] * 3
        assert {sender.status for sender in thief[:-3]} == {0}
        assert app.services.refusals.by_cause == {QUEUED_BODIES: 3}
        nursery.cancel_scope.cancel()


async def test_the_replies_to_small_ones_have_a_share_at_most(autojump_clock: MockClock) -> None:
    """Such bodies hold nothing, and may be written at any time, so that none is ended; room was kept for all of their
    replies, and others had none until their time was over."""
    reply = LIMIT // 100
    thief = [Sender(FREE_BYTES, burst=FREE_BYTES, size=FREE_BYTES) for _ in range(LIMIT // reply)]
    async with bodies() as (app, server), trio.open_nursery() as nursery:
        server.fakes.stateful.expected, server.fakes.stateful.waits = reply, 50
        for sender in thief:
            nursery.start_soon(sender.run, server)
        await wait_all_tasks_blocked()
        assert app.body_budget.used_bytes == LIMIT // 10
        assert sorted(sender.status for sender in thief) == [0] * 10 + [503] * (len(thief) - 10)
        assert await have_room(app, "somebody") == 0
        nursery.cancel_scope.cancel()


async def test_nobody_is_ended_while_nobody_waits(autojump_clock: MockClock) -> None:
    thief = whole(LIMIT // BATCH)
    async with bodies(*thief) as (app, server):
        server.fakes.stateful.waits = 50
        await trio.sleep(60)
        assert {sender.status for sender in thief} == {200}
        assert not app.services.refusals.by_cause


@pytest.mark.parametrize("kind", ["begun", "of many agents"])
async def test_others_are_not_ended(kind: str, autojump_clock: MockClock) -> None:
    """What is begun is answered; and a share is an agent's, although others wait."""
    count = LIMIT // BATCH
    senders = whole(count) if kind == "begun" else [one for number in range(count) for one in whole(1, f"a{number}")]
    async with bodies() as (app, server), trio.open_nursery() as nursery:
        stateful = server.fakes.stateful
        stateful.waits, stateful.takes = (0, 20) if kind == "begun" else (20, 0)
        for sender in senders:
            nursery.start_soon(sender.run, server)
        await wait_all_tasks_blocked()
        app.body_budget.hold(other := Share("a large reply"), LIMIT + 1 - app.body_budget.used_bytes)
        with trio.move_on_after(10) as waiting:
            await have_room(app, "somebody")
        assert waiting.cancelled_caught
        await trio.sleep(15)
        app.body_budget.give_back(other)
        assert {sender.status for sender in senders} == {200}
        assert not app.services.refusals.by_cause
        nursery.cancel_scope.cancel()
