"""A packet on its way: one request's events, what became of each, and the reply made of it. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Final

import msgspec
import trio

from wazuh_comms_trio.backends.document_rules import FORMER
from wazuh_comms_trio.backends.interfaces import CommandReport, DocumentOperation, ItemResult, Outcome
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.quarantine.interface import Rejected
from wazuh_comms_trio.services.stateful.packet_reader import Event, PacketReader, Unusable

__all__ = [
    "LOOK_AFTER",
    "EventResult",
    "GivesWay",
    "HasLeft",
    "Packet",
    "Part",
    "Piece",
    "encode_results",
    "keeps_its_place",
]

#: Whether a request's peer has closed its side, or reset the connection. Called in any thread.
HasLeft = Callable[[], bool]

#: Whether others wait for what a piece holds.
GivesWay = Callable[[], bool]

#: Seconds after which it is asked before something is begun: most packets are written by then, and whose peer closes
#: its side at once and waits for the answer has it.
LOOK_AFTER: Final = 1.0

_AGAIN: Final = {Outcome.PASSING, Outcome.FULL}


class EventResult(msgspec.Struct, gc=False):
    """One event's result, as the agent gets it."""

    index: str | None
    id: str | None
    result: str
    status: int


def encode_results(results: Sequence[EventResult]) -> bytes:
    """Results as JSON, without the brackets around them: pieces of a big reply are joined by commas."""
    return msgspec.json.encode(results)[1:-1]


class Part:
    """Some events of one packet that are applied together: the whole of a small one, a piece of a big one.

    ``results`` stand in the events' positions; None: not known yet. ``operations``: of all the events, if all are
    plain; what is less is of no use.
    """

    def __init__(
        self, reader: PacketReader, events: list[Event], operations: list[DocumentOperation] | None = None
    ) -> None:
        self.reader = reader
        self.events = events
        self.results: list[ItemResult | None] = [None] * len(events)
        self.writes: list[int] = []
        self.reports: list[int] = []
        self.unusable: list[int] = []
        #: Why some of it finds no room in a quota; what deletes or shrinks has been done.
        self.no_room: str | None = None
        self._operations: list[DocumentOperation] | None = None
        if operations is not None and len(operations) == len(events):
            # A pass over a thousand events costs more than its steps: most of them are no longer in the cache.
            self._operations = operations
            self.writes = list(range(len(events)))
            return
        for position, event in enumerate(events):
            kind = type(event.action)
            if kind is DocumentOperation:
                self.writes.append(position)
            elif kind is CommandReport:
                self.reports.append(position)
            else:
                self.unusable.append(position)
                assert isinstance(event.action, Unusable)
                self.results[position] = ItemResult(400, event.action.reason, Outcome.REFUSED)
                if event.document_id:
                    self.writes.append(position)

    @property
    def complete(self) -> bool:
        return not self.writes and not self.reports

    def operations(self) -> list[DocumentOperation]:
        """The writes without a result."""
        if self._operations is not None and len(self.writes) == len(self._operations):
            return self._operations
        return [self._operation(self.events[position]) for position in self.writes]

    def _operation(self, event: Event) -> DocumentOperation:
        return event.action if type(event.action) is DocumentOperation else self.reader.refused_operation(event)

    def command_reports(self) -> list[CommandReport]:
        """The command reports without a result."""
        return [self.events[position].action for position in self.reports]  # type: ignore[misc]  # sorted by kind above

    def settle_writes(self, results: Sequence[ItemResult]) -> bool:
        """Takes the results of ``operations()``, by position. Returns whether all are settled: writes that failed for a
        passing reason stay, and what follows them on the same document."""
        self.writes = self._settle(self.writes, results)
        return not self.writes

    def settle_reports(self, results: Sequence[ItemResult]) -> bool:
        """Takes the results of ``command_reports()``, as ``settle_writes``."""
        self.reports = self._settle(self.reports, results)
        return not self.reports

    def _settle(self, positions: list[int], results: Sequence[ItemResult]) -> list[int]:
        if len(positions) != len(results):
            raise ValueError("not as many results as operations")
        if len(results) == len(self.results) and not _AGAIN & _outcomes(results):
            self.results = list(results)
            return []
        again: list[int] = []
        touched: set[tuple[str | None, str | None]] = set()
        for position, result in zip(positions, results, strict=True):
            event = self.events[position]
            document = event.index, event.id
            if result.outcome is Outcome.FULL:
                self.no_room = result.result
            if result.outcome in _AGAIN or document in touched:
                again.append(position)
                touched.add(document)
            else:
                self.results[position] = result
        return again

    def begin_again(self) -> None:
        """Forget the results of writes: an earlier packet of the same agent has to be applied once more, before."""
        self.writes = [
            position
            for position, event in enumerate(self.events)
            if type(event.action) is DocumentOperation or event.document_id
        ]
        for position in self.writes:
            self.results[position] = None

    def refusal(self) -> str | None:
        """Why the first of the events that are refused for good is refused; None when none is."""
        results = _different(self.results)
        return next((result.result for result in results if result.outcome is Outcome.REFUSED), None)

    def rejected(self) -> list[Rejected]:
        """What goes to the quarantine: what couldn't be taken, what the stores refused for good, and what a document
        stood against that may be another's: a create over other content, an update of what isn't there. Agents don't
        read results."""
        if not any(
            result.outcome is Outcome.REFUSED or result.status in (404, 409) for result in _different(self.results)
        ):
            return []
        reader = self.reader
        rejected = []
        former = self._overtaken()
        for position, (event, result) in enumerate(zip(self.events, self.results, strict=True)):
            if result is None:
                continue
            if result.outcome is Outcome.REFUSED:
                reason = result.whole_reason
            elif _is_unmet(event, result):
                reason = f"{result.status}: {result.result}"
            else:
                continue
            document = event.document
            version = FORMER if result.version and position in former else result.version
            rejected.append(
                Rejected(
                    reader.agent_id,
                    "stateful",
                    reason,
                    reader.metadata.line,
                    reader.bytes_of(event),
                    document,
                    version if document else "",
                )
            )
        return rejected

    def _overtaken(self) -> set[int]:
        """The events after which another one on their document was taken, even if that changed nothing."""
        found: set[int] = set()
        documents: set[str] = set()
        for position in range(len(self.events) - 1, -1, -1):
            result, event = self.results[position], self.events[position]
            document = event.document
            if document in documents:
                found.add(position)
            elif document and result is not None and _is_met(event, result):
                documents.add(document)
        return found

    def reply(self) -> bytes:
        """The results as JSON without brackets around them; all must be known."""
        return encode_results(
            [
                EventResult(event.index, event.id, result.result, result.status)
                for event, result in zip(self.events, self.results, strict=True)
                if result is not None
            ]
        )


def _is_met(event: Event, result: ItemResult) -> bool:
    """Whether the document is now as the event says."""
    action = event.action
    if result.outcome is not Outcome.DONE or type(action) is not DocumentOperation:
        return False
    return result.status < 300 or action.action == "delete"


def _is_unmet(event: Event, result: ItemResult) -> bool:
    """Whether a document stood against the event."""
    action = event.action
    if type(action) is not DocumentOperation:
        return False
    return (result.status == 409 and action.action == "create") or (result.status == 404 and action.action == "update")


def _different(results: Sequence[ItemResult | None]) -> list[ItemResult]:
    """The different ones of these values. Mostly all results are one and the same object, which is found out
    quickly."""
    first = results[0] if results else None
    if first is not None and results.count(first) == len(results):
        return [first]
    different = dict(zip(map(id, results), results, strict=True))
    return [result for result in different.values() if result is not None]


def _outcomes(results: Sequence[ItemResult | None]) -> set[Outcome]:
    return {result.outcome for result in _different(results)}


def keeps_its_place() -> bool:
    return False


class Packet:
    """One request's events between ``submit`` and the batcher.

    ``part`` is None for a big packet: its own request sends it in pieces when its turn has come. ``deadline``: when its
    request is answered at the latest, on trio's clock. ``abandoned``: nobody waits for it any more. ``busy``: a piece
    of it is in flight. ``gives_way``: others wait for what it holds, so that it is tried no further where it would be
    apart. ``news``: settled, or its turn has come. ``has_left`` is asked from ``look_from`` on.
    """

    def __init__(
        self,
        agent_id: str,
        part: Part | None,
        size: int,
        deadline: float,
        *,
        has_left: HasLeft | None = None,
        look_from: float = inf,
    ) -> None:
        self.agent_id = agent_id
        self.part = part
        self.size = size
        self.deadline = deadline
        self.has_left = has_left
        self.look_from = look_from
        self.settled = False
        self.abandoned = False
        self.failure: BackendUnavailable | None = None
        self.busy = False
        self.gives_way: GivesWay = keeps_its_place
        self.news = trio.Event()

    def is_open(self, now: float) -> bool:
        """Whether somebody waits for it, so that something of it may be begun. In any thread."""
        if self.abandoned or now >= self.deadline:
            return False
        return self.has_left is None or now < self.look_from or not self.has_left()

    def settle(self, failure: BackendUnavailable | None = None) -> None:
        self.settled = True
        self.failure = failure
        self.news.set()


class Piece(Packet):
    """Some events of a big ``packet``, written on their own while it holds its agent."""

    def __init__(self, packet: Packet, part: Part, gives_way: GivesWay = keeps_its_place) -> None:
        size = part.events[-1].end - part.events[0].start if part.events else 0
        super().__init__(
            packet.agent_id, part, size, packet.deadline, has_left=packet.has_left, look_from=packet.look_from
        )
        self.packet = packet
        self.gives_way = gives_way
