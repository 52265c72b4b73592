"""The agents: the whole program of ``wazuh_comms_trio.testing``, with a ledger of what it was promised, and hostile
ones."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from itertools import count
from math import inf
from random import Random
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import trio
from attrs import define, evolve

from tests.simulation.actors.keys import KEYS, REVOCATION
from tests.simulation.model import CommandLife, DocumentModel, Operation
from tests.simulation.plan import CALLS, DISK
from tests.simulation.trace import Violation
from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.foundation.aligned_timer import sleep_until_next_tick
from wazuh_comms_trio.testing.agent.client import (
    AgentClient,
    stateful_event,
    token_expiry,
)
from wazuh_comms_trio.testing.agent.http import ExchangeFailed, Reply
from wazuh_comms_trio.testing.agent.program import AgentProgram, AgentSettings, Outbox

if TYPE_CHECKING:
    from tests.simulation.network import Connection, SimStream
    from tests.simulation.world import World

__all__ = ["FILES", "OpenPoll", "SimAgent", "SimClient"]

TOKEN_SECONDS = 900
#: What there is for agents of which groups.
FILES = {
    f"{group}.{kind}": f"{kind} of {group}".encode() for group in ("default", "web", "db") for kind in ("yml", "conf")
}


@define(eq=False)
class OpenPoll:
    """A poll that is under way: since when (trio's clock), when its token ends (epoch seconds), and of which of its
    agent's keys that is."""

    since: float
    token_ends: float
    keys: int = 0
    connection: Connection | None = None


_POLL: ContextVar[OpenPoll | None] = ContextVar("poll", default=None)


class _Impatient(ExchangeFailed):
    """The agent waited no longer."""


class SimClient(AgentClient):
    """On plain streams of the balancer; every exchange is looked at. ``first_token``: the first log-in is spared, as if
    it had been done a while ago."""

    def __init__(self, world: World, name: str, uuid: str, key: str, *, first_token: str | None, chunked: bool) -> None:
        super().__init__(
            self._connect_noting,
            uuid=uuid,
            key=key,
            name=name,
            chunked=chunked,
            wall_clock=world.agents_clock,
            tls=False,
        )
        self.world = world
        self.name = name
        self._first_token = first_token
        self.polls: dict[int, OpenPoll] = {}
        self.keys = self.token_keys = 0  # which of its keys is the agent's, and its token's
        self.rekeyed_at = self.removed_at = -1e9
        self.is_hasty = False  # it doesn't pause after failures, and is told so
        self.is_being_rekeyed = False
        self._numbers = count()

    async def _connect_noting(self) -> SimStream:
        stream = await self.world.balancer.connect(self.name)
        if (poll := _POLL.get()) is not None:
            poll.connection = stream.connection
        return stream

    async def request(self, method: str, path: str, body: bytes | None = None, **options: Any) -> Reply:
        world, place = self.world, f"{method} {path.removeprefix('/api/v1/')}"
        world.requests += 1
        ahead = self.token is not None and token_expiry(self.token) - TOKEN_SECONDS > world.agents_clock() + 1
        world.trace.add(self.name, f"{place} {'' if body is None else len(body)}")
        number, began, keys = next(self._numbers), trio.current_time(), self.token_keys
        if place == "GET commands" and self.token is not None:
            _POLL.set(poll := OpenPoll(trio.current_time(), token_expiry(self.token), self.token_keys))
            self.polls[number] = poll
        is_patient = not self.is_hasty or world.faults_ended is not None or not place.startswith("POST events")
        patience = inf if is_patient else world.plan.patience
        try:
            with trio.move_on_after(patience) as limit:
                reply = await super().request(method, path, body, **options)
            if limit.cancelled_caught:  # what it sent may be under way still when it sends it again
                world.trace.add(self.name, f"{place} -> it waits no longer")
                raise _Impatient(place)
        except _Impatient:
            raise
        except ExchangeFailed as error:
            world.trace.add(self.name, f"{place} -> {str(error)[:60]}")
            if not (world.had_cause(100.0) or world.was_silenced(self.name, 100.0)):
                raise Violation("answers", f"{self.name}: {place} got no answer, without a cause: {error}") from None
            raise
        finally:
            self.polls.pop(number, None)
        world.trace.add(self.name, f"{place} -> {reply.status}")
        old_key = keys != self.keys and place != "POST authentication"
        if old_key and reply.status in (200, 204) and self.is_rekeyed_everywhere(began):
            raise Violation("revoked", f"{self.name}: {place} -> {reply.status} with a token of its old key")
        if place == "GET commands" and reply.status == 200 and keys == self.keys:
            self._check_made(reply)
        self._check(
            place, reply, ahead or old_key or self.is_being_rekeyed or trio.current_time() < self.rekeyed_at + 40
        )
        return reply

    def is_rekeyed_everywhere(self, moment: float) -> bool:
        """Whether every node knew the agent's new key at this moment: no fault kept it from reading the registry."""
        return moment > self.rekeyed_at + REVOCATION and not self.world.had_cause(30.0, (*CALLS, *DISK, "hang worker"))

    def _check(self, place: str, reply: Reply, refusable: bool) -> None:
        """``refusable``: the token was made by a server whose clock was ahead, or for a key of before."""
        status = reply.status
        if place.startswith("GET files") and status in (403, 404):  # another group's
            return
        if status in (200, 204) or (status == 408 and place == "GET commands"):
            return
        cause = self.world.had_cause(45.0) or self.world.was_silenced(self.name, 45.0)
        if status >= 500 and (status != 503 or not cause):
            raise Violation("no 5xx", f"{self.name}: {place} -> {status} {reply.body[:100]!r}")
        slow = status == 408 and any(fault.place == "network" for fault in self.world.plan.faults)
        if (status in (401, 403) and refusable) or (status == 429 and self.is_hasty and (cause or refusable)):
            return
        if status < 500 and not ((status == 403 or slow) and cause):
            raise Violation("replies", f"{self.name}: {place} -> {status} {reply.body[:100]!r}")

    async def authenticate(self) -> Reply:
        if (token := self._first_token) is not None:
            self._first_token, self.token = None, token
            return Reply(200, (), json.dumps({"token": token}).encode())
        keys = self.keys
        reply = await super().authenticate()
        if reply.status == 200:
            self.token_keys = keys
        return reply

    def rekey(self) -> None:
        """The operator has given it another key."""
        self.keys += 1
        self.rekeyed_at = trio.current_time()
        self.is_being_rekeyed = False
        self.key = KEYS[self.keys % 2]

    async def post_stateful(self, events: Iterable[bytes]) -> Reply:
        batch = list(events)
        reply = await super().post_stateful(batch)
        if reply.status == 200:
            wanted = [json.loads(event.split(b"\n", 1)[0])["id"] for event in batch]
            results = reply.json()["results"]
            got = [result["id"] for result in results]
            if wanted != got:
                raise Violation("own results", f"{self.name} sent {wanted} and was answered {got}")
            for event, result in zip(batch, results, strict=True):
                status, poisoned = result["status"], b"poison" in event
                if b'"module":"command"' in event:
                    self._check_report(result["id"], status)
                healed = b"poison!" in event and trio.current_time() >= self.world.plan.heals
                unlikely = b'"module":"command"' not in event and (status == 400) != poisoned and not healed
                if unlikely or status not in (200, 201, 400, 404, 409):
                    raise Violation("own results", f"{self.name} sent {event!r} and was answered {result}")
        return reply

    def _check_made(self, reply: Reply) -> None:
        """An agent that was removed and has come back isn't given what was sent to it before."""
        for command in reply.json()["commands"]:
            life = self.world.commands.get(command["document_id"])
            if life is not None and not life.posted and life.made < self.removed_at:
                raise Violation("removed", f"{self.name} has come back and is given {life.document_id}")

    def _check_report(self, document_id: str, status: int) -> None:
        """What came is reported on: it was offered, and that is known."""
        life = self.world.commands[document_id]
        is_kept = self.world.stores.keeps_posted or not life.posted
        if status != 200 and (is_kept or status != 404):
            raise Violation("own reports", f"{self.name} reported on {document_id} and was answered {status}")


class Ledger(Outbox):
    """Notes what is acknowledged. ``make`` goes into the world's books before the event can be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: deque[Any] = deque()

    def note(self, event: bytes, what: Any) -> None:
        self.notes.append(what)
        super().add(event)

    def add(self, event: bytes) -> None:
        """By the program itself: a report."""
        self.note(event, event)

    def remove(self, batch: list[bytes]) -> None:
        super().remove(batch)
        for _ in batch:
            self.acknowledged(self.notes.popleft())

    def acknowledged(self, what: Any) -> None:
        raise NotImplementedError


class SimAgent:
    """An honest agent and what it knows. Its documents: ``model``; its stateless events: ``sent``, those acknowledged
    in ``promised``."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.rng = rng = Random(f"{world.plan.seed} agent {number}")
        self.name = f"agent{number}"
        self.uuid = str(UUID(int=rng.getrandbits(128), version=4))
        self.model = DocumentModel()
        self.promised: list[str] = []
        self.commands: dict[str, CommandLife] = {}
        self._made = 0
        self._later: list[Operation] = []  # on documents that were refused
        groups = ("web",) if rng.random() < 0.5 else ()
        self.record = Agent(self.uuid, self.name, world.key_hash, groups=groups)
        token = None
        if rng.random() < 0.7:
            age = rng.uniform(840, 888) if world.plan.short_tokens else rng.uniform(0, 890)
            token = world.keys.mint(self.uuid, self.record.fingerprint, world.agents_clock() - age)
        self.client = SimClient(world, self.name, self.uuid, KEYS[0], first_token=token, chunked=rng.random() < 0.2)
        settings = AgentSettings(
            retry_interval=rng.choice([0.5, 0.5, 0.5, 30.0]) if world.plan.keeps_order else 30.0,
            batch_interval=rng.choice([0.5, 2.0, 5.0]),
            batch_bytes=rng.choice([600, 3000, 100000]),
        )
        self.client.is_hasty = settings.retry_interval < 1
        self.program = AgentProgram(self.client, settings, execute=self.execute)
        self.program.stateful = self._ledger(self._stateful_acknowledged)
        self.program.stateless = self._ledger(self.promised.append)
        #: A clone of its machine, which makes events on documents of its own.
        self.copy: AgentProgram | None = None
        if world.plan.copies and rng.random() < 0.6:
            client = SimClient(world, f"{self.name}c", self.uuid, KEYS[0], first_token=None, chunked=False)
            self.copy = AgentProgram(client, evolve(settings, retry_interval=30.0), execute=self.execute)
            self.copy.stateful = self._ledger(self._stateful_acknowledged)

    def _ledger(self, acknowledged: Any) -> Ledger:
        ledger = Ledger()
        ledger.acknowledged = acknowledged  # type: ignore[method-assign]
        return ledger

    @property
    def is_idle(self) -> bool:
        outboxes = [self.program.stateful, self.program.stateless, *([self.copy.stateful] if self.copy else [])]
        return not any(map(len, outboxes))

    @property
    def clients(self) -> Sequence[SimClient]:
        """Its own, and that of its copy."""
        return [self.client] if self.copy is None else [self.client, cast(SimClient, self.copy.client)]

    @property
    def polls(self) -> Sequence[tuple[SimClient, OpenPoll]]:
        """Those that are under way."""
        return [(client, poll) for client in self.clients for poll in client.polls.values()]

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            await trio.sleep(self.rng.uniform(0, 2))
            nursery.start_soon(self.program.run)
            if self.copy is not None:
                await trio.sleep(self.rng.uniform(0, 10))
                nursery.start_soon(self.copy.run)

    async def work(self, until: float) -> None:
        """Makes news."""
        while trio.current_time() < until:
            await trio.sleep(self.rng.expovariate(1.2))
            if self.world.plan.together:
                await sleep_until_next_tick(2.0)
            if self.rng.random() < 0.05 and self.client.token is not None:
                await self._fetch(self.rng.choice(list(FILES)))
            if self.rng.random() < 0.3:
                self._make_stateless()
            elif self.copy is not None and self.rng.random() < 0.2:
                self._make_stateful(self.copy, "x")
            else:
                for _ in range(self.rng.choice([1, 1, 2, 6])):
                    self._make_stateful(self.program, "d")

    async def _fetch(self, name: str) -> None:
        """It is given the files of its own groups, whole, and no others."""
        try:
            reply = await self.client.get_file(name)
        except ExchangeFailed:
            return
        mine = name.partition(".")[0] in ("default", *self.record.groups)
        if (reply.status == 200 and (not mine or reply.body != FILES[name])) or (reply.status == 404 and mine):
            raise Violation("own files", f"{self.name}: {name} -> {reply.status} {reply.body[:40]!r}")

    def _make_stateless(self) -> None:
        self._made += 1
        mark = f"{self.name}-{self._made}"
        line = json.dumps({"module": "logcollector", "collector": "file"}) + "\n" + json.dumps({"event": mark}) + "\n"
        if self.rng.random() < self.world.plan.poison / 3:  # no engine takes a body with such a line
            line = line.rstrip("}\n") + ',"poison\n'
        ledger = self.program.stateless
        assert isinstance(ledger, Ledger)
        ledger.note(line.encode(), mark)

    def _make_stateful(self, program: AgentProgram, prefix: str) -> None:
        rng, model = self.rng, self.model
        self._made += 1
        module = rng.choice(["fim", "sca", "vulnerability"])
        id = f"{prefix}{rng.randrange(6)}"  # agents have equal ids
        operation = Operation(module, id, "create", {"n": self._made, "o": {f"k{rng.randrange(3)}": self._made}})
        if rng.random() < 0.1:  # its database is lost, or another's: creates over other content, updates of nothing
            operation.action = rng.choice(["create", "update"])
        elif rng.random() < self.world.plan.poison:
            operation.id, operation.poison = f"late{self._made}", True
            operation.data = {"text": "poison!"}
            if prefix == "d" and rng.random() < 0.4:
                self._later.append(Operation(module, operation.id, "create", {"n": self._made}))
        elif self._later and prefix == "d" and rng.random() < 0.3:
            operation = self._later.pop()
        elif operation.key in model.documents:
            operation.action = rng.choice(["update", "update", "delete"])
            if operation.action == "delete":
                operation.data = None
        model.apply(operation)
        ledger = program.stateful
        assert isinstance(ledger, Ledger)
        event = stateful_event(operation.id, operation.module, operation.action, operation.data)
        if self.world.plan.stores == "embedded" or rng.random() < 0.5:  # no JSON; else it is the index that refuses it
            event = event.replace(b"poison!", b"poison\xff")
        ledger.note(event, operation)

    def _stateful_acknowledged(self, what: Any) -> None:
        if isinstance(what, Operation):
            self.model.acknowledge(what)
            return
        header, data = what.strip().split(b"\n")
        life = self.commands.get(json.loads(header)["id"])
        code = json.loads(data)["command"]["result"]["code"]
        if life is not None and life.first_final is None and code != 2:
            life.first_final = code

    async def execute(self, command: Mapping[str, Any]) -> tuple[int, str]:
        """Carries a command out: here it is noted that it came."""
        document_id = command["document_id"]
        life = self.world.commands.get(document_id)
        if life is None or life.agent != self.uuid:
            raise Violation("own commands", f"{self.name} was given {document_id}")
        self.world.trace.add(self.name, f"has command {document_id}")
        self.commands[document_id] = life
        life.received.append(trio.current_time())
        again = len(life.received) > 1
        if again and not life.excused and document_id not in self.world.stores.excused:
            raise Violation("exactly once", f"{self.name} was given {document_id} at {life.received}")
        await trio.sleep(self.rng.uniform(0, 0.5))
        return (1, "a database failure") if again else (self.rng.choice([0, 0, 0, 1]), "")
