"""A group's command becomes one command for each of its members."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import trio
from attrs import evolve

from wazuh_comms_trio.backends import command_rules as rules
from wazuh_comms_trio.backends.interfaces import Command
from wazuh_comms_trio.backends.opensearch.commands import documents
from wazuh_comms_trio.backends.opensearch.commands.claims import Claims
from wazuh_comms_trio.backends.opensearch.commands.documents import Document
from wazuh_comms_trio.backends.opensearch.commands.exchange import WorkerExchange
from wazuh_comms_trio.backends.opensearch.commands.index import CommandIndex, Refused
from wazuh_comms_trio.backends.opensearch.commands.pending import PendingCommands
from wazuh_comms_trio.backends.unreadable import escaped

logger = logging.getLogger(__name__)


class GroupExpansion:
    """``members`` gives the agents of a group, and raises ``BackendUnavailable``."""

    def __init__(
        self,
        index: CommandIndex,
        pending: PendingCommands,
        claims: Claims,
        exchange: WorkerExchange,
        members: Callable[[str], Awaitable[Iterable[str]]],
        *,
        wall_clock: Callable[[], float],
    ) -> None:
        self._index = index
        self._pending = pending
        self._claims = claims
        self._exchange = exchange
        self._members = members
        self._now = wall_clock

    async def expand(self, groups: Sequence[Document]) -> dict[str, Document]:
        """Each of ``groups`` that no other node is expanding gets its children, and counts as sent then. Two nodes that
        did it would make the same children. Returns ``groups`` as they are afterwards. Raises ``BackendUnavailable``,
        ``Refused``."""
        mine = await self._claims.take({document.id: document for document in groups})
        for parent in mine.values():
            command = parent.command
            _, children = rules.expand(command, await self._members(command.target.id), self._now())
            made = await self._index.create({c.document_id: _child(parent, c) for c in children})
            self._pending.note_written(made.values(), trio.current_time())
            self._exchange.publish(list(made.values()))
        now = self._now()

        def decide(document: Document) -> Mapping[str, Any] | None:
            if document.status != "pending" or document.id not in mine:
                return None
            return documents.sent(document.command, now)

        return await self._claims.change({document.id: mine.get(document.id) for document in groups}, decide)

    async def expand_found(self, groups: Sequence[Document]) -> None:
        """As ``expand``, of those that a search found, each on its own: one whose children the index refuses ends as
        failed, and holds up no other."""
        ids = {document.id for document in groups}
        self._pending.busy |= ids
        try:
            for group in groups:
                try:
                    await self.expand([group])
                except Refused as exc:
                    await self._fail(group, exc)
        finally:
            self._pending.busy -= ids

    async def _fail(self, group: Document, why: Refused) -> None:
        reason = f"can't be expanded: {why}"
        logger.warning("the group's command %s %s", escaped(group.id), reason)

        def decide(document: Document) -> Mapping[str, Any] | None:
            return documents.ended(rules.failed(document.command, reason)) if document.status == "pending" else None

        await self._claims.change({group.id: None}, decide)


def _child(parent: Document, child: Command) -> dict[str, Any]:
    """A child, with the times of its parent as they were written."""
    source = documents.to_document(evolve(child, status="pending"))
    times = {name: parent.source[name] for name in ("@timestamp", "delivery_timestamp") if name in parent.source}
    return source | times
