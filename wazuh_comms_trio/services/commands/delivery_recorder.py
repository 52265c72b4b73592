"""The delivery recorder: tells the store what became of deliveries, the last hop of a command that an agent has
received."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from random import Random
from typing import Final

import trio

from wazuh_comms_trio.backends.interfaces import CommandReport, CommandStore
from wazuh_comms_trio.services.commands.command_delivery import DeliveryOutcome
from wazuh_comms_trio.services.store_backoff import store_backoff
from wazuh_comms_trio.services.store_failures import StoreFailures

__all__ = ["DeliveryRecorder"]

_log = logging.getLogger(__name__)

#: Deliveries that share an event, and whose requests go on in one turn of the event loop. More than begin in one, since
#: nothing is recorded meanwhile: what begins then would else be more than what was woken, each time.
_WOKEN_AT_ONCE: Final = 2

#: By outcome the ids of commands, in order.
_Due = dict[DeliveryOutcome, dict[str, None]]


def _nothing() -> _Due:
    return {"sent": {}, "released": {}}


class DeliveryRecorder:
    """Records in the store what became of claimed commands: many deliveries in one call, repeated until the store has
    taken it, in the order in which they were delivered: of two ``set-group`` the later one counts.

    ``run`` does the calls, so that a request that is cancelled meanwhile changes nothing. What waits is the ids
    of each delivery: no more than the polls that were answered during an outage. ``recorded`` is called with the
    agents concerned after each successful call.
    """

    def __init__(self, store: CommandStore, rng: Random, recorded: Callable[[Collection[str]], None]) -> None:
        self._store = store
        self._rng = rng
        self._recorded = recorded
        self._due = _nothing()
        self._refused: list[CommandReport] = []
        self._agents: set[str] = set()  # those concerned by what is due
        self._written = [trio.Event()]  # set when what is due has been recorded
        self._waiting = 0  # deliveries of the last one of these
        self._wake = trio.Event()
        self._in_flight = False
        self._writing = _nothing()  # what the store is being told
        self._failures = StoreFailures(_log, "the command store can't be told what was delivered")

    def schedule(
        self, outcome: DeliveryOutcome, document_ids: Collection[str], agent_ids: Collection[str] = ()
    ) -> trio.Event:
        """Notes an outcome, which the store will be told, in the order of ``document_ids``. The event is set when it
        has been."""
        self._due[outcome].update(dict.fromkeys(document_ids))
        self._agents.update(agent_ids)
        self._wake.set()
        if self._waiting == _WOKEN_AT_ONCE:
            self._written.append(trio.Event())
            self._waiting = 0
        self._waiting += 1
        return self._written[-1]

    def fail(self, report: CommandReport) -> None:
        """The store will be told that a claimed command can't be delivered, and why."""
        self._refused.append(report)
        self._wake.set()

    async def wait_idle(self) -> None:
        """Returns when the store has been told everything."""
        while self._in_flight or self._refused or any(self._due.values()):
            await self.schedule("sent", ()).wait()

    async def tell_last(self) -> bool:
        """After ``run``: tells the store once more which commands were delivered, those too that waited behind a call
        which hasn't ended. It may still remember them, and not give them back. Returns whether it has stored them."""
        try:
            await self._store.mark_sent(self._writing["sent"] | self._due["sent"])
        except Exception as exc:
            self._failures.failed(exc)
            return False
        return True

    async def run(self) -> None:
        """Tells the store, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            due, self._due = self._due, _nothing()
            agents, self._agents = self._agents, set()
            refused, self._refused = self._refused, []
            written, self._written, self._waiting = self._written, [trio.Event()], 0
            self._in_flight, self._writing = True, due
            await self._write(due, refused)
            self._in_flight = False
            self._recorded(agents)
            await _wake_in_turns(written)

    async def _write(self, due: _Due, refused: Sequence[CommandReport]) -> None:
        backoff = store_backoff(self._rng)
        while True:
            try:
                if due["sent"]:
                    await self._store.mark_sent(due["sent"])
                    due["sent"] = {}
                if refused:
                    await self._store.report(refused)
                    due["released"].update(dict.fromkeys(report.document_id for report in refused))
                    refused = ()
                if due["released"]:
                    await self._store.release(due["released"])
            except Exception as exc:
                self._failures.failed(exc)
            else:
                self._failures.worked()
                return
            await trio.sleep(backoff.next_pause())


async def _wake_in_turns(events: Sequence[trio.Event]) -> None:
    """Cancelled: those that are left at once."""
    try:
        for event in events:
            event.set()
            if event is not events[-1]:
                await trio.lowlevel.checkpoint()
    finally:
        for event in events:
            event.set()
