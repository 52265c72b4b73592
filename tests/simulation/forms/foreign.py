"""Another program that writes into the indices of agents and commands what it likes: documents that are none, and
members beside ours in those that are. Each costs at most itself (docs/guarantees.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import trio

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["FOREIGN", "run_foreign_writer"]

#: What ids of such documents begin with, but for those that look like an agent's.
FOREIGN: Final = "foreign-"

_AGENTS: Final = "wazuh-agents"
_COMMANDS: Final = "wazuh-commands"


async def run_foreign_writer(world: World, until: float) -> None:
    rng = Random(f"{world.plan.seed} foreign")
    while trio.current_time() < until:
        await trio.sleep(rng.expovariate(0.7))
        uuid = str(UUID(int=rng.getrandbits(128), version=4))
        chance = rng.random()
        if chance < 0.35:
            document_id = rng.choice([uuid, f"{FOREIGN}{rng.randrange(5)}", *world.hostile])
            world.stores.write_foreign(_AGENTS, document_id, rng.choice(_no_agents(uuid)))
        elif chance < 0.75:
            agent = rng.choice(world.agents)
            commands = _no_commands(rng.choice([uuid, agent.uuid]), uuid)
            world.stores.write_foreign(_COMMANDS, f"{FOREIGN}{rng.randrange(9)}", rng.choice(commands))
        elif chance < 0.9:
            agent = rng.choice(world.agents)
            world.stores.add_foreign(_AGENTS, agent.uuid, {"agent": {"host": {"seen_by": rng.randrange(100)}}})
        elif world.commands:
            document_id = rng.choice(list(world.commands))
            world.stores.add_foreign(_COMMANDS, document_id, {"ticket": {"number": rng.randrange(100)}})
        world.trace.strike("foreign document", "written", "indexer")


def _no_agents(uuid: str) -> Sequence[Any]:
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"a": deep}
    return (
        {},
        {"agent": 7},
        {"agent": []},
        {"agent": {"id": uuid, "name": "foreign", "key": 7}},
        {"agent": {"id": uuid, "name": ["foreign"], "groups": "web", "last_login": "yesterday"}},
        {"agent": {"id": uuid, "name": "foreign", "key": "", "groups": {"web": deep}}},
        {"text": deep},
    )


def _no_commands(target: str, uuid: str) -> Sequence[Mapping[str, Any]]:
    """None of them is one that an agent of the world may be given: what is for it can't be read."""
    for_nobody = {"type": "agent", "id": uuid}
    return (
        {},
        {"command": "restart", "target": {"type": "agent", "id": target}},
        {"command": [{"status": "pending", "target": {"type": "agent", "id": target}}]},
        {"command": {"status": 7, "target": {"type": "agent", "id": target}}},
        {"command": {"status": ["pending"], "target": {"type": "agent", "id": target}}},
        {"command": {"status": "pending", "target": for_nobody, "action": 7, "timeout": "soon"}},
        {"command": {"status": "pending", "target": {"type": "group", "id": "nobodys"}, "action": {"name": []}}},
        {"command": {"status": "sent", "target": for_nobody, "result": 7, "order_id": {}}},
        {"command": {"status": "pending", "target": 7}},
        {"command": {"status": "pending"}},
    )
