"""When agents were heard last, and by which node, in an index of our own: ``.agents`` is mapped strictly and has room
for a status alone. One document an agent, with a part for each node."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from hashlib import sha256
from math import inf
from typing import Any, Final

from wazuh_comms_trio.backends.local_node import LocalNode
from wazuh_comms_trio.backends.opensearch.client.bulk import (
    QUERY,
    QUERY_VERSIONS,
    SHARD_WAIT,
    create_line,
    judge,
    partial,
    read_items,
    update_if_line,
    update_line,
)
from wazuh_comms_trio.backends.opensearch.client.client import NDJSON, IndexerUnavailable, OpenSearchClient, path
from wazuh_comms_trio.backends.opensearch.client.multi_get import get_many
from wazuh_comms_trio.backends.opensearch.client.queries import Query, encode_json, every, is_possible_id
from wazuh_comms_trio.backends.opensearch.client.search import scroll, search
from wazuh_comms_trio.backends.opensearch.index_names import IndexName
from wazuh_comms_trio.backends.opensearch.templates import PRESENCE_INDEX, create_index, index_exists
from wazuh_comms_trio.backends.presence import AHEAD, Heard, LastSeen, NodeNews, Status, is_believed
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.environment import WallClock

logger = logging.getLogger(__name__)

#: The document of who tells of agents' silence.
_WATCH: Final = "watch"
_FIELDS: Final = ("seen", "sent", "node", "nodes.*.seen", "nodes.*.sent", "nodes.*.name")


def node_key(node_id: str) -> str:
    """A node's name in documents: any text in an id is allowed, but not in a field's name. 16 hex digits."""
    return sha256(node_id.encode()).hexdigest()[:16]


class OpenSearchPresence:
    """``PresenceStore``. ``node``: who writes; None for who only reads. Two nodes that hear an agent in the same minute
    write it both, and which of their moments is ``last_seen`` is chance; ``about`` has both."""

    keeps_news = True

    def __init__(
        self, client: OpenSearchClient, registry: IndexName, node: LocalNode | None, wall_clock: WallClock
    ) -> None:
        self._client = client
        self._registry = registry
        self._node = node
        self._now = wall_clock
        #: The version of the document that this node wrote last.
        self._watch: tuple[int, int] | None = None

    async def record(self, heard: Sequence[Heard]) -> None:
        await self._make()
        node = self._node or LocalNode("", "", "")
        known = [each for each in heard if is_possible_id(each.agent_id)]
        lines = []
        for each in known:
            document = _document(each, node)
            lines.append(update_line(PRESENCE_INDEX, each.agent_id.lower()))
            lines.append(b'{"doc_as_upsert":true,"doc":%b}\n' % encode_json(document))
        if not lines:
            return
        reply = await self._client.request("POST", "/_bulk", b"".join(lines), query=QUERY, content_type=NDJSON)
        for item in read_items(reply, len(known)):
            if judge(item) != "done" and item.status != 409:  # 409: other nodes write it, too
                reason = item.error.reason if item.error else ""
                raise IndexerUnavailable(f"{PRESENCE_INDEX}: {item.status} {reason}")

    async def _make(self) -> None:
        """Makes the index where it is missing: a bulk call would make it with a mapping of its own."""
        is_there = await index_exists(self._client, PRESENCE_INDEX)
        if not is_there and await create_index(self._client, PRESENCE_INDEX, "presence"):
            logger.info("indexer: made the index %s", PRESENCE_INDEX)

    async def last_seen(
        self, since: float | None = None, *, before: float | None = None, sent_before: float | None = None
    ) -> Mapping[str, LastSeen]:
        if not await index_exists(self._client, PRESENCE_INDEX):
            return {}
        query = _matching(since, before, sent_before)
        found: dict[str, LastSeen] = {}
        async with scroll(self._client, PRESENCE_INDEX, query, fields=_FIELDS) as documents:
            async for document in documents:
                seen = _newest(document.source, self._now())
                if seen is not None and seen.seen < (before or inf) and (seen.sent or 0.0) < (sent_before or inf):
                    found[document.id] = seen
        return found

    async def last_seen_of(self, agent_ids: Sequence[str]) -> Mapping[str, LastSeen]:
        if not await index_exists(self._client, PRESENCE_INDEX):
            return {}
        wanted = [agent_id.lower() for agent_id in agent_ids]
        found = await get_many(self._client, PRESENCE_INDEX, wanted)  # whole: patterns of fields take 20 times as long
        now = self._now()
        newest = {agent_id: _newest(document.source, now) for agent_id, document in found.items()}
        return {agent_id: seen for agent_id, seen in newest.items() if seen is not None}

    async def about(self, agent_id: str) -> Sequence[NodeNews]:
        agent_id = agent_id.lower()
        if not is_possible_id(agent_id) or not await index_exists(self._client, PRESENCE_INDEX):
            return ()
        found = (await get_many(self._client, PRESENCE_INDEX, [agent_id])).get(agent_id)
        source: Any = None if found is None else found.source
        nodes: Any = source.get("nodes") if isinstance(source, dict) else None
        if not isinstance(nodes, dict):
            return ()
        return [news for part in nodes.values() if (news := _read_news(part)) is not None]

    async def take_watch(self, holder: str, now: float, seconds: float) -> str | None:
        """Takes the watch by conditional writes of one document: of two nodes that see it free one gets it."""
        await self._make()
        found = (await get_many(self._client, PRESENCE_INDEX, [_WATCH])).get(_WATCH)
        source: Any = found.source if found is not None and isinstance(found.source, dict) else {}
        until = _moment(source.get("until")) or 0.0
        if source.get("holder") != holder and until > now:
            return None
        state = source.get("state")
        text = state if isinstance(state, str) else ""
        document = {"holder": holder, "until": round((now + seconds) * 1000)}
        if found is None:
            lines = create_line(PRESENCE_INDEX, _WATCH) + encode_json({**document, "state": ""}) + b"\n"
        else:
            lines = update_if_line(PRESENCE_INDEX, _WATCH, found.seq_no, found.primary_term) + partial(document)
        return text if await self._write_watch(lines) else None

    async def keep_watch(self, holder: str, state: str) -> bool:
        if self._watch is None:
            return False
        lines = update_if_line(PRESENCE_INDEX, _WATCH, *self._watch) + partial({"holder": holder, "state": state})
        return await self._write_watch(lines)

    async def _write_watch(self, lines: bytes) -> bool:
        """Writes the watch's document; False where another node was faster."""
        self._watch = None
        reply = await self._client.request("POST", "/_bulk", lines, query=QUERY_VERSIONS, content_type=NDJSON)
        (item,) = read_items(reply, 1)
        if item.status == 409:
            return False
        if item.error is not None:
            raise IndexerUnavailable(f"{PRESENCE_INDEX}: {item.status} {item.error.reason or ''}")
        self._watch = item.seq_no, item.primary_term
        return True

    async def counts(self, since: float) -> Mapping[Status, int]:
        registry = await self._registry.present()
        if registry is None or not await index_exists(self._client, PRESENCE_INDEX):
            return {"active": 0, "disconnected": 0, "never": 0}
        every = await self._count(registry, {"match_all": {}})
        logged_in = await self._count(registry, {"exists": {"field": "agent.last_login"}})
        # Among them may be a few that were removed a moment ago.
        heard = await self._count(PRESENCE_INDEX, _seen_between(since, self._now() + AHEAD))
        active = min(logged_in, heard)
        return {"active": active, "disconnected": logged_in - active, "never": every - logged_in}

    async def _count(self, index: str, query: Query) -> int:
        return (await search(self._client, index, query, size=0, count=True)).total or 0

    async def forget(self, agent_id: str) -> None:
        """Deletes what is kept of a removed agent. What fails is in the log only: nobody asks for an agent that there
        isn't."""
        try:
            if is_possible_id(agent_id) and await index_exists(self._client, PRESENCE_INDEX):
                target = path(PRESENCE_INDEX, "_doc", agent_id.lower())
                await self._client.request("DELETE", target, query={"timeout": SHARD_WAIT})
        except BackendUnavailable as exc:
            logger.debug("what was heard of a removed agent stays in %s: %s", PRESENCE_INDEX, exc)


def _seen_since(moment: float) -> Query:
    return {"range": {"seen": {"gt": round(moment * 1000) - 1}}}


def _seen_between(first: float, last: float) -> Query:
    return {"range": {"seen": {"gt": round(first * 1000) - 1, "lte": round(last * 1000)}}}


def _matching(since: float | None, before: float | None, sent_before: float | None) -> Query:
    found = [] if since is None else [_seen_since(since)]
    for name, moment in (("seen", before), ("sent", sent_before)):
        if moment is not None:
            found.append({"range": {name: {"lt": round(moment * 1000)}}})
    return every(*found) if found else {"match_all": {}}


def _document(heard: Heard, node: LocalNode) -> dict[str, Any]:
    """The document of what was heard; what isn't said is left out, so that it stays as it is."""
    moments = {"seen": heard.seen, "sent": heard.sent}
    said: dict[str, Any] = {name: round(moment * 1000) for name, moment in moments.items() if moment is not None}
    part = {"id": node.id, "name": node.name, **said, "news": dict(heard.news)}
    here = {} if heard.seen is None else {"node": node.name}
    return {**here, **said, "nodes": {node_key(node.id): part}}


def _newest(source: object, now: float) -> LastSeen | None:
    """What is at the top was written last, perhaps by a node that couldn't for a while: each node's part counts, those
    that aren't believed only where there is no other."""
    fields: Mapping[str, Any] = source if isinstance(source, dict) else {}
    nodes: Any = fields.get("nodes")
    parts = [part for part in nodes.values() if isinstance(part, dict)] if isinstance(nodes, dict) else []
    moments = [(_moment(part.get("seen")), str(part.get("name", ""))) for part in parts]
    moments.append((_moment(fields.get("seen")), str(fields.get("node", ""))))
    seen, node = max(
        ((seen, node) for seen, node in moments if seen is not None),
        key=lambda each: (is_believed(each[0], now), *each),
        default=(None, ""),
    )
    sent = [moment for part in (fields, *parts) if (moment := _moment(part.get("sent"))) is not None]
    last_sent = max(sent, key=lambda moment: (is_believed(moment, now), moment), default=None)
    return None if seen is None else LastSeen(seen, last_sent, node)


def _read_news(part: Any) -> NodeNews | None:
    if not isinstance(part, dict):
        return None
    news = part.get("news")
    return NodeNews(
        str(part.get("id", "")),
        str(part.get("name", "")),
        _moment(part.get("seen")),
        _moment(part.get("sent")),
        news if isinstance(news, dict) else {},
    )


def _moment(value: object) -> float | None:
    """Epoch seconds from epoch milliseconds."""
    return value / 1000 if isinstance(value, int | float) and not isinstance(value, bool) else None
