"""Documents of the agents', commands' and nodes' indices that can't be read: found, shown and removed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

from wazuh_comms_trio.backends.opensearch.agents import documents as agents
from wazuh_comms_trio.backends.opensearch.client.bulk import SHARD_WAIT
from wazuh_comms_trio.backends.opensearch.client.client import OpenSearchClient, decode, path
from wazuh_comms_trio.backends.opensearch.client.error_details import error_of
from wazuh_comms_trio.backends.opensearch.client.found import FindProblem, Found
from wazuh_comms_trio.backends.opensearch.client.multi_get import get_many
from wazuh_comms_trio.backends.opensearch.client.places import Places
from wazuh_comms_trio.backends.opensearch.client.queries import Query
from wazuh_comms_trio.backends.opensearch.client.search import Refresher, scroll
from wazuh_comms_trio.backends.opensearch.commands import documents as commands
from wazuh_comms_trio.backends.opensearch.index_names import find_name
from wazuh_comms_trio.config.backend_models import IndexerNames

_EVERYTHING: Final[Query] = {"match_all": {}}


async def find_unreadable(
    client: OpenSearchClient,
    index: str,
    *,
    fields: Sequence[str] | None = None,
    find_problem: FindProblem = lambda source: None,
) -> AsyncIterator[Found]:
    """All unreadable documents of an index; ``fields``: what is read of them; ``find_problem``: what the index is for.
    Raises ``BackendUnavailable``."""
    told: set[str] = set()
    async with scroll(client, index, _EVERYTHING, fields=fields, unreadable=True) as found:
        async for document in found:
            if document.judged(find_problem).problem is not None and document.id not in told:
                told.add(document.id)
                yield document


async def get_document(
    client: OpenSearchClient, index: str, document_id: str, names: IndexerNames | None = None
) -> Found | None:
    """One document, readable or not; of the index of agents or commands among ``names``, also such as is neither.
    Raises ``BackendUnavailable``."""
    places = await Places(client, Refresher(client)).find(index, [document_id])
    found = (await get_many(client, index, [document_id], places=places)).get(document_id)
    if found is not None and places is not None and document_id in places:
        found.routing = places[document_id].routing
    if found is not None and names is not None:
        if index == await find_name(client, "agents", names.agents):
            found.judged(agents.find_problem)
        elif index == await find_name(client, "commands", names.commands):
            found.judged(commands.find_problem)
    return found


async def remove_unreadable(client: OpenSearchClient, document: Found) -> bool:
    """Removes a document as it was read; False when it has been changed or removed since. Raises
    ``BackendUnavailable``."""
    query = {"if_seq_no": str(document.seq_no), "if_primary_term": str(document.primary_term), "refresh": "true"}
    query["timeout"] = SHARD_WAIT
    if document.routing is not None:
        query["routing"] = document.routing
    reply = await client.request("DELETE", path(document.index, "_doc", document.id), query=query)
    if reply.status == 409 or (reply.status == 404 and not error_of(reply).type):
        return False
    decode(reply)
    return True


def split_name(name: str) -> tuple[str, str]:
    """``index/_id`` in its two parts. Raises ``ValueError``."""
    index, sign, document_id = name.partition("/")
    if not index or not sign or not document_id or index.startswith("_") or "*" in index or "," in index:
        raise ValueError("give the document's index and id, as INDEX/ID")
    return index, document_id
