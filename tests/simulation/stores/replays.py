"""``wazuh-comms quarantine replay --all``, without the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wazuh_comms_trio.backends.interfaces import Backends
from wazuh_comms_trio.cli.replay import Replay
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.quarantine.interface import Quarantine

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["replay_all"]


async def replay_all(world: World, backends: Backends, quarantine: Quarantine) -> None:
    """Where several nodes write to one index none is replayed whose document another one may have a newer event on."""
    other = "another node" if len(world.nodes) > 1 else None
    replay = Replay(backends, quarantine, world.config, force=False, other_node=other)
    for entry in await quarantine.list(limit=100):
        try:
            done = await replay.replay(entry)
        except BackendUnavailable:
            continue  # it stays
        said = "taken" if done.error is None else "overtaken" if done.overtaken else "refused"
        world.trace.strike("replay", said, "operator")
