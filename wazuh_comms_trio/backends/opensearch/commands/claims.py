"""The claims of this node: made, renewed, given back, or ended by the delivery that they were made for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import trio

from wazuh_comms_trio.backends.interfaces import Command
from wazuh_comms_trio.backends.opensearch.commands import documents
from wazuh_comms_trio.backends.opensearch.commands.documents import Document
from wazuh_comms_trio.backends.opensearch.commands.index import CommandIndex, Decide
from wazuh_comms_trio.backends.opensearch.commands.news import News
from wazuh_comms_trio.backends.opensearch.commands.pending import PendingCommands
from wazuh_comms_trio.errors import BackendUnavailable

logger = logging.getLogger(__name__)

_CLOSE_TIMEOUT: Final = 2.0


class Claims:
    """Changes ``index``, and ``pending`` with it. ``wall_clock`` in epoch seconds."""

    def __init__(
        self, index: CommandIndex, pending: PendingCommands, news: News, *, wall_clock: Callable[[], float]
    ) -> None:
        self._index = index
        self._pending = pending
        self._news = news
        self._now = wall_clock
        #: When each command was delivered whose document doesn't say so yet.
        self._unmarked: dict[str, float] = {}

    async def change(self, wanted: Mapping[str, Document | None], decide: Decide) -> dict[str, Document]:
        """``CommandIndex.change``, after which ``pending`` knows the documents as they are."""
        changed = await self._index.change(wanted, decide)
        self._pending.note_written(changed.values(), trio.current_time())
        for document_id in wanted:
            if document_id not in changed:
                self._pending.drop(document_id)
        return changed

    async def take(self, wanted: Mapping[str, Document]) -> dict[str, Document]:
        """Claims the documents that are free. Returns those that are this node's now."""
        token = self._pending.new_token()
        now = trio.current_time()

        def decide(document: Document) -> Mapping[str, Any] | None:
            if document.token == token or not self._pending.is_takeable(document, now):
                return None
            return documents.claimed(token)

        changed = await self.change(wanted, decide)
        return {i: document for i, document in changed.items() if document.token == token}

    async def claim(self, agent_ids: Collection[str]) -> Sequence[Command]:
        """What these agents may be offered now, oldest first. Makes no search."""
        chosen = self._pending.choose(agent_ids, trio.current_time(), self._now())
        if not chosen:
            await trio.lowlevel.checkpoint()
            return []
        ids = [document.id for document in chosen]
        won: dict[str, Document] = {}
        self._pending.busy.update(ids)
        try:
            won = await self.take({document.id: document for document in chosen})
            now = trio.current_time()
            for document in won.values():
                self._pending.hold(document, now)
        finally:
            self._pending.busy.difference_update(ids)
            # What this node may have claimed without learning of it is its own to take again.
            if len(won) < len(ids):  # with what there is besides, beyond what is claimed at a time
                self._pending.announce_again_for(agent_ids)
        return [won[i].command for i in ids if i in won]

    async def mark_sent(self, document_ids: Collection[str]) -> None:
        """These commands were delivered now. Raises ``BackendUnavailable``; ``upkeep`` tries again."""
        now = self._now()
        for document_id in document_ids:
            self._unmarked.setdefault(document_id, now)
        await self._mark(list(document_ids))

    async def _mark(self, document_ids: Sequence[str]) -> None:
        """Marks commands as sent; until that is stored, the claim is held and renewed: no node may offer what was
        delivered."""
        moments = {i: self._unmarked[i] for i in document_ids if i in self._unmarked}

        def decide(document: Document) -> Mapping[str, Any] | None:
            if document.status != "pending":
                return None
            return documents.sent(document.command, moments[document.id])

        await self.change({i: self._pending.held.get(i) for i in moments}, decide)
        for document_id in moments:
            self._unmarked.pop(document_id, None)
            self._pending.release(document_id)

    async def release(self, document_ids: Collection[str]) -> None:
        """Gives back commands that weren't delivered. Raises ``BackendUnavailable``; they are free here all the
        same."""
        held = {i: self._pending.held[i] for i in document_ids if i in self._pending.held and i not in self._unmarked}
        for document_id in held:
            self._pending.release(document_id)
        prefix = f"{self._pending.node}."

        def decide(document: Document) -> Mapping[str, Any] | None:
            token = document.token
            return documents.released() if token is not None and token.startswith(prefix) else None

        try:
            await self.change(held, decide)
        finally:
            self._pending.announce_again(held)  # this node's to take again, whether the release is stored or not
            self._news.announce()

    async def upkeep(self) -> None:
        """Once a round: stores marks that couldn't be stored, and renews claims that are still needed. Raises
        ``BackendUnavailable``."""
        if self._unmarked:
            await self._mark(list(self._unmarked))
        due = self._pending.to_renew(trio.current_time())
        if not due:
            return
        tokens = {document.id: document.token for document in due}
        changes = documents.renewed(self._now())

        def decide(document: Document) -> Mapping[str, Any] | None:
            fresh = document.renewed_at == changes["delivery"]["renewed"]
            return None if fresh or document.token != tokens[document.id] else changes

        for document in (await self.change({d.id: d for d in due}, decide)).values():
            if document.id in self._pending.held:
                self._pending.hold(document, trio.current_time())

    async def close(self) -> None:
        """Gives back what this node holds, so that others needn't wait for its lease; bounded in time."""
        with trio.CancelScope(deadline=trio.current_time() + _CLOSE_TIMEOUT, shield=True):
            try:
                if self._unmarked:
                    await self._mark(list(self._unmarked))
                await self.release(list(self._pending.held))
            except BackendUnavailable as exc:
                logger.info("claims are not given back, others take them over: %s", exc)
