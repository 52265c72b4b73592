"""An agent that was enrolled on one node is known on every other at once, whatever that has heard of it before."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from uuid import UUID

import pytest
import trio
from trio.testing import MockClock

from tests.indexer.bench import fake, stores_of, wall_clock
from tests.indexer.cluster import shared_node
from tests.indexer.harness import settings, wipe
from tests.services.bench import inline
from tests.services.test_authentication import KEYS
from wazuh_comms_trio.backends.opensearch.stores import OpenSearchStores, open_opensearch
from wazuh_comms_trio.errors import AgentUnknown
from wazuh_comms_trio.services.authentication import secret_hashes
from wazuh_comms_trio.services.authentication.authenticator import Authenticator
from wazuh_comms_trio.services.enrollment import EnrollmentService

AGENTS = 1000
KEY = "k" * 32
PASSWORD = "correct horse"  # noqa: S105


@asynccontextmanager
async def on_fakes() -> AsyncIterator[tuple[OpenSearchStores, OpenSearchStores]]:
    """Writes are found by searches a second later, as with a real one."""
    async with fake() as node, stores_of(node) as one, stores_of(node) as other:
        yield one, other


@asynccontextmanager
async def on_a_real_one() -> AsyncIterator[tuple[OpenSearchStores, OpenSearchStores]]:
    port = shared_node().port
    wipe(port)
    async with open_opensearch(settings(port)) as one, open_opensearch(settings(port)) as other:
        yield one, other


async def enrol_and_go_elsewhere(
    one: OpenSearchStores, other: OpenSearchStores, agents: int, clock: Callable[[], float]
) -> None:
    """Every second agent was at the other node before, and refused. Of its first requests there the one is a log-in,
    the other comes with a token of the first node."""
    users = {"wazuh": secret_hashes.hash_key(PASSWORD)}
    enrolment = EnrollmentService(one.agents, KEYS, users, wall_clock=clock, run_blocking=inline)
    here = Authenticator(one.agents, KEYS, wall_clock=clock, run_blocking=inline)
    there = Authenticator(other.agents, KEYS, wall_clock=clock, run_blocking=inline)
    session = await enrolment.log_in("wazuh", PASSWORD)
    chance = Random(1)
    uuids = [str(UUID(int=chance.getrandbits(128), version=4)) for _ in range(agents)]

    async def one_agent(number: int, uuid: str) -> None:
        if number % 2:
            with pytest.raises(AgentUnknown):
                await there.authenticate(uuid, KEY)
        body = {"id": uuid, "name": f"a{number}", "key": KEY, "type": "Endpoint", "version": "6.0.0"}
        await enrolment.enrol(session, json.dumps(body).encode())
        if number % 4 < 2:
            token = await here.authenticate(uuid, KEY)
            assert (await there.verify(token.encode())).agent.id == uuid
        token = await there.authenticate(uuid, KEY)
        assert (await there.verify(token.encode())).agent.id == uuid
        assert (await here.verify(token.encode())).agent.id == uuid

    places = trio.CapacityLimiter(20)

    async def in_turn(number: int, uuid: str) -> None:
        async with places:
            await one_agent(number, uuid)

    async with trio.open_nursery() as nursery:
        for number, uuid in enumerate(uuids):
            nursery.start_soon(in_turn, number, uuid)


@pytest.fixture
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It isn't their time that counts here."""
    monkeypatch.setattr(secret_hashes, "_ROUNDS", 1)


@pytest.mark.usefixtures("quick_hashes")
async def test_a_thousand_on_a_fake(autojump_clock: MockClock) -> None:
    async with on_fakes() as (one, other):
        await enrol_and_go_elsewhere(one, other, AGENTS, wall_clock)


@pytest.mark.indexer
@pytest.mark.real_clock
@pytest.mark.usefixtures("quick_hashes")
async def test_a_thousand_on_a_real_one() -> None:
    async with on_a_real_one() as (one, other):
        await enrol_and_go_elsewhere(one, other, AGENTS, time.time)
