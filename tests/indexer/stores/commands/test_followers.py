"""What a worker that isn't its node's leader knows of pending commands, and forgets."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from tests.indexer.bench import A1, fake, stores_of, wall_clock
from tests.indexer.stores.commands.nodes import ids, news, put
from tests.indexer.stores.commands.test_exchange import Recording
from wazuh_comms_trio.backends.opensearch.commands.discovery import _FORGET_INTERVAL


async def test_what_looks_overdue_for_a_moment_is_not_forgotten(autojump_clock: MockClock) -> None:
    """Its document doesn't change, so the leader wouldn't tell of it again."""
    ahead = 0.0
    leader, follower = Recording(leader=True), Recording(leader=False)
    leader.others.append(follower)
    follower.others.append(leader)

    def clock() -> float:
        return wall_clock() + ahead

    async with (
        fake() as server,
        stores_of(server, leadership=leader, wall_clock=clock) as one,
        stores_of(server, leadership=follower, wall_clock=clock) as other,
    ):
        put(server, "c1", timeout=10_000)
        for stores in (one, other):
            assert await news(stores.commands) == {A1}
        discovery = other.commands._discovery
        for seconds in (100_000.0, 0.0, 100_000.0, 0.0):
            ahead = seconds
            looked_at = discovery._looked_at
            with trio.fail_after(100):
                while discovery._looked_at == looked_at:  # noqa: ASYNC110  # mock clock
                    await trio.sleep(0.1)
        assert ids(await other.commands.claim([A1])) == ["c1"]


async def test_what_stays_overdue_is_forgotten(autojump_clock: MockClock) -> None:
    """Also where the leader can't say so."""
    leader, follower = Recording(leader=True), Recording(leader=False)
    leader.others.append(follower)
    async with (
        fake() as server,
        stores_of(server, leadership=leader) as one,
        stores_of(server, leadership=follower) as other,
    ):
        put(server, "c1", timeout=30)
        for stores in (one, other):
            assert await news(stores.commands) == {A1}
        leader.others.clear()
        await trio.sleep(31 + 4 * _FORGET_INTERVAL)
        assert not other.commands._pending._known
