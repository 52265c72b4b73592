"""How many fields an index has of those that it may have: any agent's documents can make new ones where the mapping is
a dynamic one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable, OpenSearchClient, path

#: From that share on it is worth a warning.
SHARE: Final = 0.8
MORE_FIELDS: Final = (
    "see whose documents make them; raise index.mapping.total_fields.limit, or index anew with fields that are mapped;"
    " then `wazuh-comms quarantine replay`"
)
_WITH_DEFAULTS: Final = {"flat_settings": "true", "include_defaults": "true"}
_LIMIT: Final = "index.mapping.total_fields.limit"


def count_fields(mappings: Mapping[str, Any]) -> int:
    """As the indexer counts them: objects, and what a field is indexed as besides, are fields, too."""
    return sum(
        1 + count_fields(field)
        for kind in ("properties", "fields")
        for field in mappings.get(kind, {}).values()
        if isinstance(field, Mapping)
    )


def full_of_fields(index: str, mappings: Mapping[str, Any], limit: object) -> str | None:
    """A sentence about an index that has nearly as many fields as it may."""
    count = count_fields(mappings)
    if not str(limit).isdecimal() or count < SHARE * int(str(limit)):
        return None
    return f"{index}: it has {count} of {limit} fields: documents with further ones go to the quarantine"


async def about_fields(client: OpenSearchClient, names: Sequence[str]) -> list[str]:
    """A sentence for each such index; none where we aren't allowed to know. Raises ``BackendUnavailable``."""
    found = []
    for name in names:
        try:
            settings = await client.json("GET", path(name, "_settings"), query=_WITH_DEFAULTS)
            mappings = await client.json("GET", path(name, "_mapping"))
        except IndexerUnavailable as exc:
            if exc.reply is None or exc.reply.status != 403:
                raise
            continue
        for index, mapping in mappings.items():
            of_index = settings.get(index, {})
            limit = of_index.get("settings", {}).get(_LIMIT) or of_index.get("defaults", {}).get(_LIMIT)
            found.append(full_of_fields(index, mapping.get("mappings", {}), limit))
    return [text for text in found if text is not None]
