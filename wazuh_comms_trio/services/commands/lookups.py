"""The tasks that find commands: they claim for the agents that may have some, many in one call, and hear of news."""

from __future__ import annotations

import logging
from typing import Final

import trio

from wazuh_comms_trio.backends.interfaces import CommandStore
from wazuh_comms_trio.services.commands.clock_steps import ClockSteps
from wazuh_comms_trio.services.commands.deliveries import Deliveries
from wazuh_comms_trio.services.commands.lookup_queue import LookupQueue
from wazuh_comms_trio.services.commands.other_workers import OtherWorkers
from wazuh_comms_trio.services.commands.posts import Posts
from wazuh_comms_trio.services.store_failures import StoreFailures

__all__ = ["find_news", "look_up"]

_log = logging.getLogger(__name__)

#: After a failure of the store, seconds.
_FAILURE_PAUSE: Final = 1.0


async def look_up(
    store: CommandStore,
    lookups: LookupQueue,
    posts: Posts,
    deliveries: Deliveries,
    other_workers: OtherWorkers,
    clock: ClockSteps,
) -> None:
    """Claims commands for the agents in ``lookups``, while deliveries of those before them begin. Until cancelled."""
    failures = StoreFailures(_log, "commands can't be looked for")
    while True:
        agent_ids = await lookups.take(deliveries.busy)
        posted = posts.held.free(agent_ids)
        acquired = set(await other_workers.acquire(posted)) if posted else set[str]()
        clock.note()
        try:
            claimed = await store.claim(agent_ids)
        except Exception as exc:
            failures.failed(exc)
            await deliveries.start(agent_ids, (), acquired)  # what was posted needs no store
            lookups.schedule(agent_ids)
            await trio.sleep(_FAILURE_PAUSE)
        else:
            clock.note()
            await deliveries.start(agent_ids, claimed, acquired)
            del claimed  # it may be large, and nothing may be looked for for long
            failures.worked()


async def find_news(store: CommandStore, lookups: LookupQueue) -> None:
    """Waits for news of the store and schedules its agents, until cancelled."""
    failures = StoreFailures(_log, "new commands can't be found")
    while True:
        try:
            agent_ids = await store.wait_news()
        except Exception as exc:
            failures.failed(exc)
            await trio.sleep(_FAILURE_PAUSE)
        else:
            failures.worked()
            lookups.schedule(agent_ids, new=True)
