"""Registry, state index and commands in an OpenSearch cluster: one client, three stores, and what runs beside them."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio
from attrs import frozen

from wazuh_comms_trio.backends.leadership import Leadership
from wazuh_comms_trio.backends.local_node import LocalNode
from wazuh_comms_trio.backends.opensearch.agents.agent_search import AgentSearch
from wazuh_comms_trio.backends.opensearch.agents.last_seen import OpenSearchPresence
from wazuh_comms_trio.backends.opensearch.agents.presence import Presence
from wazuh_comms_trio.backends.opensearch.agents.registry import OpenSearchAgents
from wazuh_comms_trio.backends.opensearch.client.client import OpenSearchClient
from wazuh_comms_trio.backends.opensearch.client.credentials import Connect
from wazuh_comms_trio.backends.opensearch.commands.store import OpenSearchCommands
from wazuh_comms_trio.backends.opensearch.events.index import OpenSearchEvents
from wazuh_comms_trio.backends.opensearch.index_names import IndexName
from wazuh_comms_trio.backends.opensearch.node_watch import NodeWatch
from wazuh_comms_trio.config.backend_models import Indexer
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.nurseries import BackgroundNursery
from wazuh_comms_trio.metrics.refusal_log import tell_refusals

logger = logging.getLogger(__name__)

#: For what is still to be written when the daemon stops.
_CLOSE_TIMEOUT: Final = 2.0


@frozen
class OpenSearchStores:
    agents: OpenSearchAgents
    events: OpenSearchEvents
    commands: OpenSearchCommands
    presence: OpenSearchPresence
    client: OpenSearchClient


@asynccontextmanager
async def open_opensearch(
    settings: Indexer,
    *,
    revocation: float = 10.0,
    wall_clock: Callable[[], float] = time.time,
    rng: random.Random | None = None,
    connect: Connect | None = None,
    node: LocalNode | None = None,
    leadership: Leadership | None = None,
) -> AsyncIterator[OpenSearchStores]:
    """The stores of one cluster. It needn't be there yet: calls are ``BackendUnavailable`` until it is. ``revocation``,
    in seconds, is how old what is known of an agent may be. ``node``: for a daemon, whose token key is compared with
    other nodes'. Raises ``AccessError`` for certificates or secrets that can't be used. Claims are given back, and
    log-ins written, before this ends. ``leadership``: which of this node's processes
    searches for commands and for agents that are away."""
    rng = rng or random.Random()
    async with OpenSearchClient(settings, connect=connect, rng=rng) as client, BackgroundNursery() as nursery:
        agents_name = IndexName(client, "agents", settings.names)
        commands_name = IndexName(client, "commands", settings.names)

        search = AgentSearch(client, agents_name)
        commands = OpenSearchCommands(
            client,
            commands_name,
            nursery,
            settings.commands,
            members=search.members,
            wall_clock=wall_clock,
            rng=rng,
            leadership=leadership,
        )
        watch = None if node is None else NodeWatch(client, node, wall_clock, agents_name, leadership)
        last_seen = OpenSearchPresence(client, agents_name, node, wall_clock)

        async def agent_removed(agent_id: str) -> None:
            await commands.agent_removed(agent_id)
            await last_seen.forget(agent_id)

        agents = OpenSearchAgents(
            client,
            agents_name,
            nursery,
            search,
            revocation=revocation,
            agent_removed=agent_removed,
            had_registry=None if watch is None else watch.had_registry,
            leadership=leadership,
        )
        presence = Presence(
            client,
            agents_name,
            after=settings.disconnected_after,
            wall_clock=wall_clock,
            seen_since=agents.seen_since,
            leadership=leadership,
        )
        nursery.start_soon(agents.run)
        nursery.start_soon(presence.run)
        nursery.start_soon(tell_refusals, [client.failures])
        if watch is not None:
            nursery.start_soon(watch.run)
        events = OpenSearchEvents(client, nursery, largest=settings.client.bulk_bytes)
        try:
            yield OpenSearchStores(agents, events, commands, last_seen, client)
        finally:
            await commands.close()
            with trio.CancelScope(deadline=trio.current_time() + _CLOSE_TIMEOUT, shield=True):
                try:
                    await agents.flush_logins()
                except BackendUnavailable as exc:
                    logger.info("the last log-ins are not recorded: %s", exc)
