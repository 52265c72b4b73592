"""The names of the agents that `wazuh-comms top` shows, from the store of agents."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Final

import trio

from wazuh_comms_trio.cli.agents.names import is_label
from wazuh_comms_trio.cli.program import Failure
from wazuh_comms_trio.errors import CommsError

#: Seconds that a look into the store may take, and until the next one after it failed.
READ_TIMEOUT: Final = 2.0
PAUSE: Final = 30.0
#: Names that are remembered.
MOST: Final = 1000


class AgentNames:
    """Names by agent, each read once. A store that can't be read costs names alone."""

    def __init__(self, arguments: Namespace) -> None:
        self._arguments = arguments
        self._known: dict[str, str] = {}
        self._next = 0.0

    def of(self, agent_ids: Sequence[str]) -> Mapping[str, str]:
        """The names of those agents that are known; one that several have, or
        that is no label, is no name. Blocks."""
        missing = [agent_id for agent_id in agent_ids if agent_id not in self._known]
        if missing and time.monotonic() >= self._next:
            if len(self._known) > MOST:
                self._known.clear()
                missing = list(agent_ids)
            try:
                trio.run(self._read, missing)
            except* (CommsError, OSError, Failure):
                self._next = time.monotonic() + PAUSE
        return self._known

    async def _read(self, agent_ids: Sequence[str]) -> None:
        from wazuh_comms_trio.cli.stores import open_stores

        with trio.move_on_after(READ_TIMEOUT) as scope:
            async with open_stores(self._arguments) as stores:
                names = await stores.backends.agents.unique_names(agent_ids)
                labels = {agent_id: name for agent_id, name in names.items() if is_label(name)}
                self._known |= {agent_id: labels.get(agent_id, agent_id) for agent_id in agent_ids}
        if scope.cancelled_caught:
            self._next = time.monotonic() + PAUSE
