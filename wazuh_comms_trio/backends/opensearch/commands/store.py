"""The command store in the indexer, shared by several nodes: ``CommandStore``."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

import trio

from wazuh_comms_trio.backends import command_rules as rules
from wazuh_comms_trio.backends.interfaces import Command, CommandReport, CommandStatus, ItemResult
from wazuh_comms_trio.backends.leadership import Leadership
from wazuh_comms_trio.backends.opensearch.client.client import OpenSearchClient
from wazuh_comms_trio.backends.opensearch.client.queries import Query, every
from wazuh_comms_trio.backends.opensearch.commands import documents as documents
from wazuh_comms_trio.backends.opensearch.commands.children import Children
from wazuh_comms_trio.backends.opensearch.commands.claims import Claims
from wazuh_comms_trio.backends.opensearch.commands.discovery import Discovery, Search
from wazuh_comms_trio.backends.opensearch.commands.documents import Document
from wazuh_comms_trio.backends.opensearch.commands.exchange import WorkerExchange
from wazuh_comms_trio.backends.opensearch.commands.group_expansion import GroupExpansion
from wazuh_comms_trio.backends.opensearch.commands.index import LARGEST, CommandIndex, Refused
from wazuh_comms_trio.backends.opensearch.commands.interest import Interest
from wazuh_comms_trio.backends.opensearch.commands.news import News
from wazuh_comms_trio.backends.opensearch.commands.pending import PendingCommands
from wazuh_comms_trio.backends.opensearch.index_names import IndexName
from wazuh_comms_trio.config.backend_models import IndexerCommands
from wazuh_comms_trio.errors import MalformedRequest

#: Of a list that is read in pages.
_PAGE: Final = 500
_EXPIRED_AT_ONCE: Final = 500
#: Seconds of wall-clock time between two searches for commands that no agent has answered.
_EXPIRE_INTERVAL: Final = 2.0


class OpenSearchCommands:
    """``CommandStore``. ``members`` gives a group's agents. Discovery begins with the first ``wait_news`` and lives in
    ``nursery``."""

    keeps_posted = False

    def __init__(
        self,
        client: OpenSearchClient,
        name: IndexName,
        nursery: trio.Nursery,
        settings: IndexerCommands,
        *,
        members: Callable[[str], Awaitable[Iterable[str]]],
        wall_clock: Callable[[], float],
        rng: random.Random,
        leadership: Leadership | None = None,
    ) -> None:
        self._now = wall_clock
        self._leadership = leadership or Leadership()
        self._nursery = nursery
        self._index = index = CommandIndex(client, name, wall_clock=wall_clock, rng=rng)
        self._pending = pending = PendingCommands(settings.lease)
        self._news = news = News(pending)
        interest = Interest()
        self._exchange = exchange = WorkerExchange(self._leadership, pending, interest, news)
        self._claims = claims = Claims(index, pending, news, wall_clock=wall_clock)
        self._groups = groups = GroupExpansion(index, pending, claims, exchange, members, wall_clock=wall_clock)
        self._children = Children(index, members)
        self._discovery = Discovery(
            Search(index, pending, interest, exchange),
            pending,
            interest,
            exchange,
            news,
            claims,
            groups,
            interval=settings.interval,
            idle_interval=settings.idle_interval,
            wall_clock=wall_clock,
            rng=rng,
        )
        self._expired_at = -_EXPIRE_INTERVAL

    # --- new commands ---

    async def add(self, commands: Sequence[Command]) -> Sequence[Command]:
        now = self._now()
        wanted = [rules.normalized(command, now) for command in commands]
        ours = {command.document_id: command for command in reversed(wanted) if rules.is_ours(command)}
        tokens = {i: self._pending.new_token() for i, c in ours.items() if rules.is_to_expand(c)}
        sources = {i: documents.to_document(c, tokens.get(i)) for i, c in reversed(ours.items())}
        self._pending.busy |= tokens.keys()
        try:
            stored = await self._index.create(sources)
            present = [document_id for document_id in sources if document_id not in stored]
            stored |= await self._index.read(present)
            self._pending.note_written(stored.values(), trio.current_time())
            groups = [document for i, document in stored.items() if i in tokens and document.status == "pending"]
            if groups:
                stored |= await self._groups.expand(groups)
        except Refused as exc:
            raise MalformedRequest(str(exc)) from exc
        finally:
            self._pending.busy -= tokens.keys()
        self._news.announce()
        return [stored[c.document_id].command if c.document_id in stored else c for c in wanted]

    # --- claims ---

    async def wait_news(self) -> Collection[str]:
        self._discovery.start(self._nursery)
        while True:
            found = await self._news.wait()
            # What looks overdue now is news all the same: the clock may be set back, as the dispatcher notices.
            now = trio.current_time()
            news = {agent_id for agent_id in found if self._pending.has_free(agent_id, now)}
            if news:
                return news

    async def claim(self, agent_ids: Collection[str]) -> Sequence[Command]:
        """Makes no search: what ``wait_news`` found and what was added here is known."""
        self._exchange.note_interest(agent_ids)
        return await self._claims.claim(agent_ids)

    async def mark_sent(self, document_ids: Collection[str]) -> None:
        await self._claims.mark_sent(document_ids)

    async def release(self, document_ids: Collection[str]) -> None:
        await self._claims.release(document_ids)

    async def close(self) -> None:
        """Gives back what this node holds, so that others needn't wait for its lease; bounded in time."""
        await self._claims.close()

    # --- how it goes on ---

    async def report(self, reports: Sequence[CommandReport]) -> Sequence[ItemResult]:
        by_document: dict[str, list[int]] = {}
        for position, report in enumerate(reports):
            by_document.setdefault(report.document_id, []).append(position)
        results = [rules.not_there(report.document_id) for report in reports]
        now = self._now()

        def decide(document: Document) -> Mapping[str, Any] | None:
            command, changed = document.command, False
            for position in by_document[document.id]:
                result, after = rules.apply_report(command, document.offered, reports[position], now)
                results[position] = result
                if after is not None:
                    command, changed = after, True
            return documents.ended(command) if changed else None

        await self._claims.change(dict.fromkeys(by_document), decide)
        return results

    async def expire(self) -> None:
        await self._leadership.wait_until_leader()
        moment, wall_now = trio.current_time(), self._now()
        overdue: dict[str, Document | None] = {
            document.id: document for document in self._pending.overdue(moment, wall_now)
        }
        if not 0 <= wall_now - self._expired_at < _EXPIRE_INTERVAL:  # the clock may have been set back
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
            await self._claims.change(overdue, decide)

    async def cancel(self, document_id: str) -> Command | None:
        def decide(document: Document) -> Mapping[str, Any] | None:
            if document.status != "pending" or document.token is not None:
                return None
            return documents.ended(rules.failed(document.command, rules.CANCELLED))

        changed = await self._claims.change({document_id: None}, decide)
        if document_id not in changed or decide(changed[document_id]) is not None:
            await self._index.read_one(document_id)  # says so where it can't be read as a whole
        if document_id not in changed:
            return None
        if changed[document_id].command.target.type == "group":
            children = await self._children.of([document_id])
            pending = {child.id: child for child in children if child.status == "pending"}
            if pending:
                await self._claims.change(pending, decide)
        return changed[document_id].command

    async def agent_removed(self, agent_id: str) -> None:
        """The pending commands of a removed agent end. Raises ``BackendUnavailable``."""
        query = every(documents.PENDING, documents.id_query("command.target.id", agent_id))
        found = await self._index.search(query, order="asc", size=LARGEST)

        def decide(document: Document) -> Mapping[str, Any] | None:
            command = document.command
            if command.status != "pending" or command.target.type != "agent":
                return None
            return documents.ended(rules.failed(command, rules.AGENT_REMOVED))

        if found:
            await self._claims.change({document.id: document for document in found}, decide)

    # --- looks ---

    async def get(self, document_id: str) -> Command | None:
        document = await self._index.read_one(document_id)
        return None if document is None else document.command

    async def children(self, parents: Collection[str]) -> Sequence[Command]:
        return [document.command for document in await self._children.of(parents)]

    async def list(
        self,
        *,
        status: CommandStatus | None = None,
        agent_id: str | None = None,
        limit: int = 1000,
        children: bool = True,
    ) -> Sequence[Command]:
        query = await self._listed(status, agent_id, children)
        found = await self._index.search(query, order="desc", size=min(limit, LARGEST))
        return sorted((document.command for document in found), key=lambda command: -command.created_at)

    async def pages(
        self, *, status: CommandStatus | None = None, agent_id: str | None = None, children: bool = True
    ) -> AsyncGenerator[Sequence[Command], None]:
        query = await self._listed(status, agent_id, children)
        async with aclosing(self._index.newest(query, _PAGE)) as found:
            async for page in found:
                yield sorted((document.command for document in page), key=lambda command: -command.created_at)

    async def _listed(self, status: CommandStatus | None, agent_id: str | None, children: bool) -> Query:
        filters: list[Query] = []
        if status is not None:
            filters.append(documents.status_query(status))
        if agent_id is not None:
            filters.append(documents.AGENTS)
            filters.append(documents.id_query("command.target.id", agent_id.lower()))
        if not children:
            filters.append(await self._children.left_out())
        return every(*filters) if filters else {"match_all": {}}


def _unanswered(wall_now: float) -> Query:
    """Sent commands whose time is over; of those that another program marked, all: their time is worked out here."""
    answer_by = "delivery.answer_by"
    over: Query = {"range": {answer_by: {"lt": round(wall_now * 1000)}}}
    unknown: Query = {"bool": {"must_not": [{"exists": {"field": answer_by}}]}}
    either: Query = {"bool": {"should": [over, unknown], "minimum_should_match": 1}}
    return every(documents.status_query("sent"), documents.AGENTS, either)
