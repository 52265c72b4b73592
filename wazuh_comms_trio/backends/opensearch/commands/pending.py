"""What one node knows of pending commands, and which of them it may take. No I/O; moments on trio's clock.

A claim is a token in the document. The token of a node that died stays there. So each node notes when it first saw a
document in its present version; after ``lease`` seconds without a change, by which the claim's node would have renewed
it, another node takes the claim over. Clocks of different machines are never compared.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable
from typing import Final

from attrs import define, evolve

from wazuh_comms_trio.backends import command_rules as rules
from wazuh_comms_trio.backends.opensearch.commands.documents import Document

#: Pending commands remembered at most, some 2 kB each.
LARGEST: Final = 20_000
#: Seconds for which a search may still show a changed document as it was before.
_STALE_FOR: Final = 120.0


@define
class _Known:
    document: Document
    agent_id: str | None  # None for a group's
    created_at: float
    first_seen: float  # of this version
    added_at: float  # of any version
    announced: bool = False


class PendingCommands:
    """The pending commands that this worker knows, and the claims that it holds. ``lease`` in seconds."""

    def __init__(self, lease: float) -> None:
        self.node = secrets.token_hex(8)
        self.lease = lease
        self.held: dict[str, Document] = {}
        self.held_since: dict[str, float] = {}
        self.busy: set[str] = set()  # being claimed or expanded at this moment
        self._known: dict[str, _Known] = {}
        self._agents: dict[str, dict[str, None]] = {}
        self._written: dict[str, tuple[int, float]] = {}  # the version written here, and when
        self._count = 0

    def new_token(self) -> str:
        self._count += 1
        return f"{self.node}.{self._count}"

    # --- what was seen ---

    def put(self, document: Document, now: float) -> None:
        """Notes a version that was read, found, or written here. One that is known to be out of date is ignored."""
        written = self._written.get(document.id)
        known = self._known.get(document.id)
        newest = max(written[0] if written else -1, known.document.seq_no if known else -1)
        if document.seq_no < newest:
            return
        if document.status != "pending":
            self.drop(document.id)
            return
        if known is not None and known.document.seq_no == document.seq_no:
            return
        if known is not None:
            document = evolve(document, seen_at=min(document.seen_at, known.document.seen_at))
            known.document = document
            known.first_seen = now
        elif len(self._known) < LARGEST:
            command = document.command
            if command.target.type == "server":
                return
            agent_id = command.target.id if command.target.type == "agent" else None
            self._known[document.id] = _Known(document, agent_id, command.created_at, now, now)
            if agent_id is not None:
                self._agents.setdefault(agent_id, {})[document.id] = None

    def note_written(self, documents: Iterable[Document], now: float) -> None:
        """These versions were written here: an older one that a search still shows is ignored."""
        for document in documents:
            self._written.pop(document.id, None)
            self._written[document.id] = (document.seq_no, now)
            self.put(document, now)
        while self._written:
            oldest = next(iter(self._written))
            if self._written[oldest][1] > now - _STALE_FOR:
                break
            del self._written[oldest]

    def drop(self, document_id: str) -> None:
        """The command isn't pending any more."""
        known = self._known.pop(document_id, None)
        if known is not None and known.agent_id is not None:
            documents = self._agents[known.agent_id]
            del documents[document_id]
            if not documents:
                del self._agents[known.agent_id]

    def keep_only(self, seen: Collection[str], began: float) -> None:
        """After a look at all that is pending, begun at ``began``: commands that weren't seen are pending no more."""
        gone = [
            document_id
            for document_id, known in self._known.items()
            if document_id not in seen and known.added_at < began and document_id not in self.held
        ]
        for document_id in gone:
            self.drop(document_id)

    def drop_version(self, document_id: str, seq_no: int) -> None:
        """The leader, which knew this version, doesn't find it any more. A newer version stays."""
        known = self._known.get(document_id)
        if known is not None and known.document.seq_no == seq_no and document_id not in self.held:
            self.drop(document_id)

    # --- what may be taken ---

    def is_takeable(self, document: Document, now: float) -> bool:
        """Whether no node offers it: unclaimed, or claimed by a node that is silent, or by ourselves and forgotten (a
        call that was cancelled, or whose answer was lost)."""
        token = document.token
        if document.id in self.held or document.status != "pending":
            return False
        if token is None or token.startswith(f"{self.node}."):
            return True
        known = self._known.get(document.id)
        if known is None or known.document.seq_no != document.seq_no:
            return False
        return now - known.first_seen >= self.lease

    def choose(self, agent_ids: Collection[str], now: float, wall_now: float) -> list[Document]:
        """The commands that these agents may be offered, oldest first, not too many each."""
        chosen: list[_Known] = []
        for agent_id in {agent_id.lower() for agent_id in agent_ids}:
            free = [
                known
                for document_id in self._agents.get(agent_id, ())
                if self._is_free(known := self._known[document_id], now)
                and not rules.is_overdue(known.document.command, wall_now)
            ]
            free.sort(key=lambda known: known.created_at)
            chosen += free[: rules.CLAIM_LIMIT]
        chosen.sort(key=lambda known: known.created_at)
        return [known.document for known in chosen]

    def _is_free(self, known: _Known, now: float) -> bool:
        return known.document.id not in self.busy and self.is_takeable(known.document, now)

    def groups(self, now: float) -> list[Document]:
        """Groups' commands that no node expands yet."""
        return [k.document for k in self._known.values() if k.agent_id is None and self._is_free(k, now)]

    def overdue(self, now: float, wall_now: float) -> list[Document]:
        return [
            known.document
            for known in self._known.values()
            if known.created_at <= wall_now
            and self._is_free(known, now)
            and rules.is_overdue(known.document.command, wall_now)
        ]

    # --- news ---

    def news(self, now: float) -> set[str]:
        """Agents with something to take that wasn't announced before."""
        agents: set[str] = set()
        for known in self._known.values():
            if known.agent_id is None:
                continue
            free = self._is_free(known, now)
            if free and not known.announced:
                agents.add(known.agent_id)
            known.announced = free
        return agents

    def has_free(self, agent_id: str, now: float) -> bool:
        """Whether there is anything that is this node's to take, overdue or not."""
        return any(
            self._is_free(self._known[document_id], now) for document_id in self._agents.get(agent_id.lower(), ())
        )

    def announce_again(self, document_ids: Iterable[str]) -> None:
        """These are news once more."""
        for document_id in document_ids:
            if known := self._known.get(document_id):
                known.announced = False

    def announce_again_for(self, agent_ids: Iterable[str]) -> None:
        """What these agents may take is news once more."""
        for agent_id in agent_ids:
            self.announce_again(self._agents.get(agent_id.lower(), ()))

    # --- claims that this node holds ---

    def hold(self, document: Document, now: float) -> None:
        self.held[document.id] = document
        self.held_since[document.id] = now

    def release(self, document_id: str) -> None:
        self.held.pop(document_id, None)
        self.held_since.pop(document_id, None)

    def to_renew(self, now: float) -> list[Document]:
        """Claims that were made, or renewed, a third of the lease ago."""
        return [self.held[i] for i, since in self.held_since.items() if now - since > self.lease / 3]
