"""How much the documents may take, of all agents and of each, and what is refused for it.

A call that certainly fits costs a look at the sums of its agents. Of another one what each operation adds is worked out
in turn: what deletes, shrinks or changes nothing always passes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import apsw
from attrs import define, field, frozen

from wazuh_comms_trio.backends.document_rules import Document
from wazuh_comms_trio.backends.embedded.quota.counting import ROW_BYTES, owner_of, used_by_all, used_bytes
from wazuh_comms_trio.backends.interfaces import DocumentOperation, ItemResult, Outcome
from wazuh_comms_trio.config.models import EmbeddedDocuments

__all__ = ["DocumentQuota", "Room"]

logger = logging.getLogger(__name__)

#: Seconds for which the sum of all is believed: with what this process adds it is too small only by others' writes.
_TOTAL_VALID: Final = 1.0
#: Seconds for each agent in the sum for which it isn't made again, although it is used up: making it takes 0.1 µs for
#: each, in a transaction that others wait for.
_PAUSE: Final = 1e-5
#: Seconds between two counts of the agents: so many for each, and at most. Of few agents each more changes all shares,
#: and the first alone had everything.
_COUNT_INTERVAL: Final = 1e-3
_MOST_COUNT_INTERVAL: Final = 60.0
#: Seconds between two lines in the log about the same limit.
_REPEAT_WARNING: Final = 600.0
#: Agents that are named as near their share.
_NAMED: Final = 10

_NO_ROOM_FOR_ALL: Final = ItemResult(507, "the documents' quota is used up", Outcome.FULL)
_NO_ROOM_FOR_AGENT: Final = ItemResult(507, "the agent's share of the documents' quota is used up", Outcome.FULL)


@define
class Room:
    """What may be added in one transaction: ``total`` bytes, and of them an agent's ``share``; ``used`` by the agents
    so far. ``note`` is told what each operation adds."""

    total: int
    share: int | None
    used: Callable[[str], int]
    note: Callable[[int], None]
    _added: Counter[str] = field(factory=Counter, init=False)

    def take(self, document_id: str, before: Document | None, after: Document | None) -> ItemResult | None:
        """Counts a document that grows from ``before`` to ``after``; returns the refusal when there is no room for
        that."""
        growth = _size(after) - _size(before)
        owner = owner_of(document_id)
        if growth > 0:
            if growth > self.total:
                return _NO_ROOM_FOR_ALL
            if self.share is not None and owner and self.used(owner) + self._added[owner] + growth > self.share:
                return _NO_ROOM_FOR_AGENT
        self.total -= growth
        self._added[owner] += growth
        self.note(growth)
        return None


@frozen
class NearShare:
    """An agent that has most of its share, or all. Bytes."""

    agent_id: str
    used: int
    share: int


class DocumentQuota:
    """The quota of documents, as one process keeps it. ``own_ids``: a document's id says whose it is
    (``events.document_id: agent``); else only all together are limited. ``clock``: seconds, from any moment on."""

    def __init__(
        self, settings: EmbeddedDocuments, *, own_ids: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._own_ids = own_ids and settings.agent_percent < 100
        self._lock = threading.Lock()
        self._total = 0
        self._total_at = -_TOTAL_VALID
        self._pause = 0.0
        self._agents = 0
        self._agents_at = -_MOST_COUNT_INTERVAL
        self._warned_at: dict[str, float] = {}  # at most the agents' number

    @property
    def limit(self) -> int:
        return self._settings.max_bytes

    def room_for(self, connection: apsw.Connection, operations: Sequence[DocumentOperation]) -> Room | None:
        """In a thread, within the transaction. None: there is room for all of this, whatever it finds there."""
        most: Counter[str] = Counter()
        for operation in operations:
            if operation.action != "delete":
                most[owner_of(operation.document_id)] += len(operation.body or b"") + ROW_BYTES
        growth = most.total()
        if not growth:
            return None
        total = self._used_by_all(connection, growth)
        share = self._share(connection)
        if total + growth <= self.limit and (
            share is None
            or all(not owner or used_bytes(connection, owner) + more <= share for owner, more in most.items())
        ):
            self._grow(growth)
            return None
        return Room(max(0, self.limit - total), share, lambda owner: used_bytes(connection, owner), self._grow)

    def _grow(self, growth: int) -> None:
        """Of a transaction that may be undone, and by as much as it might be at most: right again with the next sum."""
        with self._lock:
            self._total += growth

    def _used_by_all(self, connection: apsw.Connection, growth: int) -> int:
        now = self._clock()
        with self._lock:
            believed = self._pause if self._total + growth > self.limit else _TOTAL_VALID
            if now - self._total_at >= believed:
                (self._total, agents), self._total_at = used_by_all(connection), now
                self._pause = min(_TOTAL_VALID, _PAUSE * agents)
            return self._total

    def _share(self, connection: apsw.Connection) -> int | None:
        """How many bytes one agent may have."""
        if not self._own_ids:
            return None
        now = self._clock()
        if now - self._agents_at >= min(_MOST_COUNT_INTERVAL, self._agents * _COUNT_INTERVAL):
            found = connection.execute("SELECT count(*) FROM agents").get
            self._agents, self._agents_at = found if isinstance(found, int) else 0, now
        return int(self.limit * max(self._settings.agent_percent / 100, 1 / max(1, self._agents)))

    def near_share(self, connection: apsw.Connection, part: float) -> list[NearShare]:
        """The agents that have at least that part of their share, those that have most first; a few."""
        share = self._share(connection)
        if share is None:
            return []
        query = (
            "SELECT CAST(agent_id AS BLOB), bytes FROM document_usage WHERE bytes >= ? AND agent_id <> ''"
            f" ORDER BY bytes DESC LIMIT {_NAMED}"
        )
        found: list[Any] = connection.execute(query, (share * part,)).fetchall()
        return [NearShare(agent_id.decode("utf-8", "backslashreplace"), used, share) for agent_id, used in found]

    def tell(self, operations: Sequence[DocumentOperation], results: Sequence[ItemResult]) -> None:
        """Says in the log what was refused, each limit once in a while."""
        if not any(result.outcome is Outcome.FULL for result in results):
            return
        for operation, result in zip(operations, results, strict=True):
            if result is _NO_ROOM_FOR_ALL and self._may_say(""):
                text = "documents: the quota of %d bytes is used up: what adds to them gets 503 until some are deleted"
                logger.warning(text, self.limit)
            elif result is _NO_ROOM_FOR_AGENT and self._may_say(owner := owner_of(operation.document_id)):
                text = "documents: agent %s has used up its share: what adds to it gets 503 until it deletes some"
                logger.warning(text, owner)

    def _may_say(self, whose: str) -> bool:
        now = self._clock()
        if now - self._warned_at.get(whose, -_REPEAT_WARNING) < _REPEAT_WARNING:
            return False
        self._warned_at[whose] = now
        return True


def _size(document: Document | None) -> int:
    return 0 if document is None else len(document.body) + ROW_BYTES
