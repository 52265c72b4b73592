"""Documents that the indexer can't give, as its index knows them: what was indexed of them, and what makes a whole
document again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import evolve

from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable, OpenSearchClient, path
from wazuh_comms_trio.backends.opensearch.client.found import Found
from wazuh_comms_trio.backends.opensearch.client.search import search
from wazuh_comms_trio.backends.opensearch.commands.documents import ESSENTIAL, Document, read

_FIELDS: Final = "@timestamp,delivery_timestamp,command.*,delivery.*"
_BELOW: Final = ".keyword"
#: Fields that one search may ask for (``index.max_docvalue_fields_search``).
MOST_VALUES: Final = 100


async def read_indexed(client: OpenSearchClient, name: str, ids: Sequence[str], seen_at: float) -> dict[str, Document]:
    """Reads what is indexed of these documents as of the last refresh; ``Document.rebuilt``. None where our account may
    not ask for that. Raises ``BackendUnavailable``."""
    try:
        caps: Any = await client.json("GET", path(name, "_field_caps"), query={"fields": _FIELDS})
    except IndexerUnavailable as exc:
        if exc.reply is not None and exc.reply.status == 403:
            return {}
        raise
    values = values_of(caps.get("fields", {}))
    hits = await search(client, name, {"ids": {"values": list(ids)}}, size=len(ids), fields=[], values=values)
    return {hit.id: evolve(read(_rebuilt(hit), seen_at), partial=True, rebuilt=True) for hit in hits.readable}


def values_of(fields: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """What is to be asked for; dates as they are written. Of too many, those that a document's steps need first."""
    found: list[dict[str, str]] = []
    for name in sorted(fields, key=lambda name: name.removesuffix(_BELOW).startswith(ESSENTIAL), reverse=True):
        types = fields[name]
        if types and all(each.get("aggregatable") for each in types.values()):
            found.append({"field": name, **({"format": "strict_date_optional_time"} if "date" in types else {})})
    return found[:MOST_VALUES]


def _rebuilt(hit: Found) -> Found:
    source: dict[str, Any] = {}
    for name, values in sorted((hit.fields or {}).items()):
        *folders, last = name.removesuffix(_BELOW).split(".")
        inner = source
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[last] = values[0] if len(values) == 1 else values
    hit.source = source
    return hit
