"""The operator changes the key of the tokens, as ``wazuh-comms keys rotate`` and ``revoke`` do on each node."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import trio

from tests.simulation.nodes.token_keys import another_key
from wazuh_comms_trio.config.check import public_half
from wazuh_comms_trio.services.authentication.tokens import key_id

if TYPE_CHECKING:
    from tests.simulation.actors.agents import SimAgent
    from tests.simulation.nodes.node import Node
    from tests.simulation.world import World

__all__ = ["run_rotation"]


async def run_rotation(world: World, until: float) -> None:
    """Once. A node alone may change its key without a word before, as by a new TLS certificate."""
    rng = Random(f"{world.plan.seed} rotation")
    await trio.sleep(rng.uniform(1.0, until / 2))
    new, of_copies = another_key(), world.plan.features.revokes_copies
    kid, before = key_id(public_half(new)), key_id(public_half(world.private_key))
    in_steps = len(world.nodes) > 1 or rng.random() < 0.5
    if in_steps:
        for node in world.nodes:
            node.keys.following = public_half(new)
            await node.reload()
            await trio.sleep(rng.uniform(0.0, 1.0))
        world.trace.add("operator", "has the next key trusted")
        while not all(_trusts(node, kid) for node in world.nodes):  # nothing tells
            if trio.current_time() > until:
                return
            await trio.sleep(0.5)
    for node in world.nodes:
        if in_steps:
            node.keys.keep()
        node.keys.private, node.keys.following = new, None
        world.trace.strike("another key", "signs", node.name)
        await node.reload()
        for agent in world.agents:
            if rng.random() < (0.1 if of_copies else 0.5):  # the others keep theirs, which the revocation ends
                world.nursery.start_soon(_log_in_again, agent, rng.uniform(0.0, 1.5))
        await trio.sleep(rng.uniform(0.0, 3.0))
    if rng.random() < 0.6 or of_copies:
        await trio.sleep(rng.uniform(0.0, 10.0))
        if rng.random() < 0.5:  # of which workers hear that are just starting
            for node in world.nodes:
                await node.reload()
            await trio.sleep(rng.uniform(0.0, 1.5))
        await _revoke(world, before)


async def _log_in_again(agent: SimAgent, seconds: float) -> None:
    """A token of the new key goes to whichever worker comes, also of the generation before."""
    await trio.sleep(seconds)
    agent.program._token_wanted.set()


async def _revoke(world: World, kid: str) -> None:
    world.revoking.add(kid)
    for node in world.nodes:
        tries = 0
        while not await node.keys.revoke(kid, is_up=node.is_up):
            await trio.sleep(1)  # workers that sign with it are still there
            tries += 1
            if tries % 10 == 0:  # a reload may have failed
                await node.reload()
    world.revoked[kid] = trio.current_time()
    world.trace.strike("revoked", "key", "operator")


def _trusts(node: Node, kid: str) -> bool:
    """All of its workers do, as they say. A node that is down reads the key when it starts."""
    reports = [member.report.get("keys", {}) for member in node.hub.members if member.ready.is_set()]
    return not node.is_up or (bool(reports) and all(kid in keys.get("accepted", ()) for keys in reports))
