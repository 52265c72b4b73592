"""What goes by its age, where days are seconds: commands that have ended, and documents of agents that were removed,
each not before its time and not long after it; nothing else does."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final
from uuid import UUID

import trio
from attrs import define

from tests.simulation.actors.operators import insist
from tests.simulation.plans.limits import DAY, KEEP
from tests.simulation.stores.embedded import EmbeddedStores
from tests.simulation.trace import Violation
from wazuh_comms_trio.backends.embedded.quota.counting import ROW_BYTES
from wazuh_comms_trio.backends.interfaces import Agent, Command, DocumentOperation
from wazuh_comms_trio.errors import AgentExists

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.simulation.world import World

__all__ = ["Pruned", "check_documents_left", "run_leavers"]

_ENDS: Final = ("success", "failed")
#: Seconds by which an age may be wrong: the store's clock moves with its looks, and by a day at most when it begins to
#: go after none was there; and commands are looked at here each second.
_SLACK: Final = DAY + 3.0
#: Times its age that something may have at the end: what has kept it may have been over for a while.
_OVERDUE: Final = 3.0
_INDEX: Final = "wazuh-states-fim"


@define
class _Ended:
    since: float
    command: Command


@define
class _Leaver:
    """``removed``: since when it is, as its operator knows; ``is_back``: it was enrolled again, in time."""

    uuid: str
    began: float
    removed: float = 0.0
    is_back: bool = False


class Pruned:
    """What has been seen of commands and of agents that were removed. ``commands``: those that went by their age, as
    they were."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._there: dict[str, Command] = {}
        self._ended: dict[str, _Ended] = {}
        self.commands: dict[str, Command] = {}
        self.leavers: list[_Leaver] = []

    def look(self, commands: Mapping[str, Command], *, is_on: bool = False) -> None:
        """Each second. No commands at all: the machine is off, unless it is known to be on."""
        now = trio.current_time()
        for document_id in self._there.keys() - commands.keys() if commands or is_on else ():
            self._check_gone(document_id, now)
        self._there.update(commands)
        for document_id, command in commands.items():
            if command.status not in _ENDS:
                before = self._ended.pop(document_id, None)
                if before is not None and command.status == "pending":  # it had gone, and was posted again since
                    self._note_gone(document_id, before)
            elif (ended := self._ended.get(document_id)) is not None:
                ended.command = command
            else:
                self._ended[document_id] = _Ended(now, command)

    def _check_gone(self, document_id: str, now: float) -> None:
        del self._there[document_id]
        ended = self._ended.pop(document_id, None)
        if ended is None:
            raise Violation("pruned", f"{document_id} is gone, and hadn't ended")
        age = KEEP.finished_commands * DAY
        if now - ended.since < age - _SLACK and not self._world.had_wrong_clock(0.0):
            raise Violation("pruned", f"{document_id} ended at {ended.since:.1f} and is gone")
        self._note_gone(document_id, ended)

    def _note_gone(self, document_id: str, ended: _Ended) -> None:
        self.commands[document_id] = ended.command
        if (life := self._world.commands.get(document_id)) is not None:
            life.excused = True  # who posts it again posts another one

    def may_be_gone(self, document_id: str) -> bool:
        """Whether a command is, or may be since it was looked for."""
        ended = self._ended.get(document_id)
        age = KEEP.finished_commands * DAY - _SLACK
        is_old = ended is not None and (trio.current_time() > ended.since + age or self._world.had_wrong_clock(0.0))
        return is_old or document_id in self.commands

    def check_none_left(self) -> None:
        """What is old enough has gone, once everything is served."""
        oldest = trio.current_time() - _OVERDUE * KEEP.finished_commands * DAY
        left = [each for each, ended in self._ended.items() if ended.since < oldest]
        if left and not self._world.had_cause(DAY + _OVERDUE * KEEP.finished_commands * DAY / 2):
            raise Violation("pruned", f"{left} ended long ago and are there")


async def run_leavers(world: World, until: float) -> None:
    """Agents with documents are removed; some are enrolled again before these go."""
    rng = Random(f"{world.plan.seed} leavers")
    assert isinstance(world.stores, EmbeddedStores)
    while trio.current_time() < until:
        await trio.sleep(rng.uniform(0.5, 6.0))
        leaver = _Leaver(str(UUID(int=rng.getrandbits(128), version=4)), trio.current_time())
        agent = Agent(leaver.uuid, f"leaver{len(world.pruned.leavers)}", world.key_hash)
        await insist(partial(_add, world, agent))
        body = json.dumps({"n": 1, "agent": {"id": leaver.uuid}}).encode()
        made = [
            DocumentOperation("create", _INDEX, f"{leaver.uuid}_d{number}", body, own=True)
            for number in range(rng.choice([1, 1, 5]))
        ]
        world.quota.beside += len(made) * (len(body) + ROW_BYTES)
        await insist(partial(world.stores.events.bulk, made))
        await insist(partial(world.stores.registry.remove, leaver.uuid))
        leaver.removed = trio.current_time()
        world.trace.add("operator", f"removes {agent.name}, who had {len(made)} documents")
        world.pruned.leavers.append(leaver)
        if rng.random() < 0.5:
            await trio.sleep(rng.uniform(0.0, 3.0))
            await insist(partial(_add, world, agent))
            leaver.is_back = trio.current_time() < leaver.began + KEEP.removed_agents * DAY - _SLACK
            if not leaver.is_back:
                world.pruned.leavers.remove(leaver)  # nobody knows which of both came first
                continue
            world.trace.strike("is back", "agent", agent.name)


async def _add(world: World, agent: Agent) -> None:
    with suppress(AgentExists):  # the answer was lost
        await world.stores.add_agent(agent)


async def check_documents_left(world: World, *, at_end: bool = False) -> None:
    """Of agents that were removed: there until they are old, then gone; of those that are back they stay."""
    documents = await world.stores.documents()
    there = {document_id.partition("_")[0] for _, document_id in documents}
    now, age = trio.current_time(), KEEP.removed_agents * DAY
    for leaver in world.pruned.leavers:
        is_young = leaver.is_back or now < leaver.began + age - _SLACK
        if leaver.uuid not in there and is_young and (leaver.is_back or not world.had_wrong_clock(0.0)):
            raise Violation("pruned", f"documents of {leaver} are gone")
        is_overdue = now > leaver.removed + _OVERDUE * age and not world.had_cause(DAY + _OVERDUE * age / 2)
        if at_end and leaver.uuid in there and is_overdue and not leaver.is_back:
            raise Violation("pruned", f"documents of {leaver} are there")
