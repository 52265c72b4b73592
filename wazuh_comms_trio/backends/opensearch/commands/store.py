"""The command store in the indexer, shared by several nodes: ``CommandStore``."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import trio
from attrs import evolve

from wazuh_comms_trio.backends import command_rules as rules
from wazuh_comms_trio.backends.interfaces import Command, CommandReport, CommandStatus, ItemResult
from wazuh_comms_trio.backends.leadership import Leadership
from wazuh_comms_trio.backends.opensearch.client.client import OpenSearchClient
from wazuh_comms_trio.backends.opensearch.client.index_names import IndexName
from wazuh_comms_trio.backends.opensearch.client.queries import Query, every, exactly
from wazuh_comms_trio.backends.opensearch.commands import documents as documents
from wazuh_comms_trio.backends.opensearch.commands.discovery import Discovery
from wazuh_comms_trio.backends.opensearch.commands.documents import Document
from wazuh_comms_trio.backends.opensearch.commands.index import CommandIndex, Refused
from wazuh_comms_trio.backends.opensearch.commands.pending import Pending
from wazuh_comms_trio.config.models import IndexerCommands
from wazuh_comms_trio.errors import BackendUnavailable, MalformedRequest

logger = logging.getLogger(__name__)

_LARGEST_LIST: Final = 10_000  # index.max_result_window
_EXPIRED_AT_ONCE: Final = 500
#: At most every so many seconds of wall-clock time is looked for commands that nobody answered.
_EXPIRE_INTERVAL: Final = 2.0
_CLOSE_TIMEOUT: Final = 2.0
#: Seconds between two times that a worker that isn't the leader forgets what is overdue.
_TIDY_INTERVAL: Final = 60.0


class OpenSearchCommands:
    """``members`` gives a group's agents. Discovery begins with the first ``wait_news`` and lives in ``nursery``."""

    keeps_posted = False

    def __init__(
        self,
        client: OpenSearchClient,
        name: IndexName,
        nursery: trio.Nursery,
        settings: IndexerCommands,
        *,
        members: Callable[[str], Any],
        wall_clock: Callable[[], float],
        rng: random.Random,
        leadership: Leadership | None = None,
    ) -> None:
        self._now = wall_clock
        self._leadership = leadership = leadership or Leadership()
        self._nursery = nursery
        self._members = members
        self._index = CommandIndex(client, name, wall_clock=wall_clock, rng=rng)
        self._pending = Pending(settings.lease)
        self._unmarked: dict[str, float] = {}
        self._expired_at = -_EXPIRE_INTERVAL
        self._tidied_at = -_TIDY_INTERVAL
        self._discovery = Discovery(
            self._index,
            self._pending,
            settings,
            expand=self._expand,
            upkeep=self._upkeep,
            rng=rng,
            leadership=leadership,
        )

    # --- new commands ---

    async def add(self, commands: Sequence[Command]) -> Sequence[Command]:
        now = self._now()
        wanted = [rules.normalized(command, now) for command in commands]
        ours = {command.document_id: command for command in reversed(wanted) if rules.is_ours(command)}
        tokens = {i: self._pending.new_token() for i, c in ours.items() if c.target.type == "group"}
        sources = {i: documents.to_document(c, tokens.get(i)) for i, c in reversed(ours.items())}
        self._pending.busy |= tokens.keys()
        try:
            stored = await self._index.create(sources)
            present = [document_id for document_id in sources if document_id not in stored]
            stored |= await self._index.read(present)
            self._pending.note_written(stored.values(), trio.current_time())
            groups = [document for i, document in stored.items() if i in tokens and document.status == "pending"]
            if groups:
                stored |= await self._expand(groups)
        except Refused as exc:
            raise MalformedRequest(str(exc)) from exc
        finally:
            self._pending.busy -= tokens.keys()
        self._discovery.tell()
        return [stored[c.document_id].command if c.document_id in stored else c for c in wanted]

    async def _expand(self, groups: Sequence[Document]) -> dict[str, Document]:
        """Each group's command that nobody else is expanding becomes one for each of its members, and counts as sent. A
        second expander would make the same children."""
        token = self._pending.new_token()
        mine = await self._claim({document.id: document for document in groups}, token)
        for parent in mine.values():
            command = parent.command
            _, children = rules.expand(command, await self._members(command.target.id), self._now())
            made = await self._index.create({c.document_id: _child(parent, c) for c in children})
            self._pending.note_written(made.values(), trio.current_time())
            self._discovery.tell_others(list(made.values()))
        return await self._change({document.id: mine.get(document.id) for document in groups}, self._marked(mine))

    def _marked(self, mine: Mapping[str, Document]) -> Callable[[Document], Mapping[str, Any] | None]:
        now = self._now()

        def decide(document: Document) -> Mapping[str, Any] | None:
            if document.status != "pending" or document.id not in mine:
                return None
            return documents.sent(document.command, now)

        return decide

    # --- claims ---

    async def wait_news(self) -> Collection[str]:
        self._discovery.start(self._nursery)
        while True:
            found = await self._discovery.wait()
            now, wall_now = trio.current_time(), self._now()
            news = {agent_id for agent_id in found if self._pending.has_free(agent_id, now, wall_now)}
            if news:
                return news

    async def claim(self, agent_ids: Collection[str]) -> Sequence[Command]:
        """Makes no search: what ``wait_news`` found and what was added here is known."""
        self._discovery.note_interest(agent_ids)
        chosen = self._pending.choose(agent_ids, trio.current_time(), self._now())
        if not chosen:
            await trio.lowlevel.checkpoint()
            return []
        ids = [document.id for document in chosen]
        won: dict[str, Document] = {}
        self._pending.busy.update(ids)
        try:
            won = await self._claim({document.id: document for document in chosen}, self._pending.new_token())
            now = trio.current_time()
            for document in won.values():
                self._pending.hold(document, now)
        finally:
            self._pending.busy.difference_update(ids)
            # What we may have claimed without learning of it is ours to take again.
            self._pending.tell_again(i for i in ids if i not in won)
        return [won[i].command for i in ids if i in won]

    async def _claim(self, wanted: Mapping[str, Document], token: str) -> dict[str, Document]:
        """Those that are ours now."""
        now = trio.current_time()

        def decide(document: Document) -> Mapping[str, Any] | None:
            if document.token == token or not self._pending.is_takeable(document, now):
                return None
            return documents.claimed(token)

        changed = await self._change(wanted, decide)
        return {i: document for i, document in changed.items() if document.token == token}

    async def _change(
        self, wanted: Mapping[str, Document | None], decide: Callable[[Document], Mapping[str, Any] | None]
    ) -> dict[str, Document]:
        changed = await self._index.change(wanted, decide)
        self._pending.note_written(changed.values(), trio.current_time())
        for document_id in wanted:
            if document_id not in changed:
                self._pending.drop(document_id)
        return changed

    async def mark_sent(self, document_ids: Collection[str]) -> None:
        now = self._now()
        for document_id in document_ids:
            self._unmarked.setdefault(document_id, now)
        await self._mark(list(document_ids))

    async def _mark(self, document_ids: Sequence[str]) -> None:
        """Until it is stored, the claim is held and renewed: nobody else may offer what was delivered."""
        moments = {i: self._unmarked[i] for i in document_ids if i in self._unmarked}

        def decide(document: Document) -> Mapping[str, Any] | None:
            if document.status != "pending":
                return None
            return documents.sent(document.command, moments[document.id])

        await self._change({i: self._pending.held.get(i) for i in moments}, decide)
        for document_id in moments:
            self._unmarked.pop(document_id, None)
            self._pending.let_go(document_id)

    async def release(self, document_ids: Collection[str]) -> None:
        held = {i: self._pending.held[i] for i in document_ids if i in self._pending.held and i not in self._unmarked}
        for document_id in held:
            self._pending.let_go(document_id)
        prefix = f"{self._pending.node}."

        def decide(document: Document) -> Mapping[str, Any] | None:
            token = document.token
            return documents.released() if token is not None and token.startswith(prefix) else None

        try:
            await self._change(held, decide)
        finally:
            self._pending.tell_again(held)  # ours to take again, whether the release is stored or not
            self._discovery.tell()

    async def _upkeep(self) -> None:
        """Once a round of discovery: claims that are still needed are renewed, marks that couldn't be stored are."""
        if self._unmarked:
            await self._mark(list(self._unmarked))
        due = self._pending.to_renew(trio.current_time())
        if due:
            moment = self._now()
            tokens = {document.id: document.token for document in due}
            changes = documents.renewed(moment)

            def decide(document: Document) -> Mapping[str, Any] | None:
                fresh = document.source.get("delivery", {}).get("renewed") == changes["delivery"]["renewed"]
                return None if fresh or document.token != tokens[document.id] else changes

            for document in (await self._change({d.id: d for d in due}, decide)).values():
                if document.id in self._pending.held:
                    self._pending.hold(document, trio.current_time())
        now = trio.current_time()
        if not self._leadership.is_leader and now - self._tidied_at >= _TIDY_INTERVAL:
            # The leader ends it, and may not be able to say so: it is offered to nobody here.
            self._tidied_at = now
            for document in self._pending.overdue(now, self._now()):
                self._pending.drop(document.id)

    async def close(self) -> None:
        """Gives back what this node holds, so that others needn't wait for its lease; bounded in time."""
        with trio.CancelScope(deadline=trio.current_time() + _CLOSE_TIMEOUT, shield=True):
            try:
                if self._unmarked:
                    await self._mark(list(self._unmarked))
                await self.release(list(self._pending.held))
            except BackendUnavailable as exc:
                logger.info("claims are not given back, others take them over: %s", exc)

    # --- how it goes on ---

    async def report(self, reports: Sequence[CommandReport]) -> Sequence[ItemResult]:
        by_document: dict[str, list[int]] = {}
        for position, report in enumerate(reports):
            by_document.setdefault(report.document_id, []).append(position)
        results = [rules.not_yours(report.document_id) for report in reports]
        now = self._now()

        def decide(document: Document) -> Mapping[str, Any] | None:
            command, changed = document.command, False
            for position in by_document[document.id]:
                result, after = rules.apply_report(command, document.offered, reports[position], now)
                results[position] = result
                if after is not None:
                    command, changed = after, True
            return documents.ended(command) if changed else None

        await self._change(dict.fromkeys(by_document), decide)
        return results

    async def expire(self) -> None:
        await self._leadership.wait_until_leader()
        wall_now = self._now()
        overdue: dict[str, Document | None] = {
            document.id: document for document in self._pending.overdue(trio.current_time(), wall_now)
        }
        if wall_now - self._expired_at >= _EXPIRE_INTERVAL:
            found = await self._index.search(_unanswered(wall_now), order="asc", size=_EXPIRED_AT_ONCE)
            overdue |= {d.id: d for d in found if rules.is_overdue(d.command, wall_now)}
            self._expired_at = wall_now
        moment = trio.current_time()

        def decide(document: Document) -> Mapping[str, Any] | None:
            command = document.command
            free = document.id not in self._pending.busy and self._pending.is_takeable(document, moment)
            offered = document.status == "pending" and not free
            if offered or not rules.is_overdue(command, wall_now):
                return None
            return documents.ended(rules.failed(command, rules.overdue_reason(command)))

        if overdue:
            await self._change(overdue, decide)

    async def cancel(self, document_id: str) -> Command | None:
        def decide(document: Document) -> Mapping[str, Any] | None:
            if document.status != "pending" or document.token is not None:
                return None
            return documents.ended(rules.failed(document.command, rules.CANCELLED))

        changed = await self._change({document_id: None}, decide)
        return changed[document_id].command if document_id in changed else None

    async def agent_removed(self, agent_id: str) -> None:
        """Its pending commands end. Raises ``BackendUnavailable``."""
        query = every(documents.PENDING, documents.id_query("command.target.id", agent_id))
        found = await self._index.search(query, order="asc", size=_LARGEST_LIST)

        def decide(document: Document) -> Mapping[str, Any] | None:
            command = document.command
            if command.status != "pending" or command.target.type != "agent":
                return None
            return documents.ended(rules.failed(command, rules.AGENT_REMOVED))

        if found:
            await self._change({document.id: document for document in found}, decide)

    # --- looks ---

    async def get(self, document_id: str) -> Command | None:
        document = (await self._index.read([document_id])).get(document_id)
        return None if document is None else document.command

    async def list(
        self, *, status: CommandStatus | None = None, agent_id: str | None = None, limit: int = 1000
    ) -> Sequence[Command]:
        filters: list[Query] = []
        if status is not None:
            filters.append(documents.status_query(status))
        if agent_id is not None:
            filters.append(exactly("command.target.type", ["agent", "AGENT", "Agent"]))
            filters.append(documents.id_query("command.target.id", agent_id.lower()))
        query: Query = every(*filters) if filters else {"match_all": {}}
        found = await self._index.search(query, order="desc", size=min(limit, _LARGEST_LIST))
        return sorted((document.command for document in found), key=lambda command: -command.created_at)


def _child(parent: Document, child: Command) -> dict[str, Any]:
    """With the times of its parent, as they were written."""
    source = documents.to_document(evolve(child, status="pending"))
    times = {name: parent.source[name] for name in ("@timestamp", "delivery_timestamp") if name in parent.source}
    return source | times


def _unanswered(wall_now: float) -> Query:
    """Sent ones whose time is over; of those that another program marked, all: their time is worked out here."""
    answer_by = "delivery.answer_by"
    over: Query = {"range": {answer_by: {"lt": round(wall_now * 1000)}}}
    unknown: Query = {"bool": {"must_not": [{"exists": {"field": answer_by}}]}}
    either: Query = {"bool": {"should": [over, unknown], "minimum_should_match": 1}}
    return every(documents.status_query("sent"), exactly("command.target.type", ["agent", "AGENT", "Agent"]), either)
