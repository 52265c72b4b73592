"""The agents of a group, or of a name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from wazuh_comms_trio.backends.opensearch.client.client import OpenSearchClient
from wazuh_comms_trio.backends.opensearch.client.found import Found
from wazuh_comms_trio.backends.opensearch.client.queries import Query, exactly
from wazuh_comms_trio.backends.opensearch.client.search import Refresher, scroll
from wazuh_comms_trio.backends.opensearch.index_names import IndexName

EVERYONE: Final[Query] = {"match_all": {}}


class AgentSearch:
    """Searches the registry, as it is at that moment."""

    def __init__(self, client: OpenSearchClient, index: IndexName) -> None:
        self._client = client
        self._index = index
        self._refresher = Refresher(client)

    async def members(self, group: str) -> Sequence[str]:
        """The ids of the agents in ``group``; ``all`` is every agent. Raises ``BackendUnavailable``."""
        query = EVERYONE if group == "all" else exactly("agent.groups", [group])
        return sorted(found.id.lower() for found in await self.find(query, []))

    async def named(self, name: str) -> Sequence[str]:
        """The ids of the agents of exactly this name. Raises ``BackendUnavailable``."""
        found = await self.find(exactly("agent.name", [name]), [])
        return sorted(document.id.lower() for document in found)

    async def find(self, query: Query, fields: Sequence[str]) -> Sequence[Found]:
        """Every agent's document that ``query`` finds and that can be read, with these ``fields`` of it. Raises
        ``BackendUnavailable``."""
        index = await self._index.present()
        if index is None:
            return []
        await self._refresher.refresh(index)
        async with scroll(self._client, index, query, fields=fields) as found:
            return list({document.id: document async for document in found}.values())
