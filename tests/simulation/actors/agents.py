"""The agents: the whole program of ``wazuh_comms_trio.testing``, with a ledger of what it was promised, and hostile
ones."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import trio
from attrs import evolve

from tests.simulation.actors.client import OpenPoll, SimClient
from tests.simulation.actors.group_history import GroupHistory
from tests.simulation.actors.groups import check_fetched, check_file
from tests.simulation.actors.keys import KEYS
from tests.simulation.actors.scans import scan
from tests.simulation.checks.registered import ENROLLED
from tests.simulation.forms.commands import wrong_members
from tests.simulation.forms.events import unusable_event, written_otherwise, written_plainly
from tests.simulation.model import IN_PROGRESS, OTHER_FAILURES, CommandLife, DocumentModel, Operation
from tests.simulation.nodes.agent_files import FILES
from tests.simulation.plans.limits import SHARE_BATCH
from tests.simulation.trace import Violation
from wazuh_comms_trio.backends.command_rules import SET_GROUP
from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.foundation.aligned_timer import sleep_until_next_tick
from wazuh_comms_trio.testing.agent.client import command_report
from wazuh_comms_trio.testing.agent.http import ExchangeFailed
from wazuh_comms_trio.testing.agent.program import AgentProgram, AgentSettings, Outbox

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["SimAgent"]

#: Requests of an agent in each second in which what faults have left isn't served yet, besides those that are left.
ASKS = 0.8
#: Likewise, where all of them together may ask for little: those that are left need most of it.
ASKS_OF_LITTLE = 0.2


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

    def __init__(self, world: World, number: int, *, joins: bool = False) -> None:
        self.world = world
        self.rng = rng = Random(f"{world.plan.seed} agent {number}")
        self.rng_more = Random(f"{world.plan.seed} agent {number} more")
        self.name = f"agent{number}"
        self.uuid = str(UUID(int=rng.getrandbits(128), version=4))
        self.model = DocumentModel()
        self.promised: list[str] = []
        self.commands: dict[str, CommandLife] = {}
        self._made = 0
        self._later: list[Operation] = []  # on documents that were refused
        self._again: list[Operation] = []  # which are refused, too
        chance = rng.random()  # one group's name begins with the other's
        groups = () if joins else ("web",) if chance < 0.5 else ("web2",) if chance < 0.75 else ()
        self.record = Agent(self.uuid, self.name, world.key_hash, groups=groups)
        self.joined = joins
        if joins:
            self.record = evolve(self.record, **ENROLLED)
        self.groups = GroupHistory(groups)
        token = None
        if rng.random() < 0.7 and not joins:
            age = rng.uniform(840, 888) if world.plan.short_tokens else rng.uniform(0, 890)
            token = world.keys.mint(self.uuid, self.record.fingerprint, world.agents_clock() - age)
        error = self.rng_more.choice([0.0, -3600.0, -30.0, 30.0, 3600.0]) if world.plan.features.wrong_clocks else 0.0
        self.client = SimClient(
            world,
            self.name,
            self.uuid,
            KEYS[0],
            first_token=token,
            chunked=rng.random() < 0.2,
            clock_error=error,
        )
        self._asking: trio.Nursery | None = None
        #: From when until when it was removed.
        self.away: list[tuple[float, float]] = []
        #: Clients of others that hold one of its tokens.
        self.thieves: list[SimClient] = []
        settings = AgentSettings(
            retry_interval=rng.choice([0.5, 0.5, 0.5, 30.0]) if world.plan.keeps_order else 30.0,
            batch_interval=rng.choice([0.5, 0.5, 0.5, 2.0, 5.0]),
            batch_bytes=rng.choice([600, 3000, 100000]),
        )
        if world.plan.features.small_shares or world.plan.features.small_events:
            settings = evolve(settings, batch_bytes=SHARE_BATCH)
        elif world.plan.features.many_forms:  # most of which are longer
            settings = evolve(settings, batch_bytes=2 * settings.batch_bytes)
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
        """Its own, that of its copy, and those that hold a token of it."""
        of_copy = [] if self.copy is None else [cast(SimClient, self.copy.client)]
        return [self.client, *of_copy, *self.thieves]

    @property
    def polls(self) -> Sequence[tuple[SimClient, OpenPoll]]:
        """Those that are under way."""
        return [(client, poll) for client in self.clients for poll in client.polls.values()]

    async def run(self) -> None:
        """Until cancelled; not while it is gone."""
        while True:
            self._back = trio.Event()
            with trio.CancelScope() as self._scope:
                async with trio.open_nursery() as self._asking, trio.open_nursery() as nursery:
                    await trio.sleep(self.rng.uniform(0, 2))
                    nursery.start_soon(self.program.run)
                    if self.copy is not None:
                        await trio.sleep(self.rng.uniform(0, 10))
                        nursery.start_soon(self.copy.run)
            await self._back.wait()

    def go(self) -> None:
        """It is silent until ``come_back``, and so is its copy."""
        self._scope.cancel()

    def come_back(self) -> None:
        self._back.set()

    async def work(self) -> None:
        """Makes news."""
        while self.world.is_busy:
            await trio.sleep(self.rng.expovariate(2.0))
            if self.world.plan.together:
                await sleep_until_next_tick(2.0)
            if self.rng.random() < 0.05 and self.client.token is not None:
                await self.fetch(self.rng.choice(list(FILES)))
            features = self.world.plan.features
            fetches = (features.set_groups or features.changing_files) and self.client.token is not None
            if fetches and self.rng_more.random() < 0.3:
                await self.fetch(self.rng_more.choice(list(FILES)))
            scans = features.scans and self._asking is not None and self.client.token is not None
            if scans and self.rng_more.random() < 0.3:
                self._asking.start_soon(scan, self)
            if self.rng.random() < 0.3:
                # Of a body that comes in pieces an engine may refuse the first ones, with the rest on its way.
                for _ in range(self.rng_more.choice([1, 4, 12]) if features.small_bodies else 1):
                    self._make_stateless()
            elif self.copy is not None and self.rng.random() < 0.2:
                self._make_stateful(self.copy, "x")
            else:
                for _ in range(self.rng.choice([1, 1, 2, 6])):
                    self._make_stateful(self.program, "d")

    async def ask_on(self) -> None:
        """Until cancelled: for what it has a right to at any time, and by which nothing is left to be served."""
        rng = self.rng_more
        often = ASKS_OF_LITTLE if self.world.plan.features.total_limits else ASKS
        while True:
            await trio.sleep(rng.expovariate(often))
            if self.client.token is None:
                continue
            chance = rng.random()
            with suppress(ExchangeFailed):
                if chance < 0.25:
                    await self.client.authenticate()
                elif chance < 0.5:
                    await self.fetch(rng.choice(list(FILES)))
                elif chance < 0.65 and (ended := [each for each in self.commands if self._has_reported(each)]):
                    codes = [0, 1, IN_PROGRESS] if self.world.plan.features.reports_begun else [0, 1]
                    await self.client.post_stateful([command_report(rng.choice(ended), rng.choice(codes), "later")])
                else:
                    await self._replace()

    def _has_reported(self, document_id: str) -> bool:
        """Whether its report on a command is acknowledged, so that no later one changes anything."""
        life = self.commands[document_id]
        return life.first_final is not None and (self.world.stores.keeps_posted or not life.posted)

    async def _replace(self) -> None:
        """Writes a document of those that it writes with nothing else: after a request that failed never again, since
        that may be carried out later."""
        rng, model = self.rng_more, self.model
        operation = Operation(rng.choice(["fim", "sca"]), f"q{rng.randrange(4)}", "create", {"n": self._made + 1})
        if model.open.get(operation.key):
            return
        self._made += 1
        if operation.key in model.documents:
            again = "update" if self.world.plan.features.global_ids else "create"
            operation.action = rng.choice([again, again, "update", "delete"])
            if operation.action == "delete":
                operation.data = None
        model.apply(operation)
        event = written_plainly(evolve(operation, id=self._id_of(operation)))
        if (await self.client.post_stateful([event])).status == 200:
            model.acknowledge(operation)

    async def fetch(self, name: str) -> None:
        """It is given the files of its own groups, whole, and no others."""
        began = trio.current_time()
        try:
            reply = await self.client.get_file(name)
        except ExchangeFailed:
            return
        if reply.status == 200 and not self.world.files.was(name, reply.body, began, trio.current_time()):
            raise Violation("own files", f"{self.name}: {name} -> {reply.status} {reply.body[:40]!r}")
        check_file(self, name, reply.status, began)

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
        if self.world.plan.features.many_forms and self.rng_more.random() < 0.3:
            module = "inventory"
        id = f"{prefix}{rng.randrange(6)}"  # agents have equal ids
        operation = Operation(module, id, "create", {"n": self._made, "o": {f"k{rng.randrange(3)}": self._made}})
        # Its database is lost, or another's: creates over other content, updates of nothing.
        if rng.random() < 0.1 and not self.world.plan.features.global_ids:
            operation.action = rng.choice(["create", "update"])
        elif rng.random() < self.world.plan.poison:
            operation.id, operation.poison = f"late{self._made}", True
            operation.data = {"text": "poison!"}
            if self.world.plan.features.refused_twice:
                operation.data = {"text": "poison!", "n": self._made}
            if prefix == "d" and rng.random() < 0.4 and not self.world.plan.features.global_ids:
                self._later.append(Operation(module, operation.id, "create", {"n": self._made}))
        elif self._later and prefix == "d" and rng.random() < 0.3:
            operation = self._later.pop()
        elif self._again and prefix == "d" and self.rng_more.random() < 0.5:
            operation = self._again.pop()
        elif operation.key in model.documents:
            operation.action = rng.choice(["update", "update", "delete"])
            if operation.action == "delete":
                operation.data = None
        self._note_event(program, operation)
        if operation.poison and self.world.plan.features.refused_twice and prefix == "d":
            self._refuse_again(program, operation)

    def _refuse_again(self, program: AgentProgram, first: Operation) -> None:
        """Another event on the same document, at once or some time later."""
        self._made += 1
        data = {"text": "poison!", "n": self._made}
        operation = Operation(first.module, first.id, "create", data, poison=True)
        if (chance := self.rng_more.random()) < 0.35:
            self._note_event(program, operation)
        elif chance < 0.8:
            self._again.append(operation)

    def _note_event(self, program: AgentProgram, operation: Operation) -> None:
        self.model.apply(operation)
        ledger = program.stateful
        assert isinstance(ledger, Ledger)
        named = evolve(operation, id=self._id_of(operation))
        event = written_plainly(named)
        if self.world.plan.features.many_forms and self.rng_more.random() < 0.6:
            event = self._in_another_form(named, event)
        no_json = self.world.plan.stores == "embedded" or self.rng.random() < 0.5
        if no_json:  # else it is the index that refuses it
            event = event.replace(b"poison!", b"poison\xff")
        ledger.note(event, operation)

    def _id_of(self, operation: Operation) -> str:
        """As the agent says it: where ids are all agents', with what makes it its own."""
        return f"{self.uuid}_{operation.id}" if self.world.plan.features.global_ids else operation.id

    def _in_another_form(self, operation: Operation, event: bytes) -> bytes:
        if not operation.poison:
            return written_otherwise(self.rng_more, operation)
        if operation.data == {"text": "poison!"}:
            return unusable_event(self.rng_more, evolve(operation, data={"text": "poison"}))
        return event

    def make_earlier(self, number: int) -> Sequence[Operation]:
        """Documents that it had made before, and that are acknowledged."""
        made = [Operation("fim", f"d{each}", "create", {"n": -each, "o": {"k0": each}}) for each in range(number)]
        for operation in made:
            self.model.apply(operation)
            self.model.acknowledge(operation)
        return made

    def _stateful_acknowledged(self, what: Any) -> None:
        if isinstance(what, Operation):
            self.model.acknowledge(what)
            return
        header, data = what.strip().split(b"\n")
        life = self.commands.get(json.loads(header)["id"])
        code = json.loads(data)["command"]["result"]["code"]
        if life is not None and life.first_final is None and code != IN_PROGRESS:
            life.first_final = code

    async def execute(self, command: Mapping[str, Any]) -> tuple[int, str]:
        """Carries a command out: here it is noted that it came."""
        document_id = command["document_id"]
        life = self.world.commands.get(document_id)
        if life is None or life.agent != self.uuid:
            raise Violation("own commands", f"{self.name} was given {document_id}")
        if wrong := wrong_members(command):
            raise Violation("own commands", f"{self.name} was given {document_id} with {wrong}")
        self.commands[document_id] = life
        again = self.note_received(life)
        self.groups.note_came(document_id)
        if not again and command["action"]["name"] == SET_GROUP and self.client.token is not None:
            code, message = await self.program.carry_out(command)
            check_fetched(self, document_id, message)
            return code, message
        if begins := self.world.plan.features.reports_begun and not again and self.rng_more.random() < 0.6:
            self.program.stateful.add(command_report(document_id, IN_PROGRESS, "begun"))
            await trio.sleep(self.rng_more.uniform(0.0, 2.0))
        await trio.sleep(self.rng.uniform(0, 0.5))
        code, message = (1, "a database failure") if again else (self.rng.choice([0, 0, 0, 1]), "")
        if begins and code:
            code = self.rng_more.choice([1, *OTHER_FAILURES])
        more = self.world.plan.features.reports_again and self.copy is None and self._asking is not None
        if more and self.rng_more.random() < 0.4:
            self._asking.start_soon(self._report_again, document_id, 0 if code else 1)
        return code, message

    async def _report_again(self, document_id: str, code: int) -> None:
        """Something else, after its first report: it was put back as it had been before the command, say."""
        await trio.sleep(self.rng_more.uniform(0.1, 4.0))
        self.program.stateful.add(command_report(document_id, code, "once more"))

    def _check_order(self, life: CommandLife) -> None:
        """Those that were sent to it in an order come in that, also where one reply doesn't hold them: unless a fault
        gave one back, or somebody else polls in its name."""
        if self.copy is not None or self.thieves or self in self.world.at_once.twice:
            return
        for earlier in self.world.commands.values():
            before = earlier.agent == self.uuid and 0 < earlier.number < life.number
            if not before or earlier.received or earlier.ended or earlier.too_large:
                continue
            if not self.world.had_cause(trio.current_time() - earlier.made + 1.0):
                raise Violation("command order", f"{self.name} has {life.document_id} before {earlier.document_id}")

    def note_received(self, life: CommandLife) -> bool:
        """A command came; returns whether it did before."""
        document_id = life.document_id
        self.world.trace.add(self.name, f"has command {document_id}")
        life.received.append(trio.current_time())
        if life.too_large:
            raise Violation("reply size", f"{self.name} was given {document_id}, which fits into no reply")
        again = len(life.received) > 1
        self._check_order(life)
        if again and not life.excused and document_id not in self.world.stores.excused:
            raise Violation("exactly once", f"{self.name} was given {document_id} at {life.received}")
        return again
