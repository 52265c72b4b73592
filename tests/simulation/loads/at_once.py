"""Agents that ask for several things at once, as a program of several threads does: stateful and stateless events on
connections of their own, a second poll beside the one that is parked, log-ins, files. Each is answered as if it were
alone; of bodies that came at once to one worker one is the last, as a whole, and that is the one that came last."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from math import inf
from random import Random
from typing import TYPE_CHECKING, Final

import trio

from tests.simulation.actors.client import last_connection
from tests.simulation.model import Operation
from tests.simulation.nodes.agent_files import FILES
from tests.simulation.trace import Violation
from wazuh_comms_trio.testing.agent.client import stateful_event
from wazuh_comms_trio.testing.agent.http import ExchangeFailed, Reply

if TYPE_CHECKING:
    from tests.simulation.actors.agents import SimAgent
    from tests.simulation.nodes.network import Connection
    from tests.simulation.world import World

__all__ = ["AtOnce", "check_one_poll"]

#: Documents that each of an agent's bodies at once writes.
_DOCUMENTS: Final = ("m0", "m1", "m2")
#: Seconds beyond its time for which a body that got no answer may be written still, by another process.
_UNDER_WAY: Final = 10.0
#: Seconds between bodies that come one after the other, each while those before it are under way; and for which one may
#: have been held up.
_APART: Final = 0.3
_HELD_UP: Final = 20.0
#: Seconds after which a poll ends that has a newer one beside it, once that is there; and by what neither may be known.
_PROTECTED: Final = 5.0
_KNOWN_AFTER: Final = 3.0
_UNTOLD: Final = ("cut link", "hang worker")
_UNTOLD_WITHIN: Final = 20.0


class AtOnce:
    """``left``: bodies that aren't taken yet. ``twice``: agents that poll a second time beside themselves now and
    then, of whose commands one may overtake another."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = Random(f"{world.plan.seed} at once")
        self._number = 0
        self.left = 0
        self.twice: set[SimAgent] = set()
        self._failed_at: dict[SimAgent, float] = {}  # bodies of theirs, last

    async def run(self, until: float) -> None:
        rng, world = self._rng, self._world
        agents = rng.sample(world.agents, 2)
        self.twice.update(agents[:1] if rng.random() < 0.7 else ())
        async with trio.open_nursery() as nursery:
            for agent in agents:
                nursery.start_soon(self._go_on, agent, until)

    async def _go_on(self, agent: SimAgent, until: float) -> None:
        rng = self._rng
        while trio.current_time() < until:
            await trio.sleep(rng.expovariate(0.25))
            if agent.client.token is None:
                continue
            self._world.trace.add(agent.name, "does several things at once")
            async with trio.open_nursery() as nursery:
                if rng.random() < 0.8:
                    nursery.start_soon(self._post_stateful, agent)
                if rng.random() < 0.7:
                    for _ in range(rng.choice([2, 3, 6])):
                        nursery.start_soon(self._post_stateless, agent)
                if rng.random() < 0.3:
                    nursery.start_soon(self._log_in_twice, agent)
                if agent in self.twice:
                    nursery.start_soon(self._poll, agent)
                for _ in range(rng.choice([0, 0, 3])):
                    nursery.start_soon(self._fetch, agent)

    async def _post_stateful(self, agent: SimAgent) -> None:
        """The same documents in each body."""
        module = self._rng.choice(["fim", "sca"])
        bodies = []
        for _ in range(self._rng.choice([2, 3, 5])):
            self._number += 1
            ids = self._rng.sample(_DOCUMENTS, len(_DOCUMENTS))  # else pieces in turns would all end with one body's
            made = [Operation(module, id, "create", {"n": self._number}) for id in ids]
            for operation in made:
                agent.model.apply(operation)
            bodies.append(made)
        taken: list[Connection] = []
        began = trio.current_time()
        apart = self._rng.choice([0.0, _APART])
        async with trio.open_nursery() as nursery:
            for made in bodies:
                nursery.start_soon(self._post_body, agent, made, taken)
                await trio.sleep(apart)
        quiet = trio.current_time() - self._failed_at.get(agent, -inf)
        under_way = self._world.config.communications_api.timeouts.stateful + _UNDER_WAY
        of_one = len({each.server.process for each in taken}) == 1 and quiet > under_way
        none_again = quiet > trio.current_time() - began
        whole = none_again and (of_one or self._world.plan.keeps_order)
        is_last_known = apart and whole and self._came_in_order(taken)
        agent.model.at_once(bodies[-1:] if is_last_known else bodies, whole=whole)
        for made in bodies:
            for operation in made:
                agent.model.acknowledge(operation)
        self._world.trace.strike("at once", "stateful", f"{agent.name}, {len(bodies)} bodies")

    def _came_in_order(self, taken: Sequence[Connection]) -> bool:
        """Whether bodies that were sent one after the other came so, and nothing held one up before it had its turn."""
        was_held_up = self._world.plan.features.small_room or self._world.store_was_away("agents", _HELD_UP)
        return not was_held_up and all(each.fault is None and each not in self._world.silent for each in taken)

    async def _post_body(self, agent: SimAgent, made: Sequence[Operation], taken: list[Connection]) -> None:
        """``taken``: the connections on which bodies were."""
        events = [stateful_event(each.id, each.module, each.action, each.data) for each in made]
        self.left += 1
        while (reply := await self._try(agent.client.post_stateful(events))) is None or reply.status != 200:
            self._failed_at[agent] = trio.current_time()
            await self._pause(agent, reply)
        taken.append(last_connection())
        self.left -= 1

    async def _post_stateless(self, agent: SimAgent) -> None:
        self._number += 1
        mark = f"{agent.name}-m{self._number}"
        filler = "x" * self._rng.choice([0, 100, 400])
        line = json.dumps({"module": "logcollector", "collector": "file"}) + "\n"
        line += json.dumps({"event": mark, "filler": filler}) + "\n"
        self.left += 1
        while (reply := await self._try(agent.client.post_stateless([line.encode()]))) is None or reply.status != 204:
            await self._pause(agent, reply)
        self.left -= 1
        agent.promised.append(mark)
        self._world.trace.strike("at once", "stateless", agent.name)

    async def _log_in_twice(self, agent: SimAgent) -> None:
        """Whichever comes last: each token is good."""
        keys, tokens = agent.client.keys, []

        async def log_in() -> None:
            reply = await self._try(agent.client.authenticate())
            if reply is not None and reply.status == 200:
                tokens.append(str(reply.json()["token"]))

        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(log_in)
        for token in tokens:
            if agent.client.keys == keys == agent.client.token_keys:
                agent.client.token = token  # whose use is looked at by the client
                await self._fetch(agent)
                self._world.trace.strike("at once", "log-ins", agent.name)

    async def _poll(self, agent: SimAgent) -> None:
        """A second one."""
        reply = await self._try(agent.client.poll())
        if reply is not None and reply.status == 200:
            self._world.trace.strike("at once", "second poll", agent.name)
            await agent.program.take(reply)

    async def _fetch(self, agent: SimAgent) -> None:
        await agent.fetch(self._rng.choice(list(FILES)))

    @staticmethod
    async def _try(call: object) -> Reply | None:
        with suppress(ExchangeFailed):
            return await call  # type: ignore[misc]
        return None

    @staticmethod
    async def _pause(agent: SimAgent, reply: Reply | None) -> None:
        """As the program does after a failure."""
        await agent.program._sleep_after(reply)


def check_one_poll(world: World, agent: SimAgent) -> None:
    """Of two polls of an agent at one node the older one ends soon, whichever workers have them: also a copy's."""
    if world.had_cause(_UNTOLD_WITHIN, _UNTOLD) or world.plan.features.upgrades:
        return
    now = trio.current_time()
    parked: dict[int, float] = {}
    for client, poll in agent.polls:
        connection = poll.connection
        if connection is None or connection.taken is None or connection.fault is not None:
            continue
        if connection in world.silent or connection.server.process is None or world.registry_hung(poll.since):
            continue
        if connection.taken < now - _PROTECTED - _KNOWN_AFTER:
            node = connection.server.process.node
            if node in parked:
                raise Violation(
                    "one poll",
                    f"{client.name} has two at node {node}, of {parked[node]:.1f} and {connection.taken:.1f}",
                )
            parked[node] = connection.taken
