"""Claims of commands on the fake OpenSearch and the mock clock: several nodes, leases, lost answers."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.indexer.bench import A1, fake, wall_clock
from tests.indexer.stores.commands.nodes import INDEX, LEASE, ids, news, nodes, put, source
from wazuh_comms_trio.backends.opensearch.stores import OpenSearchStores
from wazuh_comms_trio.errors import BackendUnavailable

# --- claims of several nodes ---


async def test_each_is_claimed_once(autojump_clock: MockClock) -> None:
    async with fake() as server, nodes(server, 4) as all_nodes:
        server.faults.false_conflicts = 25
        for number in range(200):
            put(server, f"c{number}", f"agent-{number % 10}")
        got: list[str] = []

        async def work(node: OpenSearchStores) -> None:
            agents = [f"agent-{n}" for n in range(10)]
            while len(got) < 200:
                with trio.move_on_after(5):
                    await node.commands.wait_news()
                claimed = ids(await node.commands.claim(agents))
                got.extend(claimed)
                await node.commands.mark_sent(claimed)

        with trio.fail_after(200):
            async with trio.open_nursery() as nursery:
                for node in all_nodes:
                    nursery.start_soon(work, node)
        assert sorted(got) == sorted(f"c{n}" for n in range(200))
        assert {source(server, i)["command"]["status"] for i in got} == {"sent"}


async def test_the_claims_of_a_node_that_died_are_taken_over(autojump_clock: MockClock) -> None:
    async with fake() as server, nodes(server) as (alive,):
        put(server, "c1")
        server.indices[INDEX].update("c1", {"delivery": {"token": "dead.1", "offered": True}}, None)
        began = trio.current_time()
        assert await news(alive.commands) == {A1}
        assert LEASE <= trio.current_time() - began < LEASE + 6
        assert ids(await alive.commands.claim([A1])) == ["c1"]


async def test_a_claim_that_is_held_is_renewed(autojump_clock: MockClock) -> None:
    async with fake() as server, nodes(server, 2) as (holder, other):
        put(server, "c1")
        await news(holder.commands)
        assert ids(await holder.commands.claim([A1])) == ["c1"]
        with trio.move_on_after(10 * LEASE) as scope:
            await other.commands.wait_news()
        assert scope.cancelled_caught
        assert await other.commands.claim([A1]) == []
        await holder.commands.release(["c1"])
        assert await news(other.commands) == {A1}
        assert ids(await other.commands.claim([A1])) == ["c1"]


async def test_a_node_that_stops_gives_its_claims_back(autojump_clock: MockClock) -> None:
    async with fake() as server, nodes(server) as (other,):
        put(server, "c1")
        async with nodes(server) as (node,):
            await news(node.commands)
            assert ids(await node.commands.claim([A1])) == ["c1"]
        assert source(server, "c1")["delivery"]["token"] is None
        assert await news(other.commands, within=6) == {A1}


@pytest.mark.parametrize("lost", ["answer", "patience"])
async def test_a_claim_whose_answer_was_lost_is_ours_again(autojump_clock: MockClock, lost: str) -> None:
    async with fake() as server, nodes(server, 2) as (node, other):
        put(server, "c1")
        await news(node.commands)
        await news(other.commands)
        if lost == "answer":
            server.faults.lost = 1
            with pytest.raises(BackendUnavailable):
                await node.commands.claim([A1])
        else:

            async def slow(method: str, path: str) -> None:
                if path == "/_bulk":
                    server.faults.before = None
                    with trio.CancelScope(shield=True):
                        await trio.sleep(0.5)

            server.faults.before = slow
            with trio.move_on_after(0.2):
                await node.commands.claim([A1])
            await trio.sleep(1)
        assert source(server, "c1")["delivery"]["token"].startswith(node.commands._pending.node)
        assert await news(node.commands, within=6) == {A1}
        assert ids(await node.commands.claim([A1])) == ["c1"]
        assert await other.commands.claim([A1]) == []


# --- marks ---


async def test_a_mark_that_cannot_be_stored_is_stored_later(autojump_clock: MockClock) -> None:
    async with fake() as server, nodes(server) as (node,):
        put(server, "c1")
        await news(node.commands)
        await node.commands.claim([A1])
        delivered_at = wall_clock()
        server.go_down()
        with pytest.raises(BackendUnavailable):
            await node.commands.mark_sent(["c1"])
        await trio.sleep(60)
        server.up = True
        with trio.move_on_after(30):
            await node.commands.wait_news()
        assert source(server, "c1")["command"]["status"] == "sent"
        stored = await node.commands.get("c1")
        assert stored is not None
        assert stored.sent_at == pytest.approx(delivered_at, abs=0.01)
        assert await node.commands.claim([A1]) == []


async def test_what_was_delivered_is_sent_whoever_has_it_now(autojump_clock: MockClock) -> None:
    async with fake() as server, nodes(server) as (node,):
        put(server, "c1")
        await news(node.commands)
        await node.commands.claim([A1])
        server.indices[INDEX].update("c1", {"delivery": {"token": "thief.1"}}, None)
        await node.commands.mark_sent(["c1"])
        assert source(server, "c1")["command"]["status"] == "sent"


async def test_a_document_that_went_is_no_error(autojump_clock: MockClock) -> None:
    async with fake() as server, nodes(server) as (node,):
        put(server, "c1")
        await news(node.commands)
        await node.commands.claim([A1])
        server.indices[INDEX].delete("c1")
        await node.commands.mark_sent(["c1"])
        await node.commands.release(["c1"])
        assert await node.commands.get("c1") is None
        assert await node.commands.claim([A1]) == []
