"""Deliveries: commands claimed for one poll, and what the store is told once they have arrived or haven't."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from random import Random
from typing import Final, Literal

import trio

from wazuh_comms_trio.backends.interfaces import Command, CommandStore
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.outage_log import OutageLog
from wazuh_comms_trio.services.store_backoff import store_backoff

__all__ = ["CommandDelivery", "DeliveryOutcome", "DeliveryRecorder"]

_log = logging.getLogger(__name__)

DeliveryOutcome = Literal["sent", "released"]

#: How long a poll's request waits for the store to take note, seconds. The recorder goes on afterwards.
_RECORDING_TIMEOUT: Final = 5.0


class DeliveryRecorder:
    """Records in the store what became of claimed commands: many deliveries in one call, repeated until the store has
    taken it.

    ``run`` does the calls, so that a request that is cancelled meanwhile changes nothing. What waits is one set of ids
    for each delivery: no more than the polls that were answered during an outage. ``recorded`` is called with the
    agents concerned after each successful call.
    """

    def __init__(self, store: CommandStore, rng: Random, recorded: Callable[[Collection[str]], None]) -> None:
        self._store = store
        self._recorded = recorded
        self._agents: set[str] = set()
        self._rng = rng
        self._due: dict[DeliveryOutcome, set[str]] = {"sent": set(), "released": set()}
        self._written = trio.Event()
        self._wake = trio.Event()
        self._in_flight = False
        self._outage = OutageLog(_log, "the command store can't be told what was delivered", clock=trio.current_time)

    @property
    def idle(self) -> bool:
        return not self._in_flight and not any(self._due.values())

    def schedule(
        self, outcome: DeliveryOutcome, document_ids: Collection[str], agent_ids: Collection[str] = ()
    ) -> trio.Event:
        """The store will be told. The event is set when it has been."""
        self._due[outcome].update(document_ids)
        self._agents.update(agent_ids)
        self._wake.set()
        return self._written

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            due, self._due = self._due, {"sent": set(), "released": set()}
            agents, self._agents = self._agents, set()
            written, self._written = self._written, trio.Event()
            self._in_flight = True
            await self._write(due)
            self._in_flight = False
            written.set()
            self._recorded(agents)

    async def _write(self, due: dict[DeliveryOutcome, set[str]]) -> None:
        backoff = store_backoff(self._rng)
        while True:
            try:
                if due["sent"]:
                    await self._store.mark_sent(due["sent"])
                    due["sent"] = set()
                if due["released"]:
                    await self._store.release(due["released"])
            except BackendUnavailable as exc:
                self._outage.failed(exc)
            except Exception:
                _log.exception("the command store can't be told what was delivered: an error of ours")
            else:
                self._outage.worked()
                return
            await trio.sleep(backoff.next_pause())


class CommandDelivery:
    """Commands claimed for one poll. Exactly one of ``confirm`` and ``release`` is to be called, or ``release_nowait``;
    the first call counts, and counts even if it is cancelled."""

    def __init__(
        self, commands: Sequence[Command], finish: Callable[[CommandDelivery, DeliveryOutcome], trio.Event]
    ) -> None:
        self.commands = commands
        self._finish = finish
        self._outcome: DeliveryOutcome | None = None

    def _decide(self, outcome: DeliveryOutcome) -> trio.Event | None:
        if self._outcome is not None:
            return None
        self._outcome = outcome
        return self._finish(self, outcome)

    async def confirm(self) -> None:
        """The agent has all bytes. Returns when the store has taken note, or after some seconds: the recorder goes on
        then."""
        await self._wait(self._decide("sent"))

    async def release(self) -> None:
        """The agent may not have them: pending again. Returns as ``confirm`` does."""
        await self._wait(self._decide("released"))

    def release_nowait(self) -> None:
        """As ``release``, without waiting."""
        self._decide("released")

    @staticmethod
    async def _wait(written: trio.Event | None) -> None:
        if written is not None:
            with trio.move_on_after(_RECORDING_TIMEOUT):
                await written.wait()
