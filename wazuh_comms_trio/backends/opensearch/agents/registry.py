"""The registry in the indexer: ``AgentRegistry`` with real-time reads, a cache, updates that wait for no refresh."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, Final

import trio
from attrs import evolve

from wazuh_comms_trio.backends.agent_orders import AgentOrder, in_order
from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.backends.leadership import Leadership
from wazuh_comms_trio.backends.opensearch.agents.agent_search import EVERYONE, AgentSearch
from wazuh_comms_trio.backends.opensearch.agents.cache import LARGEST, AgentCache
from wazuh_comms_trio.backends.opensearch.agents.documents import find_problem, to_agent, to_document
from wazuh_comms_trio.backends.opensearch.agents.login_updates import LoginRecorder
from wazuh_comms_trio.backends.opensearch.agents.shared_revocations import SharedRevocations
from wazuh_comms_trio.backends.opensearch.client.bulk import SHARD_WAIT, is_bad_request
from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable, OpenSearchClient, decode, path
from wazuh_comms_trio.backends.opensearch.client.error_details import error_of
from wazuh_comms_trio.backends.opensearch.client.found import Found
from wazuh_comms_trio.backends.opensearch.client.multi_get import get_many
from wazuh_comms_trio.backends.opensearch.client.queries import encode_json, is_possible_id
from wazuh_comms_trio.backends.opensearch.client.shared_reads import SharedReads
from wazuh_comms_trio.backends.opensearch.index_names import IndexName
from wazuh_comms_trio.errors import AgentExists, BackendUnavailable, DocumentUnreadable, MalformedRequest
from wazuh_comms_trio.foundation.outage_log import OutageLog

logger = logging.getLogger(__name__)

#: Seconds that a request waits for a fresh read of an agent, before it goes on with what was known.
_LOOKUP_TIMEOUT: Final = 2.0
#: Agents read again in one call.
_RENEWED_AT_ONCE: Final = 500
_WRITE: Final = {"timeout": SHARD_WAIT}
_UPDATE: Final = {**_WRITE, "retry_on_conflict": "5", "filter_path": "result"}
#: Agents handed on at a time, of a list.
_PAGE: Final = 500


class OpenSearchAgents:
    """``run`` has to run beside it; ``nursery`` is where shared reads live. ``agent_removed`` ends a removed agent's
    commands; ``had_registry`` says whether there was one, where there is none."""

    def __init__(
        self,
        client: OpenSearchClient,
        index: IndexName,
        nursery: trio.Nursery,
        search: AgentSearch,
        *,
        revocation: float,
        agent_removed: Callable[[str], Awaitable[None]],
        had_registry: Callable[[], Awaitable[bool]] | None = None,
        leadership: Leadership | None = None,
    ) -> None:
        self._had_registry = had_registry
        self._client = client
        self._index = index
        self._cache = AgentCache(revocation)
        self._shared = SharedRevocations(self._cache, leadership or Leadership())
        self._reads: SharedReads[Agent] = SharedReads(nursery, self._fetch)
        self._logins = LoginRecorder(client, index)
        self._search = search
        self._agent_removed = agent_removed
        self._outage = OutageLog(logger, "the registry", clock=trio.current_time)
        #: Agents that were looked for and couldn't be read, and that are read as soon as it can be.
        self._unread: dict[str, None] = {}

    # --- reads ---

    async def get(self, agent_id: str) -> Agent | None:
        agent_id = agent_id.lower()
        began = trio.current_time()
        try:
            agent = await self._reads.get(agent_id)
        except DocumentUnreadable:
            raise  # the log names it; the registry is well
        except BackendUnavailable as exc:
            self._note_failure(exc)
            raise
        self._put(agent_id, agent, began)
        return agent

    def _put(self, agent_id: str, agent: Agent | None, began: float) -> None:
        if self._cache.put(agent_id, agent, began):
            self._shared.tell([agent_id])

    def _tell_gone(self, agent_id: str) -> None:
        self._cache.note_gone(agent_id)
        self._shared.tell([agent_id])

    async def current(self, agent_id: str) -> Agent | None:
        return await self.get(agent_id)

    async def lookup(self, agent_id: str) -> Agent | None:
        """While the indexer, or the agent's document, can't be read, what was known before holds: agents with a token
        work on."""
        agent_id = agent_id.lower()
        now = trio.current_time()
        entry = self._cache.use(agent_id, now)
        if entry is None or entry.agent is None:
            if entry is not None and self._cache.is_fresh(entry, now):
                return None
            if len(self._unread) < LARGEST:
                self._unread[agent_id] = None
            agent = await self.get(agent_id)
            self._unread.pop(agent_id, None)
            if agent is None and entry is None:  # it had a token, and this worker hadn't seen it
                self._tell_gone(agent_id)
            return agent
        if self._cache.is_fresh(entry, now) or self._outage.failing:
            return entry.agent
        try:
            with trio.fail_after(_LOOKUP_TIMEOUT):
                return await self.get(agent_id)
        except DocumentUnreadable:
            return entry.agent
        except (BackendUnavailable, trio.TooSlowError) as exc:
            self._note_failure(exc)
            return entry.agent

    async def revoked(self, agents: Mapping[str, str]) -> Collection[str]:
        now = trio.current_time()
        entries = {agent_id: self._cache.use(agent_id.lower(), now) for agent_id in agents}
        unknown = [agent_id for agent_id, entry in entries.items() if entry is None or entry.is_hearsay]
        if unknown and not self._outage.failing:
            await self._renew([agent_id.lower() for agent_id in unknown])
        return [agent_id for agent_id, fingerprint in agents.items() if self._is_revoked(agent_id, fingerprint)]

    def known(self, agent_id: str) -> Agent | None:
        now = trio.current_time()
        entry = self._cache.use(agent_id.lower(), now)
        return entry.agent if entry is not None and self._cache.is_fresh(entry, now) else None

    def may_be_served_unread(self, agent_id: str, fingerprint: str) -> bool:
        agent_id = agent_id.lower()
        entry = self._cache.use(agent_id, trio.current_time())
        return entry is None or entry.fingerprint == fingerprint

    async def changed(self) -> None:
        """None, for all agents: others may have changed any, nobody says which, and what is read again is in the
        cache."""
        await trio.lowlevel.checkpoint()

    def _is_revoked(self, agent_id: str, fingerprint: str) -> bool:
        entry = self._cache.entries.get(agent_id.lower())
        return entry is not None and entry.fingerprint != fingerprint

    async def _fetch(self, ids: Sequence[str]) -> Mapping[str, Agent | DocumentUnreadable]:
        index = await self._index.present()
        if index is None and self._had_registry is not None and await self._had_registry():
            raise IndexerUnavailable("the index of agents has vanished")  # which makes nobody unknown
        found = {} if index is None else await get_many(self._client, index, ids, fields=["agent"])
        self._outage.worked()
        agents: dict[str, Agent | DocumentUnreadable] = {}
        for document_id, document in found.items():
            if document.judged(find_problem).problem is not None:  # it is there: nobody may be told that it isn't
                agents[document_id] = error = document.unreadable()
                self._client.unreadable.note(error)
            elif (agent := to_agent(document_id, document.source)) is not None:
                agents[document_id] = agent
        return agents

    def _note_failure(self, cause: BackendUnavailable | trio.TooSlowError) -> None:
        why = "it doesn't answer" if isinstance(cause, trio.TooSlowError) else cause
        self._outage.failed(f"{why}; agents that are known go on, others wait", kind="can't be read")

    # --- what runs beside ---

    async def run(self) -> None:
        """Keeps the cache fresh and writes log-ins, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._logins.run)
            nursery.start_soon(self._keep_fresh)

    async def _keep_fresh(self) -> None:
        interval = min(1.0, max(0.1, self._cache.window / 10))
        while True:
            await trio.sleep(interval)
            now = trio.current_time()
            try:
                self._cache.forget_old(now)
                await self._renew([*self._cache.due(now), *self._unread])
            except Exception:
                logger.exception("agents can't be read again: an error of ours")

    async def _renew(self, ids: Sequence[str]) -> None:
        """Reads these agents again; while that fails, what is known holds."""
        for start in range(0, len(ids), _RENEWED_AT_ONCE):
            wanted = ids[start : start + _RENEWED_AT_ONCE]
            began = trio.current_time()
            try:
                with trio.fail_after(max(_LOOKUP_TIMEOUT, self._cache.window / 2)):
                    found = await self._fetch(wanted)
            except (BackendUnavailable, trio.TooSlowError) as exc:
                self._note_failure(exc)
                return
            for agent_id in wanted:
                agent = found.get(agent_id)
                self._unread.pop(agent_id, None)
                if isinstance(agent, DocumentUnreadable):
                    continue
                is_new = agent_id not in self._cache.entries
                self._put(agent_id, agent, began)
                if agent is None and is_new:  # it had a token, too
                    self._tell_gone(agent_id)
                if agent is not None and agent.status == "disconnected" and agent.last_login is not None:
                    self._logins.record(agent_id, None)  # another node didn't know that it is here

    async def flush_logins(self) -> None:
        """Writes the log-ins that wait. Raises ``BackendUnavailable``."""
        await self._logins.flush()

    def seen_since(self, moment: float) -> Collection[str]:
        """Agents that asked for something here since ``moment`` on trio's clock."""
        return self._cache.seen_since(moment)

    # --- writes ---

    async def add(self, agent: Agent) -> None:
        agent = evolve(agent, id=agent.id.lower(), groups=tuple(agent.groups))
        if not is_possible_id(agent.id):
            raise MalformedRequest("the agent's id can't be stored")
        index = await self._index.existing()  # one that vanished isn't made anew: all others would be unknown
        body = encode_json(to_document(agent))
        reply = await self._client.request("PUT", path(index, "_create", agent.id), body, query=_WRITE)
        if reply.status == 409:
            # The indexer repeats writes on its own when a node goes: this may be our own first one.
            stored = await self.get(agent.id)
            if stored is None or stored.fingerprint != agent.fingerprint:
                raise AgentExists
        elif is_bad_request(reply, error := error_of(reply)):  # no closed index, and no proxy
            raise MalformedRequest(error.reason or None)
        else:
            decode(reply)
        was_revoked = self._cache.is_revoked(agent.id)
        self._cache.put(agent.id, agent, trio.current_time())
        if was_revoked:  # the others know that it was removed
            self._shared.tell([agent.id])

    async def remove(self, agent_id: str) -> bool:
        agent_id = agent_id.lower()
        index = await self._index.present()
        if index is None or not is_possible_id(agent_id):
            return False
        reply = await self._client.request("DELETE", path(index, "_doc", agent_id), query=_WRITE)
        if reply.status != 404 or error_of(reply).type:
            decode(reply)
        self._cache.put(agent_id, None, trio.current_time())
        await self._agent_removed(agent_id)
        return reply.status != 404

    async def rekey(self, agent_id: str, key_hash: str) -> bool:
        return await self._update(agent_id, {"key": key_hash})

    async def set_groups(self, agent_id: str, groups: Sequence[str]) -> bool:
        return await self._update(agent_id, {"groups": list(groups)})

    async def _update(self, agent_id: str, fields: Mapping[str, Any]) -> bool:
        agent_id = agent_id.lower()
        if await self._index.present() is None or not is_possible_id(agent_id):
            return False
        index = await self._index.existing()
        body = encode_json({"doc": {"agent": fields}})
        reply = await self._client.request("POST", path(index, "_update", agent_id), body, query=_UPDATE)
        if reply.status == 404 and error_of(reply).type == "document_missing_exception":
            return False
        decode(reply)
        with suppress(DocumentUnreadable):  # which it was before, but for these fields
            await self.get(agent_id)
        return True

    async def record_login(self, agent_id: str, when: float) -> None:
        self._cache.use(agent_id.lower(), trio.current_time())
        if is_possible_id(agent_id):
            self._logins.record(agent_id.lower(), when)

    # --- searches ---

    def _readable(self, found: Sequence[Found]) -> list[Agent]:
        """Documents that are agents'; the log names those that can't be read."""
        agents: list[Agent] = []
        for each in found:
            if (agent := to_agent(each.id, each.source)) is not None:
                agents.append(agent)
            elif each.judged(find_problem).problem is not None:
                self._client.unreadable.note(each.unreadable())
        return agents

    async def list(self) -> Sequence[Agent]:
        return sorted(self._readable(await self._search.find(EVERYONE, ["agent"])), key=lambda agent: agent.id)

    async def pages(
        self, order: AgentOrder = "name", *, reverse: bool = False
    ) -> AsyncGenerator[Sequence[Agent], None]:
        """Agents in pages; where the index, which others made, can't be sorted all are read before the first."""
        sortable = False
        async with aclosing(self._search.pages(order, reverse=reverse)) as found:
            async for page in found:
                sortable = True
                yield self._readable(page)
        if sortable:
            return
        every = in_order(await self.list(), order, reverse=reverse)
        for start in range(0, len(every), _PAGE):
            yield every[start : start + _PAGE]

    async def members(self, group: str) -> Sequence[str]:
        return await self._search.members(group)

    async def named(self, name: str) -> Sequence[str]:
        return await self._search.named(name)

    async def unique_names(self, agent_ids: Collection[str]) -> Mapping[str, str]:
        ids = {agent_id: agent_id.lower() for agent_id in agent_ids}
        wanted = list(dict.fromkeys(ids.values()))
        unique: dict[str, str] = {}
        for start in range(0, len(wanted), _PAGE):  # a search can't be for any number of names
            found = await self._fetch(wanted[start : start + _PAGE])
            names = {key: agent.name for key, agent in found.items() if isinstance(agent, Agent)}
            shared = await self._search.shared(set(names.values())) if names else ()
            unique |= {key: name for key, name in names.items() if name not in shared}
        return {given: unique[key] for given, key in ids.items() if key in unique}
