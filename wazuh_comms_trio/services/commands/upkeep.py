"""Regular work of the dispatcher: overdue commands fail, and parked polls of removed or rekeyed agents end."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Final

import trio

from wazuh_comms_trio.backends.interfaces import AgentRegistry, CommandStore
from wazuh_comms_trio.foundation.aligned_timer import sleep_until_next_tick
from wazuh_comms_trio.services.commands.clock_steps import ClockSteps
from wazuh_comms_trio.services.commands.long_polls import LongPolls
from wazuh_comms_trio.services.commands.lookup_queue import LookupQueue
from wazuh_comms_trio.services.store_failures import StoreFailures

__all__ = ["expire_commands", "notice_clock_set_back", "revoke_polls"]

_log = logging.getLogger(__name__)

#: Seconds between two looks after commands whose time is over, and after agents that were removed or rekeyed.
EXPIRY_INTERVAL: Final = 1.0
CHECK_INTERVAL: Final = 0.5
#: Agents that are compared at a time; requests get their turn in between.
_COMPARED_AT_ONCE: Final = 200


async def expire_commands(store: CommandStore) -> None:
    """Expires overdue commands, until cancelled."""
    await _repeat(EXPIRY_INTERVAL, store.expire, "commands can't be expired")


async def revoke_polls(long_polls: LongPolls, agents: AgentRegistry) -> None:
    """Ends polls of removed or rekeyed agents, until cancelled. Looked at are agents that have changed, and those that
    have parked since the last look: a change may have come between their token's check and that."""

    async def check() -> None:
        await long_polls.wait_for_any()
        long_polls.recheck(await agents.changed())
        await revoke(long_polls.rekeyed)
        while unchecked := long_polls.take_unchecked(_COMPARED_AT_ONCE):
            try:
                await revoke(await agents.revoked(unchecked))
            except BaseException:
                long_polls.recheck(unchecked)
                raise
            if len(unchecked) == _COMPARED_AT_ONCE:
                await trio.lowlevel.checkpoint()

    async def revoke(agent_ids: Collection[str]) -> None:
        for agent_id in agent_ids:
            agent = await agents.lookup(agent_id)
            long_polls.revoke(agent_id, None if agent is None else agent.fingerprint)

    await _repeat(CHECK_INTERVAL, check, "parked agents can't be checked")


async def notice_clock_set_back(clock: ClockSteps, long_polls: LongPolls, lookups: LookupQueue) -> None:
    """While the wall clock was ahead, a command may have looked overdue to whoever looked for it, and nobody would look
    again before the next poll: so all parked agents are looked up once it is set back. Until cancelled."""
    while True:
        await sleep_until_next_tick(EXPIRY_INTERVAL)
        if clock.was_set_back():
            lookups.schedule(long_polls.agents())


async def _repeat(interval: float, action: Callable[[], Awaitable[object]], trouble: str) -> None:
    """Does ``action`` again and again, whatever becomes of it."""
    failures = StoreFailures(_log, trouble)
    while True:
        await sleep_until_next_tick(interval)
        try:
            await action()
        except Exception as exc:
            failures.failed(exc)
        else:
            failures.worked()
