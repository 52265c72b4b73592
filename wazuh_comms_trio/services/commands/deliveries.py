"""Offers: commands in the hands of one poll, and what is owed to the store once they were delivered or weren't."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from random import Random
from typing import Final, Literal

import trio

from wazuh_comms_trio.backends.interfaces import Command, CommandStore
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.environment import OutageLog
from wazuh_comms_trio.services.stateful.bulk_writer import Backoff

__all__ = ["Offer", "Settler", "Verdict"]

_log = logging.getLogger(__name__)

Verdict = Literal["sent", "released"]

#: How long a poll's request waits for the store to take note, seconds. It is owed in any case.
_PATIENCE: Final = 5.0


class Settler:
    """Tells the store what became of claimed commands: many offers in one call, again and again until it has taken it.

    ``run`` does it, so that a request that is cancelled meanwhile changes nothing. What waits is one set of ids for
    each offer that was made: no more than the polls that were answered during an outage. ``told`` is called with the
    agents concerned when the store has been told.
    """

    def __init__(self, store: CommandStore, rng: Random, told: Callable[[Collection[str]], None]) -> None:
        self._store = store
        self._told = told
        self._agents: set[str] = set()
        self._rng = rng
        self._owed: dict[Verdict, set[str]] = {"sent": set(), "released": set()}
        self._settled = trio.Event()
        self._wake = trio.Event()
        self._in_flight = False
        self._outage = OutageLog(_log, "the command store can't be told what was delivered")

    @property
    def idle(self) -> bool:
        return not self._in_flight and not any(self._owed.values())

    def owe(self, verdict: Verdict, document_ids: Collection[str], agent_ids: Collection[str] = ()) -> trio.Event:
        """From now on the store will be told. The event is set when it was."""
        self._owed[verdict].update(document_ids)
        self._agents.update(agent_ids)
        self._wake.set()
        return self._settled

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            owed, self._owed = self._owed, {"sent": set(), "released": set()}
            agents, self._agents = self._agents, set()
            settled, self._settled = self._settled, trio.Event()
            self._in_flight = True
            await self._tell(owed)
            self._in_flight = False
            settled.set()
            self._told(agents)

    async def _tell(self, owed: dict[Verdict, set[str]]) -> None:
        backoff = Backoff(self._rng)
        while True:
            try:
                if owed["sent"]:
                    await self._store.mark_sent(owed["sent"])
                    owed["sent"] = set()
                if owed["released"]:
                    await self._store.release(owed["released"])
            except BackendUnavailable as exc:
                self._outage.failed(exc)
            except Exception:
                _log.exception("the command store can't be told what was delivered: an error of ours")
            else:
                self._outage.worked()
                return
            await trio.sleep(backoff.pause())


class Offer:
    """Commands claimed for one poll. Exactly one of ``confirm`` and ``release`` is to be called, or ``release_nowait``;
    the first call counts, and counts even if it is cancelled."""

    def __init__(self, commands: Sequence[Command], settle: Callable[[Offer, Verdict], trio.Event]) -> None:
        self.commands = commands
        self._settle = settle
        self._verdict: Verdict | None = None

    def _decide(self, verdict: Verdict) -> trio.Event | None:
        if self._verdict is not None:
            return None
        self._verdict = verdict
        return self._settle(self, verdict)

    async def confirm(self) -> None:
        """The agent has all bytes. Returns when the store has taken note, or after some seconds: then it goes on being
        told."""
        await self._wait(self._decide("sent"))

    async def release(self) -> None:
        """The agent may not have them: pending again. Returns as ``confirm`` does."""
        await self._wait(self._decide("released"))

    def release_nowait(self) -> None:
        """As ``release``, without waiting."""
        self._decide("released")

    @staticmethod
    async def _wait(settled: trio.Event | None) -> None:
        if settled is not None:
            with trio.move_on_after(_PATIENCE):
                await settled.wait()
