"""Which indices hold agents and commands: what is configured, else what exists, else what is made then."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, Literal

import trio

from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable, OpenSearchClient
from wazuh_comms_trio.backends.opensearch.templates import create_index, index_exists
from wazuh_comms_trio.config.backend_models import IndexerNames

logger = logging.getLogger(__name__)

#: In the order they are looked for; the first is what is made.
Kind = Literal["agents", "commands"]
CANDIDATES: Final[Mapping[Kind, tuple[str, ...]]] = {
    "agents": ("wazuh-agents", ".agents"),
    "commands": ("wazuh-commands", ".commands"),
}


async def find_name(client: OpenSearchClient, kind: Kind, configured: str | None) -> str | None:
    """The index of this kind that is to be used and exists, or None. One that our account may not look at is none of
    ours, if another one is. Raises ``BackendUnavailable``."""
    forbidden: IndexerUnavailable | None = None
    for name in (configured,) if configured else CANDIDATES[kind]:
        try:
            if await index_exists(client, name):
                return name
        except IndexerUnavailable as exc:
            if exc.reply is None or exc.reply.status != 403:
                raise
            forbidden = forbidden or exc
    if forbidden is not None:  # it may be there
        raise forbidden
    return None


async def name_to_make(client: OpenSearchClient, kind: Kind, configured: str | None) -> str:
    """The name of an index that doesn't exist yet: of the same generation of names as the other kind's, if that is
    there. Raises ``BackendUnavailable``."""
    if configured:
        return configured
    other: Kind = "commands" if kind == "agents" else "agents"
    present = await find_name(client, other, None)
    return CANDIDATES[kind][CANDIDATES[other].index(present) if present else 0]


class IndexName:
    """The name of one of the two indices, found on first use and then kept: an index that vanishes later isn't made
    anew. An empty registry would tell every agent that it doesn't exist."""

    def __init__(self, client: OpenSearchClient, kind: Kind, settings: IndexerNames) -> None:
        self._client = client
        self._kind: Kind = kind
        self._configured = settings.agents if kind == "agents" else settings.commands
        self._found: str | None = None
        self._lock = trio.Lock()

    @property
    def is_known(self) -> bool:
        """Whether the index was there once."""
        return self._found is not None

    async def get(self) -> str:
        """The index's name; the index is made where it is missing. Raises ``BackendUnavailable``."""
        if self._found is None:
            async with self._lock:
                if self._found is None:
                    self._found = await self._find()
        return self._found

    async def present(self) -> str | None:
        """As ``get``, but makes none, and returns None: a mere look must not make an empty registry where one has
        vanished, which nodes that know it would believe. Raises ``BackendUnavailable``."""
        if self._found is None:
            self._found = await find_name(self._client, self._kind, self._configured)
        return self._found

    async def existing(self) -> str:
        """As ``get``, but looks again whether it is there: an update of a document would make a missing index anew.
        Raises ``BackendUnavailable`` when it isn't."""
        name = await self.get()
        if not await index_exists(self._client, name):
            raise IndexerUnavailable(f"the index {name} has vanished")
        return name

    async def _find(self) -> str:
        name = await find_name(self._client, self._kind, self._configured)
        if name is None:
            name = await name_to_make(self._client, self._kind, self._configured)
            if await create_index(self._client, name, self._kind):
                logger.info("indexer: made the index %s", name)
        return name
