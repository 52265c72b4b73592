"""Vulnerability scans that agents ask for, some of one agent at a time: what comes is the answer to what was asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.simulation.trace import Violation
from wazuh_comms_trio.testing.agent.http import ExchangeFailed

if TYPE_CHECKING:
    from tests.simulation.actors.agents import SimAgent

__all__ = ["scan"]

_TEXTS = (
    *("architecture", "checksum", "description", "format", "groups", "item_id", "multiarch"),
    *("priority", "scan_time", "source", "vendor", "version"),
)


async def scan(agent: SimAgent) -> None:
    """One, of some packages. There is no scanner beside embedded stores: their answer is empty."""
    world, rng = agent.world, agent.rng_more
    names = [f"{agent.name}-{rng.randrange(1_000_000)}" for _ in range(rng.choice([1, 3, 300]))]
    packages = [{"name": name, "size": 1, **dict.fromkeys(_TEXTS, "x")} for name in names]
    try:
        reply = await agent.client.scan({"type": "packagelist", "packages": packages})
    except ExchangeFailed:
        return
    if reply.status != 200:
        return  # the client has looked at why
    wanted = b"" if world.plan.stores == "embedded" else json.dumps({"scanned": names}).encode()
    if reply.body != wanted:
        raise Violation("own scans", f"{agent.name} asked for {names[:3]} and was answered {reply.body[:80]!r}")
