"""The real HAProxy and nginx, with the configurations of conf/balancers, in front of three nodes."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from uuid import uuid4

import pytest
import trio

from tests.balancers.programs import CONFIGURATIONS, SCALE, VARIANTS, Variant
from tests.balancers.site import (
    AGENT_ADDRESS,
    KEY,
    PASSWORD,
    USER,
    Daemon,
    Site,
    at_once,
    balancers_are_well,
    connect_from,
)
from tests.supervisor.nodes import ask, status
from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.backends.interfaces import Action, Command, Target
from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.config.models import Limits, Timeouts
from wazuh_comms_trio.testing import AgentClient, Reply, enroll, stateful_event, stateless_event

pytestmark = [pytest.mark.balancers, pytest.mark.processes, pytest.mark.real_clock]

EVERY = pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: str(variant.name))
#: One of each file, where the PROXY header makes no difference.
FILES = [variant.name for variant in VARIANTS if not variant.proxy]
CHECKING = [variant.name for variant in VARIANTS if variant.checks]
#: From a change of a node to every balancer's having noticed: two checks a second apart, and 0.5 s for a slow one.
NOTICED = 3.5
#: The same for one that doesn't answer: two checks of 3 s, and a second between them.
GIVEN_UP = 8.0
RESTART = Action("restart")

_numbers = count(1)


async def joined(site: Site, name: str) -> AgentClient:
    """Enrolled and logged in, each through the balancer."""
    uuid = str(uuid4())
    connect = site.connect(name, enrolment=True)
    reply = await enroll(connect, user=USER, password=PASSWORD, uuid=uuid, key=KEY, name=f"a{next(_numbers)}")
    assert reply.status == 201, (name, reply)
    agent = site.agent(name, uuid)
    reply = await agent.authenticate()
    assert reply.status == 200, (name, reply)
    return agent


async def send_stateless(agent: AgentClient) -> int:
    return (await agent.post_stateless([stateless_event("m", "c", {"n": next(_numbers)})])).status


async def through_each(names: list[str], call: Callable[[str], Awaitable[None]]) -> None:
    await at_once(*(lambda name=name: call(name) for name in names))


async def parked(site: Site) -> list[int]:
    """Polls that wait, for each node."""
    found = [await status(daemon.files) for daemon in site.daemons]
    return [sum(worker.get("parked") or 0 for worker in each["workers"]) for each in found]


async def until_parked(site: Site, count: int) -> list[int]:
    with trio.fail_after(5):
        while sum(found := await parked(site)) < count:  # noqa: ASYNC110
            await trio.sleep(0.05)
    return found


@EVERY
async def test_an_agents_day(site: Site, variant: Variant) -> None:
    """Each request may go to another node than the one before."""
    before = [daemon.stateless_bodies for daemon in site.daemons]
    agents = [await joined(site, variant.name) for _ in range(3)]
    for agent in agents:
        for _ in range(3):
            assert await send_stateless(agent) == 204
        reply = await agent.post_stateful([stateful_event("id1", "fim", "create", {"n": 1})])
        assert reply.json()["results"][0]["status"] == 201
        assert (await agent.get_group_file("default")).status == 200

    def came() -> list[int]:
        return [daemon.stateless_bodies - before[number] for number, daemon in enumerate(site.daemons)]

    assert sum(came()) == 9
    with trio.fail_after(20):  # until the balancer's checks have found each of them well
        while min(came()) == 0:
            assert await send_stateless(agents[0]) == 204
    replies: list[Reply] = []

    async def poll(agent: AgentClient) -> None:
        replies.append(await agent.poll())

    async with trio.open_nursery() as nursery:
        for agent in agents:
            nursery.start_soon(poll, agent)
        await until_parked(site, len(agents))
        # By another program, into the indexer: each node finds what is for its own polls.
        async with open_backends(load_config(site.daemons[0].files.config).config) as backends:
            await backends.commands.add([Command(str(uuid4()), Target("agent", each.uuid), RESTART) for each in agents])
    assert [reply.status for reply in replies] == [200] * 3
    addresses = {
        entry["address"]
        for daemon in site.daemons
        for entry in daemon.audit()
        if entry["object"] in {agent.uuid for agent in agents}
    }
    known = variant.proxy or variant.ends_tls
    assert addresses == {AGENT_ADDRESS if known else variant.source}


def test_the_shipped_values_fit_the_nodes_defaults() -> None:
    longest_poll = Timeouts().commands * 1.1
    for variant in VARIANTS:
        text = (CONFIGURATIONS / variant.file).read_text()
        assert " 360s" in text
        assert longest_poll + 20 < 360
        assert 60 + 10 * 4 < 360
    http = (CONFIGURATIONS / "nginx-http.conf").read_text()
    assert "client_max_body_size 101m;" in http
    assert Limits().body_bytes < 101 * 1024 * 1024
    assert "non_idempotent;" not in http
    assert "retry-on " not in (CONFIGURATIONS / "haproxy-http.cfg").read_text().replace("`retry-on`", "")


@pytest.mark.parametrize(("name", "megabytes"), [(name, 100 if "http" in name else 10) for name in FILES])
async def test_large_bodies(site: Site, name: str, megabytes: int) -> None:
    """The largest there are where the balancer looks into them."""
    agent = await joined(site, name)
    line = stateless_event("m", "c", {"text": "x" * 100_000})
    lines = megabytes * 1024 * 1024 // len(line)
    received = sum(daemon.engine.received for daemon in site.daemons)
    assert (await agent.post_stateless([line] * lines)).status == 204
    assert sum(daemon.engine.received for daemon in site.daemons) - received > lines * len(line)


async def test_a_drained_node_gets_nothing_more_and_serves_what_it_has(site: Site) -> None:
    """Its parked polls end with its own answer: 300 s and 10 % against the balancers' 360 s, all 75 times shorter."""
    agents = {name: await joined(site, name) for name in site.balancers}
    waiting = {name: await joined(site, name) for name in site.balancers}
    ends: dict[str, tuple[int, int, float]] = {}

    async def poll(name: str) -> None:
        began = trio.current_time()
        reply = await waiting[name].poll()
        ends[name] = (reply.status, reply.json()["code"], trio.current_time() - began)

    async def work(name: str) -> None:
        for _ in range(4):
            assert await send_stateless(agents[name]) == 204

    async with trio.open_nursery() as nursery:
        for name in waiting:
            nursery.start_soon(poll, name)
        places = await until_parked(site, len(waiting))
        node = site.daemons[places.index(max(places))]
        assert (await ask(node.files, "POST", "/api/v1/drain")).status == 200
        for name, balancer in site.balancers.items():
            if name not in CHECKING:
                balancer.leave_out(node.place)
        await trio.sleep(NOTICED)
        before = node.stateless_bodies
        await through_each(list(agents), work)
        assert node.stateless_bodies == before
    assert {(code, number) for code, number, _ in ends.values()} == {(408, 408)}
    assert min(seconds for *_, seconds in ends.values()) >= 300 * 0.9 / SCALE
    assert (await ask(node.files, "DELETE", "/api/v1/drain")).status == 200
    for balancer in site.balancers.values():
        balancer.take_back()
    await balancers_are_well(site)


class Work:
    """An agent for each balancer, one event after the other, while the block runs."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.done = False
        self.answers: dict[str, Counter[str]] = {name: Counter() for name in site.balancers}
        self.longest: dict[str, float] = dict.fromkeys(site.balancers, 0.0)
        self._nursery = trio.open_nursery()

    async def __aenter__(self) -> Work:
        agents = {name: await joined(self.site, name) for name in self.site.balancers}
        nursery = await self._nursery.__aenter__()
        for name, agent in agents.items():
            nursery.start_soon(self._send, name, agent)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.done = True
        await self._nursery.__aexit__(*error)  # type: ignore[arg-type]

    async def _send(self, name: str, agent: AgentClient) -> None:
        while not self.done:
            began = trio.current_time()
            try:
                answer = str(await send_stateless(agent))
            except Exception as error:
                answer = type(error).__name__
            self.answers[name][answer] += 1
            self.longest[name] = max(self.longest[name], trio.current_time() - began)
            await trio.sleep(0.02)

    def failures(self, name: str) -> int:
        answers = self.answers[name]
        return answers.total() - answers["204"]


async def test_a_node_that_stops_in_order_fails_no_request(site: Site) -> None:
    node = site.daemons[1]
    async with Work(site) as work:
        await trio.sleep(0.5)
        assert await trio.to_thread.run_sync(node.end, signal.SIGTERM) == 0
        await trio.sleep(0.5)
    assert {name: work.failures(name) for name in site.balancers} == dict.fromkeys(site.balancers, 0), work.answers


async def test_a_node_that_is_killed_costs_what_was_under_way_there(site: Site) -> None:
    node = site.daemons[2]
    async with Work(site) as work:
        await trio.sleep(0.5)
        await trio.to_thread.run_sync(node.end, signal.SIGKILL)
        await trio.sleep(NOTICED)
        counted = {name: work.failures(name) for name in site.balancers}
        await trio.sleep(0.5)
    # Each agent has one request at a time: at most that one was there.
    assert all(failures <= 1 for failures in counted.values()), work.answers
    assert {name: work.failures(name) for name in site.balancers} == counted


async def test_a_node_that_hangs_is_left_out(site: Site) -> None:
    """Not by nginx's stream: the kernel goes on accepting for the node, and nothing asks further."""
    node = site.daemons[0]
    names = [name for name in site.balancers if not name.startswith("nginx-stream")]
    agents = {name: await joined(site, name) for name in names}

    async def work(name: str) -> None:
        for _ in range(4):
            with trio.fail_after(1.5):
                assert await send_stateless(agents[name]) == 204

    async with Work(site) as under_way:
        node.send(signal.SIGSTOP)
        try:
            await trio.sleep(GIVEN_UP)
            await through_each(names, work)
        finally:
            node.send(signal.SIGCONT)
    # At most the one request that was there: it is given to another node, answered later, or cut when the balancer's
    # time for a silent connection is over, which is shorter here than this node hangs.
    assert all(under_way.failures(name) <= 1 for name in names), under_way.answers


async def test_an_indexers_outage_leaves_what_needs_none(site: Site) -> None:
    """Every node's ``ready`` is 503; each balancer goes on with those that can take anything."""
    agents = {name: await joined(site, name) for name in site.balancers}

    async def work(name: str) -> None:
        for _ in range(6):
            assert await send_stateless(agents[name]) == 204, name

    site.set_indexer(up=False)
    try:
        await trio.sleep(NOTICED + 2)
        for daemon in site.daemons:
            found = await status(daemon.files)
            assert found["workers"][0]["backend"].startswith("index: ")
        await through_each(list(agents), work)
    finally:
        site.set_indexer(up=True)
    await balancers_are_well(site)
    reply = await next(iter(agents.values())).post_stateful([stateful_event("id1", "fim", "create", {"n": 2})])
    assert reply.status == 200


async def test_with_the_engines_ill_as_well_files_are_served(site: Site) -> None:
    """No node can take anything, and each is asked all the same; once an engine is well it is sent what shows it."""
    agents = {name: [await joined(site, name) for _ in range(2)] for name in CHECKING}

    def set_engines(status: int) -> None:
        for daemon in site.daemons:
            daemon.engine.status = status

    async def takes_nothing(daemon: Daemon) -> bool:
        node = AgentClient(connect_from(daemon.place.port), uuid="", key="")
        return (await node.request("GET", "/api/v1/ready/any", authorised=False)).status == 503

    async def work(name: str) -> None:
        for _ in range(6):
            assert (await agents[name][0].get_group_file("default")).status == 200, name
            assert await send_stateless(agents[name][0]) == 503, name

    site.set_indexer(up=False)
    site.run(partial(set_engines, 500))
    try:
        with trio.fail_after(30):
            while not all([await takes_nothing(daemon) for daemon in site.daemons]):
                await at_once(*(partial(send_stateless, agent) for both in agents.values() for agent in both))
                await trio.sleep(0.2)
        await trio.sleep(NOTICED)
        await through_each(CHECKING, work)
        site.run(partial(set_engines, 204))
        with trio.fail_after(5):
            for name in CHECKING:
                while await send_stateless(agents[name][0]) != 204:  # noqa: ASYNC110
                    await trio.sleep(0.1)
    finally:
        site.run(partial(set_engines, 204))
        site.set_indexer(up=True)
    agent = agents[CHECKING[0]][0]
    for daemon in site.daemons:  # each needs one that shows it, or a minute
        node = AgentClient(connect_from(daemon.place.port), uuid=agent.uuid, key=KEY)
        node.token = agent.token
        assert await send_stateless(node) == 204
    await balancers_are_well(site)
