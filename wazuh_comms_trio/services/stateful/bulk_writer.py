"""The bulk writer: packets are applied to the stores, one call for all of them, and again while no store answers; those
of which a part failed for a passing reason are given back."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate, chain
from random import Random
from typing import Final

import trio

from wazuh_comms_trio.backends.interfaces import CommandStore, EventIndex, ItemResult, Outcome
from wazuh_comms_trio.errors import BackendUnavailable, StorageFull
from wazuh_comms_trio.foundation.outage_log import OutageLog
from wazuh_comms_trio.metrics import families
from wazuh_comms_trio.metrics.counting import Metrics
from wazuh_comms_trio.metrics.refusal_log import RefusalLog
from wazuh_comms_trio.services.failing_calls import FailingCalls
from wazuh_comms_trio.services.stateful.submission import Packet, Part
from wazuh_comms_trio.services.store_backoff import store_backoff

__all__ = ["BulkWriter"]

_log = logging.getLogger(__name__)

#: A full storage seldom has room again within a request's limit; the agent comes back by itself. Seconds.
FULL_STORAGE_TIMEOUT: Final = 2.0

#: Seconds after which a call that took nothing of an index says that it won't for a while.
_LONG: Final = 2.0

#: The commands' store, among the indices.
_REPORTS: Final = "commands' results"

#: What an agent's code makes of its command; other codes: it failed.
_REPORTED: Final[dict[int | None, str]] = {0: "success", 2: "in_progress"}


class BulkWriter:
    """Writes packets by ``write``; it holds nothing but the stores, and what it learned of their indices."""

    def __init__(
        self,
        events: EventIndex,
        commands: CommandStore,
        rng: Random,
        metrics: Metrics | None = None,
        failing: FailingCalls | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._events = events
        self._commands = commands
        self._rng = rng
        self._outage = OutageLog(_log, "stateful events can't be stored", clock=trio.current_time)
        self._reports_outage = OutageLog(_log, "commands' results can't be stored", clock=trio.current_time)
        self._indices = _TroubledIndices(failing or FailingCalls())
        self.refusals: RefusalLog = RefusalLog(_log)  # a body may have a million of them

    def is_troubled(self, part: Part) -> bool:
        """Whether something of it is for an index, or the commands' store, that took nothing lately, while the others
        did."""
        names = self._indices.names
        return bool(names) and (
            any(event.index in names for event in part.events) or (bool(part.reports) and _REPORTS in names)
        )

    async def write(self, packets: Sequence[Packet]) -> Sequence[Packet]:
        """Settles packets, at their deadlines at the latest. Returns those of which the stores, which answer, take
        something later: they are to be tried again, by ``try_once``, where nobody else's wait for it. One agent's
        packets take effect in the order in which they stand here. Cancelled: some may have been applied, and those
        without a result are the caller's to settle."""
        backoff = store_backoff(self._rng)
        full_since: float | None = None
        while live := _still_waited_for(packets):
            failure = await self._attempt(live)
            now = trio.current_time()
            full_since = (full_since or now) if isinstance(failure, StorageFull) else None
            storage_stays_full = full_since is not None and now - full_since >= FULL_STORAGE_TIMEOUT
            left = [packet for packet in live if not packet.settled]
            if failure is None:
                return left
            for packet in left:
                packet.failure = failure
                if storage_stays_full:
                    packet.settle(failure)
            if left and not storage_stays_full:
                last = max(packet.deadline for packet in left)
                await trio.sleep_until(min(now + backoff.next_pause(), last))
        return ()

    async def try_once(self, packets: Sequence[Packet]) -> None:
        """Settles those packets that are complete then, and those that nobody waits for any more."""
        if live := _still_waited_for(packets):
            failure = await self._attempt(live)
            for packet in live if failure is not None else ():
                packet.failure = packet.failure if packet.settled else failure
                if isinstance(failure, StorageFull) and not packet.settled:
                    packet.settle(failure)

    async def _attempt(self, packets: Sequence[Packet]) -> BackendUnavailable | None:
        """Tries all packets once; settles those that are complete after it, and those for which there is no room.
        Returns why others aren't; None: the stores answered."""
        failure: BackendUnavailable | None = None
        with trio.CancelScope(deadline=max(packet.deadline for packet in packets)) as scope:
            try:
                await self._store(packets)
                _settle_complete(packets)
                await self._report(packets)
            except BackendUnavailable as exc:
                failure = exc
            except Exception:
                _log.exception("%d packets of events can't be stored: an error of ours", len(packets))
                failure = await self._attempt_each(packets) if len(packets) > 1 else BackendUnavailable()
                if failure is not None and len(packets) == 1:
                    packets[0].settle(failure)
        if scope.cancelled_caught:
            failure = BackendUnavailable()
            self._outage.failed(TimeoutError("no answer in time"))
        elif failure is not None:
            self._outage.failed(failure)
        else:
            self._outage.worked()
        _settle_complete(packets)
        return failure

    async def _attempt_each(self, packets: Sequence[Packet]) -> BackendUnavailable | None:
        """Tries one packet after the other, so that only the packet that breaks the store fails."""
        failure = None
        for packet in packets:
            failure = await self._attempt([packet]) or failure
        return failure

    async def _store(self, packets: Sequence[Packet]) -> None:
        """Makes one bulk call. Raises ``BackendUnavailable``."""
        parts = [packet.part for packet in packets if packet.part is not None]
        operations = list(chain.from_iterable([part.operations() for part in parts]))
        if operations:
            self._metrics.observe(families.BATCH_EVENTS, len(operations))
            starts = list(accumulate((len(part.writes) for part in parts[:-1]), initial=0))
            waiting = [packet for packet in packets if packet.part is not None]
            now = trio.lowlevel.current_clock().current_time  # stores ask in threads of theirs, too

            not_begun: set[Packet] = set()  # which says nothing of their indices

            def packet_at(position: int) -> Packet:
                return waiting[bisect_right(starts, position) - 1]

            def is_open(position: int) -> bool:
                packet = packet_at(position)
                if packet.is_open(now()):
                    return True
                not_begun.add(packet)
                return False

            began = now()
            results = await self._events.bulk(operations, boundaries=starts, is_open=is_open)
            if len(results) != len(operations):
                raise BackendUnavailable("The index answered incompletely")
            start = 0
            behind: set[str] = set()
            for part in parts:
                end = start + len(part.writes)
                if not part.settle_writes(results[start:end]):
                    behind.add(part.reader.agent_id)
                elif part.reader.agent_id in behind:
                    # An earlier packet of this agent isn't complete: this one has overtaken it, and goes again after.
                    part.begin_again()
                start = end
            if behind or self._indices.failed:
                taken = {one.index for one, result in zip(operations, results, strict=True) if not _is_passing(result)}
                failed = [position for position, result in enumerate(results) if _is_passing(result)]
                tried = [position for position in failed if packet_at(position) not in not_begun]
                why = {operations[position].index: results[position].result[:200] for position in tried}
                self._indices.note(why, taken, began, now())

    async def _report(self, packets: Sequence[Packet]) -> None:
        """Makes one call for command reports. What the store doesn't take is left. Raises ``StorageFull``."""
        waiting = [packet for packet in packets if packet.part is not None and not packet.settled]
        parts = [packet.part for packet in waiting if packet.part is not None]
        reports = [report for part in parts for report in part.command_reports()]
        if not reports:
            return
        began, taken = trio.current_time(), False
        try:
            outcomes = await self._commands.report(reports)
            if len(outcomes) != len(reports):
                raise BackendUnavailable("The command store answered incompletely")
            taken = not all(map(_is_passing, outcomes))
        except StorageFull:
            raise
        except BackendUnavailable as exc:
            self._reports_outage.failed(exc)
            for packet in waiting:
                packet.failure = exc
            return
        finally:  # cut off at its deadline, too
            self._indices.note(
                {} if taken else {_REPORTS: None}, {_REPORTS} if taken else (), began, trio.current_time()
            )
        self._reports_outage.worked()
        for report, outcome in zip(reports, outcomes, strict=True):
            if outcome.status < 300:
                state = _REPORTED.get(report.result.code, "failed")
                self._metrics.count(families.COMMANDS, state)
            if outcome.status == 404:
                text = "agent %s reports on a command that isn't there: %.64r"
                self.refusals.refused(
                    "results of commands that aren't there", text, report.agent_id, report.document_id
                )
        start = 0
        for part in parts:
            end = start + len(part.reports)
            part.settle_reports(outcomes[start:end])
            start = end


class _TroubledIndices:
    """``failed``: indices of which a call took nothing, by when it had; those of which a later call didn't either, or
    that took long to say so, are ``names``, and told of by ``failing``. With the first operation that is taken an index
    is well."""

    def __init__(self, failing: FailingCalls) -> None:
        self._failing = failing
        self.failed: dict[str, float] = {}
        self.names: set[str] = set()
        self._outages: dict[str, OutageLog] = {}

    def note(self, failed: Mapping[str, str | None], taken: Collection[str], began: float, now: float) -> None:
        """Of one call: the indices of which something wasn't taken, and why, as the log is to say it; and those of
        which something was."""
        for index in taken:
            self.failed.pop(index, None)
            self.names.discard(index)
            self._failing.worked(_storing(index))
            if index in self._outages:
                self._outages[index].worked()
        for index, why in failed.items():
            if index in taken:
                continue
            if now - began > _LONG or began > self.failed.get(index, now):
                self.names.add(index)
                self._failing.failed(_storing(index), why or "they aren't taken")
                if why is not None:
                    name = f"events for {index} can't be stored"
                    self._outages.setdefault(index, OutageLog(_log, name, clock=trio.current_time)).failed(why)
            self.failed.setdefault(index, now)


def _storing(index: str) -> str:
    return f"storing {index}" if index == _REPORTS else f"storing events for {index}"


def _is_passing(result: ItemResult) -> bool:
    return result.outcome is Outcome.PASSING


def _settle_complete(packets: Sequence[Packet]) -> None:
    """Settles those of which nothing is left, and those for which there is no room."""
    for packet in packets:
        if not packet.settled and packet.part is not None and packet.part.complete:
            packet.settle()
        if not packet.settled and packet.part is not None and packet.part.no_room is not None:
            packet.settle(StorageFull(packet.part.no_room))  # the agent keeps it, and comes again


def _still_waited_for(packets: Sequence[Packet]) -> list[Packet]:
    """The packets that aren't settled; what nobody waits for any more is settled here."""
    now = trio.current_time()
    live = []
    for packet in packets:
        if packet.settled:
            continue
        if packet.is_open(now):
            live.append(packet)
        else:
            packet.settle(packet.failure or BackendUnavailable())
    return live
