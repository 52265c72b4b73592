"""Three daemons on one OpenSearch, and agents spread over them; one daemon is killed. ``scripts/soak nodes``."""

from __future__ import annotations

import json
import math
import random
import resource
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import trio
from attrs import define, field, frozen

from tests.conftest import Certificates
from tests.e2e.processes import KEY, Running, start_daemon, tool
from tests.engine.fake import fake_engine
from tests.indexer.daemons import wazuh_files
from tests.indexer.harness import call
from tests.supervisor.nodes import kill, status
from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.backends.opensearch.admin.init import init_indexer
from wazuh_comms_trio.backends.opensearch.client.client import OpenSearchClient
from wazuh_comms_trio.config.backend_models import Indexer, IndexerHost, IndexerNames
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key
from wazuh_comms_trio.services.authentication.tokens import TokenKeys
from wazuh_comms_trio.testing import AgentClient, ExchangeFailed, connect_tcp, stateful_event
from wazuh_comms_trio.testing.certificates import Certificate

Say = Callable[[str], None]

DAEMONS: Final = 3
#: What each should be. Of the requests on the daemons that live; until all are parked again, beside their pause; from
#: `send --all` to the last agent; the second time in multiples of the first.
P99, BACK, SENT, AGAIN = 0.25, 60.0, 15.0, 2.5
#: Agents whose polls may be between two, of all, when the parked ones are counted.
BETWEEN: Final = 0.01
BULK: Final = 1000


@frozen
class Scale:
    """``period``: seconds between an agent's requests, of so many ``events``. ``before`` and ``after`` the kill:
    seconds of load. ``pause``: an agent's after a failure. ``documents`` of the one that creates them again.
    ``settled``: seconds from a command's last delivery to the load; what daemons say of parked polls is a second old.
    """

    agents: int
    period: float = 60.0
    events: int = 5
    before: float = 60.0
    after: float = 120.0
    pause: float = 30.0
    documents: int = 10_000
    settled: float = 3.0


@frozen
class Answer:
    """A request's planned moment, on trio's clock, and how long after it its success came. ``daemon``: its agent's
    home in the beginning, which tells those of a killed one, that come again after their pause, from the others."""

    planned: float
    seconds: float
    daemon: int


@define
class Fleet:
    """``acknowledged``: documents that an agent was told are stored. ``commands``: how often an agent was given one, by
    its document id. ``others``: answers that were neither wanted nor a time limit's."""

    scale: Scale
    daemons: list[Running]
    agents: list[AgentClient]
    homes: list[int]
    alive: list[int] = field(factory=lambda: list(range(DAEMONS)))
    acknowledged: set[str] = field(factory=set)
    answers: list[Answer] = field(factory=list)
    commands: Counter[tuple[str, str]] = field(factory=Counter)
    got: trio.Event = field(factory=trio.Event)
    others: Counter[str] = field(factory=Counter)
    lateness: float = 0.0
    rng: random.Random = field(factory=lambda: random.Random(1))

    def at_home(self, number: int) -> AgentClient:
        agent = self.agents[number]
        agent._connect = connect_tcp("127.0.0.1", self.daemons[self.homes[number]].port)
        return agent

    async def fail(self, number: int, home: int, what: str) -> None:
        """As the agent does, behind a balancer that knows who lives."""
        self.others[what] += 1
        await trio.sleep(self.scale.pause)
        if self.homes[number] == home and home not in self.alive:
            self.homes[number] = self.rng.choice(self.alive)

    async def poll(self, number: int) -> None:
        while True:
            home = self.homes[number]
            try:
                reply = await self.at_home(number).poll()
            except ExchangeFailed:
                await self.fail(number, home, "poll: no answer")
                continue
            if reply.status == 200:
                for command in reply.json()["commands"]:
                    self.commands[command["document_id"], self.agents[number].uuid] += 1
                self.got.set()
                self.got = trio.Event()
            elif reply.status != 408:
                await self.fail(number, home, f"poll: {reply.status}")

    async def send(self, number: int) -> None:
        """In an open loop; a batch that isn't taken is sent again, and until then no other one."""
        uuid, planned = self.agents[number].uuid, trio.current_time() + self.rng.random() * self.scale.period
        at_first = self.homes[number]
        batch = 0
        while True:
            await trio.sleep_until(planned)
            ids = [f"{batch}-{place}" for place in range(self.scale.events)]
            events = [stateful_event(each, "fim", "create", {"file": {"path": f"/{each}"}}) for each in ids]
            while True:
                began, home = max(planned, trio.current_time() - 1.0), self.homes[number]
                try:
                    reply = await self.at_home(number).post_stateful(events)
                except ExchangeFailed:
                    await self.fail(number, home, "events: no answer")
                    continue
                if reply.status == 200:
                    break
                await self.fail(number, home, f"events: {reply.status}")
            assert {each["status"] for each in reply.json()["results"]} <= {200, 201}, reply.body
            self.acknowledged.update(f"{uuid}_{each}" for each in ids)
            self.answers.append(Answer(began, trio.current_time() - began, at_first))
            planned = max(planned + self.scale.period, trio.current_time())
            batch += 1

    async def watch_lateness(self) -> None:
        """This process is late, too: a thousand agents in one."""
        while True:
            due = trio.current_time() + 0.05
            await trio.sleep_until(due)
            self.lateness = max(self.lateness, trio.current_time() - due)

    def take_lateness(self) -> float:
        """Seconds, the worst since the last time."""
        worst, self.lateness = self.lateness, 0.0
        return worst

    async def until_parked(self) -> None:
        """All but a few that are between two polls, as the daemons that live say themselves."""
        while True:
            found = [await status(self.daemons[number].files) for number in self.alive]
            parked = sum(worker.get("parked", 0) for each in found for worker in each["workers"])
            if parked >= len(self.agents) * (1 - BETWEEN):
                return
            await trio.sleep(0.5)

    async def send_to_all(self) -> float:
        """Seconds from the tool's start to the last agent."""
        began, before = trio.current_time(), set(self.commands)
        await tool(self.daemons[self.alive[0]].files, "commands", "send", "--all", "--yes", "restart")
        while len(self.commands) - len(before) < len(self.agents):
            await self.got.wait()
        return trio.current_time() - began

    def p99(self, since: float, until: float, daemons: Sequence[int]) -> float:
        ranked = sorted(one.seconds for one in self.answers if since <= one.planned < until and one.daemon in daemons)
        return ranked[math.ceil(0.99 * len(ranked)) - 1] if ranked else math.inf


async def prepare(port: int, count: int) -> list[Agent]:
    """The product's own templates and indices, and agents that are known."""
    async with OpenSearchClient(Indexer(hosts=(IndexerHost("127.0.0.1", port),))) as client:
        await init_indexer(client, IndexerNames())
    key_hash = hash_key(KEY)
    agents = [Agent(str(UUID(int=number + 1, version=4)), f"a{number}", key_hash) for number in range(count)]
    for start in range(0, count, BULK):
        lines: list[Any] = []
        for agent in agents[start : start + BULK]:
            lines.append({"index": {"_index": "wazuh-agents", "_id": agent.id}})
            lines.append({"agent": {"id": agent.id, "name": agent.name, "key": key_hash}})
        body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        assert not call(port, "POST", "/_bulk?refresh=true", body)["errors"]
    return agents


@asynccontextmanager
async def fleet(
    folder: Path, certificates: Certificates | Certificate, port: int, scale: Scale
) -> AsyncIterator[Fleet]:
    """All with tokens, as a daemon would sign them: thousands of log-ins would be minutes of hashing."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    stored = await prepare(port, scale.agents)
    keys = TokenKeys.from_pem(certificates.key.read_bytes())
    async with AsyncExitStack() as stack:
        daemons = []
        for number in range(DAEMONS):
            own = folder / f"node{number}"
            files = wazuh_files(own, certificates, [port], indexer={"commands": {}})
            await stack.enter_async_context(fake_engine(own))
            running = start_daemon(files, expect_errors=number == DAEMONS - 1, limit=math.inf)
            daemons.append(await stack.enter_async_context(running))
        made = Fleet(scale, daemons, [], [])
        for number, agent in enumerate(stored):
            made.homes.append(number % DAEMONS)
            client = daemons[number % DAEMONS].client(agent.id, KEY)
            if made.agents:
                client._tls = made.agents[0]._tls  # thousands of them are memory for nothing
            client.token = keys.mint(agent.id, agent.fingerprint, time.time())
            made.agents.append(client)
        yield made


async def create_again(agent: AgentClient, documents: int) -> tuple[float, float]:
    """How long it takes, seconds, the first time and, with other content, the second."""
    took = []
    for content in range(2):
        began = trio.current_time()
        for start in range(0, documents, BULK):
            places = range(start, min(start + BULK, documents))
            events = [stateful_event(f"d{n}", "fim", "create", {"file": {"path": f"/{n}-{content}"}}) for n in places]
            reply = await agent.post_stateful(events)
            assert reply.status == 200, reply
            assert {each["status"] for each in reply.json()["results"]} <= {200, 201}, reply.body[:500]
        took.append(trio.current_time() - began)
    return took[0], took[1]


def missing(port: int, ids: Sequence[str]) -> list[str]:
    """Of these documents, which aren't there."""
    lost = []
    for start in range(0, len(ids), BULK):
        asked = {"docs": [{"_id": each} for each in ids[start : start + BULK]]}
        found = call(port, "POST", "/wazuh-states-fim/_mget?_source=false", asked)["docs"]
        lost += [each["_id"] for each in found if not each.get("found")]
    return lost


async def three_nodes(
    folder: Path, certificates: Certificates | Certificate, port: int, scale: Scale, say: Say = lambda text: None
) -> tuple[Fleet, list[str]]:
    """What isn't as it should be, as sentences. Raises ``AssertionError`` where something acknowledged is lost."""
    wrong = []

    def judge(text: str, value: float, limit: float, unit: str = "s") -> None:
        say(f"{text}: {value:.2f} {unit} (at most {limit:g})")
        if value > limit:
            wrong.append(f"{text}: {value:.2f} {unit}, more than {limit:g}")

    async with fleet(folder, certificates, port, scale) as agents:
        await under_load(agents, say, judge)
        lost = missing(port, sorted(agents.acknowledged))
        say(f"{len(agents.acknowledged)} documents were acknowledged, {len(lost)} of them are lost")
        assert lost == []
        twice = sum(count - 1 for count in agents.commands.values())
        others = ", ".join(f"{count} {what}" for what, count in sorted(agents.others.items())) or "nothing else"
        say(f"{twice} commands came twice; answers: {len(agents.answers)} for events, {others}")
        once, again = await create_again(agents.at_home(0), scale.documents)
        judge(f"{scale.documents} documents created in {once:.1f} s, and again", again / once, AGAIN, "times that")
    return agents, wrong


async def under_load(agents: Fleet, say: Say, judge: Callable[[str, float, float], None]) -> None:
    scale = agents.scale
    async with trio.open_nursery() as nursery:
        for number in range(scale.agents):
            nursery.start_soon(agents.poll, number)
        await agents.until_parked()
        say(f"{scale.agents} agents are parked on {DAEMONS} daemons")
        judge("send --all, the last delivery", await agents.send_to_all(), SENT)
        await trio.sleep(scale.settled)  # a thousand polls that come again at once are another measurement
        await agents.until_parked()
        nursery.start_soon(agents.watch_lateness)
        for number in range(scale.agents):
            nursery.start_soon(agents.send, number)
        began = trio.current_time()
        await trio.sleep(scale.before)
        judge("events, p99", agents.p99(began, math.inf, agents.alive), P99)
        say(f"of that this client's own lateness: {agents.take_lateness():.2f} s at most")
        killed = agents.alive.pop()
        kill(agents.daemons[killed].process.pid)
        at = trio.current_time()
        say(f"daemon {killed} is killed")
        await trio.sleep(scale.pause)
        say(f"of the others' events till then this client's own lateness: {agents.take_lateness():.2f} s at most")
        await agents.until_parked()
        judge("all are parked again, after their pause", trio.current_time() - at - scale.pause, BACK)
        await trio.sleep_until(at + scale.after)
        judge("events of the others' agents, p99", agents.p99(at, at + scale.pause, agents.alive), P99)
        judge("send --all, the last delivery", await agents.send_to_all(), SENT)
        nursery.cancel_scope.cancel()
