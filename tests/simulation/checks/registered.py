"""What the registry has of agents, once everything is served: what they said of themselves when they were enrolled, and
when they logged in last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from tests.simulation.trace import Violation

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["ENROLLED", "check_registered"]

_HOST: Final = {"hostname": "one", "ip": ["10.9.8.7"]}
#: What an agent says of itself that is enrolled meanwhile, beside its id, name and key.
ENROLLED: Final = {"type": "Endpoint", "version": "6.0.0", "host": _HOST}
#: Seconds until a log-in is written: in embedded stores with what comes with it, in an indexer once it has turned out
#: to be well again.
_WRITTEN_WITHIN: Final = 16.0
#: Between a node's clock and that by which an agent asks, and what a store rounds off.
_SLACK: Final = 1.0


async def check_registered(world: World) -> None:
    """A log-in that was answered after the faults is recorded, with an active agent: nothing has ended since, and where
    an agent's machine was cloned both log in. No clock was wrong."""
    await trio.sleep(_WRITTEN_WITHIN)
    for agent in world.agents:
        if agent.client.is_being_rekeyed:
            continue
        record = await world.stores.registry.get(agent.uuid)
        if record is None:
            raise Violation("registered", f"{agent.name} isn't in the registry")
        if record.name != agent.name:
            raise Violation("registered", f"{agent.name} is called {record.name!r}")
        host = {name: record.host.get(name) for name in _HOST}  # others may know more of it
        if agent.joined and {"type": record.type, "version": record.version, "host": host} != ENROLLED:
            raise Violation("registered", f"{agent.name} said {ENROLLED} of itself, and the registry has {record}")
        began, until = world.faults_ended, trio.current_time() - _WRITTEN_WITHIN
        asked = max((each for each in agent.client.log_ins if each < until), default=-1.0)
        if began is None or asked < began or world.had_wrong_clock(0.0):
            continue
        since = -1.0 if record.last_login is None else record.last_login - world.agents_clock() + trio.current_time()
        if since < asked - _SLACK or record.status != "active":
            raise Violation("registered", f"{agent.name} logged in at {asked:.2f}, and the registry has {record}")
