"""One set of backends, as the configuration says."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from attrs import evolve

from wazuh_comms_trio.backends.embedded.ndjson.engine import open_engine
from wazuh_comms_trio.backends.embedded.state_lock import hold_state
from wazuh_comms_trio.backends.embedded.stores import open_sqlite
from wazuh_comms_trio.backends.files.folder import FolderFiles
from wazuh_comms_trio.backends.interfaces import Backends
from wazuh_comms_trio.backends.leadership import Leadership
from wazuh_comms_trio.backends.local_node import LocalNode
from wazuh_comms_trio.backends.unavailable import StateUnusable
from wazuh_comms_trio.config.models import Config

__all__ = ["StateUnusable", "open_backends", "open_embedded"]


@asynccontextmanager
async def open_backends(
    config: Config,
    *,
    wall_clock: Callable[[], float] = time.time,
    tolerant: bool = False,
    node: LocalNode | None = None,
    leadership: Leadership | None = None,
) -> AsyncIterator[Backends]:
    """Opens the backends that ``communications_api.backend`` names. Raises ``StateUnusable`` when it can't be opened as
    it is. On leaving, what was accepted is written.

    ``tolerant``, for a daemon: where the disk is full, or a database locked or damaged, that is no reason not to start;
    what needs it is ``BackendUnavailable`` until the cause is gone, and the log says so. ``node``: of a
    daemon, which daemons that share their backends get to know.
    ``leadership``: which of several processes of this node searches the stores; None: this process is alone.
    """
    if config.communications_api.backend == "embedded":
        async with open_embedded(config, wall_clock=wall_clock, tolerant=tolerant, leadership=leadership) as backends:
            yield backends
        return
    async with open_wazuh(config, wall_clock=wall_clock, node=node, leadership=leadership) as backends:
        yield backends


@asynccontextmanager
async def open_wazuh(
    config: Config,
    *,
    wall_clock: Callable[[], float] = time.time,
    node: LocalNode | None = None,
    leadership: Leadership | None = None,
) -> AsyncIterator[Backends]:
    """Opens the clients of the indexer and the engine, which needn't be there yet. Raises ``StateUnusable`` for
    certificates or secrets that can't be used."""
    # A worker imports what it uses.
    from wazuh_comms_trio.backends.engine.client import open_engine_client
    from wazuh_comms_trio.backends.opensearch.client.credentials import AccessError
    from wazuh_comms_trio.backends.opensearch.stores import open_opensearch

    api = config.communications_api
    try:
        async with (
            open_opensearch(
                evolve(config.indexer, disconnected_after=config.disconnected_after),
                revocation=api.token.revocation,
                wall_clock=wall_clock,
                node=node,
                leadership=leadership,
            ) as stores,
            open_engine_client(config.engine.client) as engine,
        ):
            yield Backends(
                agents=stores.agents,
                events=stores.events,
                commands=stores.commands,
                engine=engine,
                files=FolderFiles(api.files.path),
                presence=stores.presence,
            )
    except AccessError as exc:
        raise StateUnusable(f"indexer: {exc}") from exc


@asynccontextmanager
async def open_embedded(
    config: Config,
    *,
    wall_clock: Callable[[], float] = time.time,
    tolerant: bool = False,
    leadership: Leadership | None = None,
) -> AsyncIterator[Backends]:
    """Opens everything in ``embedded.path``, but the folder of files."""
    api = config.communications_api
    folder = api.embedded.path
    with hold_state(folder):
        async with (
            open_sqlite(
                folder,
                wall_clock=wall_clock,
                tolerant=tolerant,
                leadership=leadership,
                keep=api.embedded.keep if tolerant else None,
                documents=api.embedded.documents if tolerant else None,
                own_ids=api.events.document_id == "agent",
            ) as sqlite,
            open_engine(
                folder / "events",
                api.embedded.events,
                wall_clock=wall_clock,
                checked=tolerant,
                count_agents=sqlite.agents.count if tolerant else None,
                database=sqlite.database if tolerant else None,
            ) as engine,
        ):
            yield Backends(
                agents=sqlite.agents,
                events=sqlite.events,
                commands=sqlite.commands,
                engine=engine,
                files=FolderFiles(api.files.path),
                presence=sqlite.presence,
            )
