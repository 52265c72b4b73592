"""The agents of a group, or of a name, and all of them in pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from typing import Any, Final

from wazuh_comms_trio.backends.agent_orders import AgentOrder
from wazuh_comms_trio.backends.opensearch.agents.documents import to_name
from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable, OpenSearchClient
from wazuh_comms_trio.backends.opensearch.client.found import Found
from wazuh_comms_trio.backends.opensearch.client.queries import Query, every, exactly, nothing_of
from wazuh_comms_trio.backends.opensearch.client.search import Hits, Refresher, scroll, search
from wazuh_comms_trio.backends.opensearch.index_names import IndexName

EVERYONE: Final[Query] = {"match_all": {}}
_NAME: Final = "agent.name"
_ID: Final = "agent.id"
#: Agents in one page of some 700 bytes each.
_PAGE: Final = 1000


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

    async def shared(self, names: Collection[str]) -> Collection[str]:
        """Those of ``names`` that several agents have. Raises ``BackendUnavailable``."""
        found = await self.find(exactly("agent.name", names), ["agent.name"])
        count = Counter(to_name(document.source) for document in found)
        return {name for name in names if count[name] > 1}

    async def find(self, query: Query, fields: Sequence[str]) -> Sequence[Found]:
        """Every agent's document that ``query`` finds and that can be read, with these ``fields`` of it. Raises
        ``BackendUnavailable``."""
        index = await self._index.present()
        if index is None:
            return []
        await self._refresher.refresh(index)
        async with scroll(self._client, index, query, fields=fields) as found:
            return list({document.id: document async for document in found}.values())

    async def pages(self, order: AgentOrder, *, reverse: bool) -> AsyncGenerator[Sequence[Found], None]:
        """As ``AgentRegistry.pages``, each a search of its own behind the page before: nothing is kept open in the
        indexer meanwhile, however long a page is looked at. Nothing, not even an empty page, where the index can't be
        sorted. Raises ``BackendUnavailable``."""
        index = await self._index.present()
        if index is None:
            yield []
            return
        await self._refresher.refresh(index)
        for below in ("", ".keyword"):
            if not await self._has_all(index, below):
                continue
            sort = _sort(order, below, reverse)
            try:
                hits = await self._page(index, sort, None)
            except IndexerUnavailable as exc:
                if exc.reply is None or exc.reply.status != 400:
                    raise
                continue  # texts can't be sorted by
            given: dict[str, Sequence[Any] | None] = {}
            while True:
                yield list({hit.id: hit for hit in hits.readable if hit.id not in given}.values())
                if hits.seen < _PAGE or hits.last is None:
                    return
                # One that is written meanwhile comes again, behind its equals, of which it is mostly the only one.
                given |= {hit.id: hit.sort for hit in hits.readable}
                given = {i: place for i, place in given.items() if place is not None and place[:-1] == hits.last[:-1]}
                hits = await self._page(index, sort, hits.last)

    async def _page(self, index: str, sort: Sequence[Mapping[str, Any]], after: Sequence[Any] | None) -> Hits:
        """Reads one page; a full one doesn't end among documents of one place, which they may have who lack an id."""
        hits = await search(self._client, index, EVERYONE, sort=sort, size=_PAGE, fields=["agent"], after=after)
        is_unclear = hits.seen >= _PAGE and hits.last is not None and None in hits.last
        return hits.without_last() if is_unclear else hits

    async def _has_all(self, index: str, below: str) -> bool:
        """Whether searches find each agent's name and id as a keyword: a text that is too long for that isn't there."""
        for field in (_NAME, _ID) if below else ():
            missing = nothing_of({"exists": {"field": field}}, {"exists": {"field": f"{field}{below}"}})
            if (await search(self._client, index, every(missing), size=1, fields=[])).seen:
                return False
        return True


def _sort(order: AgentOrder, below: str, reverse: bool) -> Sequence[Mapping[str, Any]]:
    """The order of a page: equal names by id, whichever way; documents with neither, by other programs, by when they
    were written."""

    def key(field: str, down: bool) -> Mapping[str, Any]:
        options = {"order": "desc", "missing": "_last"} if down else {"order": "asc", "missing": "_first"}
        return {f"{field}{below}": {**options, "unmapped_type": "keyword"}}

    keys = [key(_ID, reverse)] if order == "uuid" else [key(_NAME, reverse), key(_ID, False)]
    return [*keys, {"_seq_no": {"order": "asc"}}]
