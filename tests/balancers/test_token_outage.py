"""Tokens while the registry can't be read: two nodes on one fake indexer, one of which never saw the agent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import Any, Literal
from uuid import UUID

import pytest
import trio
from attrs import evolve, field, frozen
from cryptography.hazmat.primitives.asymmetric import ec
from trio.testing import MockClock

from tests.backends.embedded.test_leadership import Linked
from tests.indexer.bench import fake, stores_of
from tests.indexer.fake import FakeOpenSearch
from tests.indexer.harness import as_backends, settings
from tests.services.test_tokens import pem
from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.backends.leadership import Leadership
from wazuh_comms_trio.backends.memory.stores import memory_backends
from wazuh_comms_trio.backends.opensearch.agents.cache import FORGET_AFTER, AgentCache
from wazuh_comms_trio.backends.opensearch.agents.shared_revocations import SharedRevocations
from wazuh_comms_trio.backends.opensearch.stores import OpenSearchStores, open_opensearch
from wazuh_comms_trio.config.models import Token
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key
from wazuh_comms_trio.services.authentication.tokens import AUDIENCE, ISSUER, LIFETIME, TokenKeys
from wazuh_comms_trio.testing import AgentClient, Reply, stateful_event, stateless_event
from wazuh_comms_trio.testing.node.daemon import EPOCH, KEY, Daemon, daemon_config, open_daemon

HASH = hash_key(KEY)
EVENTS = [stateless_event("m", "c", {"n": 1})]


@frozen
class Nodes:
    indexer: FakeOpenSearch
    first: Daemon
    second: Daemon
    stores: list[OpenSearchStores]
    # How long a token is good depends on the agent's UUID.
    uuids: Random = field(factory=lambda: Random(7))

    def uuid(self) -> str:
        return str(UUID(int=self.uuids.getrandbits(128), version=4))

    async def agent(self, uuid: str = "") -> AgentClient:
        """Enrolled, logged in on the first node; the second has seen nothing of it."""
        uuid = uuid or self.uuid()
        await self.stores[0].agents.add(Agent(uuid, f"a-{uuid[:8]}", HASH))
        agent = self.first.client(uuid)
        assert (await agent.authenticate()).status == 200
        return agent

    def on_second(self, agent: AgentClient) -> AgentClient:
        moved = self.second.client(agent.uuid)
        moved.token = agent.token
        return moved


@asynccontextmanager
async def two_nodes(outage: Literal["serve", "refuse"] = "serve") -> AsyncIterator[Nodes]:
    config = daemon_config(token=Token(outage=outage))
    began = trio.current_time()

    def clock() -> float:
        return EPOCH + trio.current_time() - began

    async with trio.open_nursery() as nursery:
        fake = FakeOpenSearch(nursery)
        opened: Callable[[], Any] = partial(
            open_opensearch, settings(9200), wall_clock=clock, revocation=10.0, connect=fake.connect
        )
        async with opened() as one, opened() as two:
            memory = memory_backends(wall_clock=clock)
            first, second = (as_backends(each, memory.engine, memory.files) for each in (one, two))
            async with open_daemon(config, backends=first) as a, open_daemon(config, backends=second) as b:
                yield Nodes(fake, a, b, [one, two])
        nursery.cancel_scope.cancel()


async def status(call: Any) -> int:
    reply: Reply = await call
    return reply.status


async def test_a_node_that_never_saw_the_agent_takes_what_needs_no_registry(autojump_clock: MockClock) -> None:
    async with two_nodes() as nodes:
        agent = nodes.on_second(await nodes.agent())
        nodes.indexer.go_down()
        assert await status(agent.post_stateless(EVENTS)) == 204
        assert await status(agent.poll()) == 408  # it was parked for its whole time
        assert await status(agent.get_group_file("other")) == 404
        assert await status(agent.post_stateful([stateful_event("id1", "fim", "create", {"n": 1})])) == 503
        assert await status(agent.authenticate()) == 503
        await trio.sleep(900)
        assert await status(agent.post_stateless(EVENTS)) == 403  # its age counts as ever


async def test_a_signature_is_needed_all_the_same(autojump_clock: MockClock) -> None:
    async with two_nodes() as nodes:
        agent = nodes.on_second(await nodes.agent())
        nodes.indexer.go_down()
        forger = TokenKeys.from_pem(pem(ec.generate_private_key(ec.SECP256R1())))
        agent.token = forger.mint(agent.uuid, "0" * 16, EPOCH)
        assert await status(agent.post_stateless(EVENTS)) == 403
        # Signed by a program that knows no fingerprints: nothing would tell whether it was revoked.
        claims = {"iss": ISSUER, "aud": AUDIENCE, "iat": int(EPOCH), "exp": int(EPOCH) + LIFETIME, "uuid": agent.uuid}
        agent.token = nodes.second.keys.sign(claims)
        assert await status(agent.post_stateless(EVENTS)) == 503


async def test_an_indexer_that_says_nothing(autojump_clock: MockClock) -> None:
    async def silent(method: str, path: str) -> None:
        await trio.sleep_forever()

    async with two_nodes() as nodes:
        agent = nodes.on_second(await nodes.agent())
        nodes.indexer.faults.before = silent
        began = trio.current_time()
        assert await status(agent.post_stateless(EVENTS)) == 204
        assert trio.current_time() - began < 5  # agents wait for 60 s


async def test_refuse(autojump_clock: MockClock) -> None:
    async with two_nodes("refuse") as nodes:
        known = await nodes.agent()
        agent = nodes.on_second(known)
        nodes.indexer.go_down()
        assert await status(agent.post_stateless(EVENTS)) == 503
        assert await status(known.post_stateless(EVENTS)) == 204  # by the node that knows it


async def test_one_that_was_enrolled_a_moment_ago_isnt_refused(autojump_clock: MockClock) -> None:
    """The other node has just read that there is no such agent, and can't read that there is one now."""
    async with two_nodes() as nodes:
        uuid = nodes.uuid()
        assert await status(nodes.second.client(uuid).authenticate()) == 403
        agent = nodes.on_second(await nodes.agent(uuid))
        nodes.indexer.go_down()
        assert await status(agent.post_stateless(EVENTS)) == 503
        nodes.indexer.up = True
        await trio.sleep(60)
        assert await status(agent.post_stateless(EVENTS)) == 204


async def test_nor_is_one_whose_token_a_clock_made_that_is_behind(autojump_clock: MockClock) -> None:
    async with two_nodes() as nodes:
        await trio.sleep(100)
        uuid = nodes.uuid()
        assert await status(nodes.second.client(uuid).authenticate()) == 403
        agent = nodes.on_second(await nodes.agent(uuid))
        agent.token = nodes.first.keys.mint(uuid, Agent(uuid, "", HASH).fingerprint, nodes.first.clock() - 25)
        nodes.indexer.go_down()
        assert await status(agent.post_stateless(EVENTS)) == 503


@pytest.mark.parametrize("change", ["removed", "rekeyed"])
@pytest.mark.parametrize("later", [0.0, 290.0])
async def test_what_is_known_of_revocations_counts(change: str, later: float, autojump_clock: MockClock) -> None:
    async with two_nodes() as nodes:
        agent = nodes.on_second(await nodes.agent())
        assert await status(agent.post_stateless(EVENTS)) == 204
        await trio.sleep(40)  # a newer token might be of an agent that was enrolled after it was read
        registry = nodes.stores[1].agents
        await (registry.remove(agent.uuid) if change == "removed" else registry.rekey(agent.uuid, hash_key("k" * 32)))
        nodes.indexer.go_down()
        await trio.sleep(later)
        fresh = change == "removed" and not later  # it was read a moment ago
        assert await status(agent.post_stateless(EVENTS)) == (403 if fresh else 503)
        nodes.indexer.up = True
        await trio.sleep(60)
        assert await status(agent.post_stateless(EVENTS)) == 403


async def test_what_was_revoked_elsewhere_counts_once_it_can_be_read(autojump_clock: MockClock) -> None:
    async with two_nodes() as nodes:
        gone, stays = [nodes.on_second(await nodes.agent()) for _ in range(2)]
        assert await nodes.stores[0].agents.remove(gone.uuid)
        nodes.indexer.go_down()
        polls: dict[str, int] = {}

        async def poll(agent: AgentClient) -> None:
            polls[agent.uuid] = await status(agent.poll())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll, gone)
            nursery.start_soon(poll, stays)
            await trio.sleep(30)
            assert await status(gone.post_stateless(EVENTS)) == 204  # nobody here can know
            assert polls == {}
            nodes.indexer.up = True
            await trio.sleep(60)
            assert polls == {gone.uuid: 403}
        assert polls[stays.uuid] == 408
        assert await status(gone.post_stateless(EVENTS)) == 403
        assert await status(stays.post_stateless(EVENTS)) == 204


def test_a_revocation_is_remembered_for_as_long_as_a_token_may_live() -> None:
    """Also of an agent that was silent here for nearly as long before."""
    agent = Agent("a", "a", HASH)
    for now_known in (None, evolve(agent, key_hash=hash_key("k" * 32))):
        cache = AgentCache(10.0)
        cache.put("a", agent, 0.0)
        cache.use("a", 0.0)
        cache.put("a", now_known, FORGET_AFTER - 1)
        cache.forget_old(2 * FORGET_AFTER - 2)
        assert "a" in cache.entries
        cache.forget_old(2 * FORGET_AFTER)
        assert cache.entries == {}


async def test_a_worker_that_comes_is_told_what_the_others_know(autojump_clock: MockClock) -> None:
    linked: list[Linked] = []
    caches = [AgentCache(10.0) for _ in range(3)]
    agents = [Agent(f"a{number}", "a", HASH) for number in range(1200)]
    rekeyed = evolve(agents[0], key_hash=hash_key("k" * 32))
    shared = SharedRevocations(caches[0], Linked(linked))
    for agent in agents:
        caches[0].put(agent.id, agent, 0.0)
        assert not caches[0].put(agent.id, agent, 1.0)
    for agent in agents[1:]:
        assert caches[0].put(agent.id, None, 2.0)
    assert caches[0].put(agents[0].id, rekeyed, 2.0)
    shared.tell([agents[0].id])  # to nobody
    for cache in caches[1:]:
        SharedRevocations(cache, Linked(linked))
    linked[1].set_leader(False)  # the hub says who leads to each that comes
    assert (
        caches[1].revoked()
        == caches[0].revoked()
        == {agent.id: None for agent in agents} | {agents[0].id: rekeyed.fingerprint}
    )
    assert caches[2].revoked() == caches[1].revoked()  # all hear it
    assert not caches[1].seen_since(0.0)  # whom the others had seen
    linked[0].handle_finding("revocations", {"agents": {"a1": ["f" * 16, -3.0]}})  # it was enrolled again, say
    assert caches[0].entries["a1"].fingerprint == "f" * 16


async def test_a_worker_that_comes_is_told_before_it_serves(autojump_clock: MockClock) -> None:
    """It asked once it was ready, and took revoked tokens until the others had answered."""
    linked: list[Linked] = []
    caches = [AgentCache(10.0) for _ in range(2)]
    caches[0].put("a", Agent("a", "a", HASH), 0.0)
    caches[0].put("a", None, 1.0)
    for cache in caches:
        SharedRevocations(cache, Linked(linked))
    assert caches[1].revoked() == {"a": None}


async def test_what_was_read_later_stays(autojump_clock: MockClock) -> None:
    """A worker that comes makes all tell what they know: one that had read less took it from one that knew better."""
    await trio.sleep(10)
    linked: list[Linked] = []
    caches = [AgentCache(10.0) for _ in range(3)]
    before = Agent("a", "a", HASH)
    after = evolve(before, key_hash=hash_key("k" * 32))
    for cache in caches[:2]:
        cache.put("a", before, 1.0)
        cache.put("a", None, 2.0)
    caches[1].put("a", after, 3.0)
    for cache in caches:
        SharedRevocations(cache, Linked(linked))
    linked[2].set_leader(False)
    assert [cache.entries["a"].fingerprint for cache in caches] == [after.fingerprint] * 3


async def test_a_worker_that_comes_is_told_of_who_was_gone_when_first_looked_for(autojump_clock: MockClock) -> None:
    async with two_nodes() as nodes:
        agent = nodes.on_second(await nodes.agent())
        assert await nodes.stores[0].agents.remove(agent.uuid)
        assert await status(agent.post_stateless(EVENTS)) == 403
        assert agent.uuid in nodes.stores[1].agents._cache.revoked()


async def test_a_poll_isnt_ended_by_hearsay(autojump_clock: MockClock) -> None:
    """What another worker says it read may be from before, and is read here first: while that can be done."""
    leadership, agent = Leadership(), Agent("a", "a", HASH)
    async with fake() as node, stores_of(node, leadership=leadership) as stores:
        await stores.agents.add(agent)
        await trio.sleep(1)
        fingerprints = {agent.id: agent.fingerprint}
        leadership.handle_finding("revocations", {"agents": {agent.id: [None, 0.0]}})
        assert await stores.agents.revoked(fingerprints) == []
        assert await stores.agents.lookup(agent.id) == agent
        node.go_down()
        await trio.sleep(30)
        leadership.handle_finding("revocations", {"agents": {agent.id: [None, 0.0]}})
        assert await stores.agents.revoked(fingerprints) == [agent.id]
