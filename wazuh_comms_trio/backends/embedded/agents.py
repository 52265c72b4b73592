"""The embedded registry."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal

import apsw
import msgspec
import trio
from attrs import evolve

from wazuh_comms_trio.backends import command_rules as rules
from wazuh_comms_trio.backends.agent_orders import AgentOrder, in_order
from wazuh_comms_trio.backends.embedded.database.database import Database
from wazuh_comms_trio.backends.embedded.database.text import storable, texts
from wazuh_comms_trio.backends.embedded.row_checksums import row_checksum, seal_agent
from wazuh_comms_trio.backends.embedded.row_reading import read_row, read_rows
from wazuh_comms_trio.backends.embedded.state_schema import CHANGES_KEPT
from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.backends.unreadable import UnreadableLog
from wazuh_comms_trio.errors import AgentExists, DocumentUnreadable, MalformedRequest
from wazuh_comms_trio.foundation.caches.bounded_cache import AGENTS_REMEMBERED, BoundedCache

_COLUMNS: Final = "id, name, key_hash, type, version, groups, host, status, last_login"
#: Seconds for which a log-in waits for other writes, to share their transaction, which costs more than noting it.
LOG_INS_WAIT: Final = 0.05
#: Of a list that is read in pages.
_PAGE: Final = 500
_ORDERS: Final[Mapping[tuple[AgentOrder, bool], str]] = {
    ("name", False): "name, id",
    ("name", True): "name DESC, id",
    ("uuid", False): "id",
    ("uuid", True): "id DESC",
}


class SqliteAgents:
    """``AgentRegistry``. ``lookup`` answers from memory; before it does, it asks the file whether anything was
    committed (``PRAGMA data_version``, microseconds) and, if so, which agents that concerned."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unreadable = UnreadableLog()
        # About 1.5 kB each, so 150 MB at most, for a hundred thousand agents.
        self._cache: BoundedCache[str, tuple[Agent, str]] = BoundedCache(AGENTS_REMEMBERED)
        self._data_version: tuple[apsw.Connection | None, object] = (None, None)
        self._generation: int | None = None
        self._changed: set[str] | None = None  # what `changed` returns next
        self._log_ins: dict[str, float] = {}
        self._log_ins_written: trio.Event | None = None

    async def get(self, agent_id: str) -> Agent | None:
        with self._unreadable.noting():
            return await self._database.read_now(lambda connection: _select(connection, agent_id.lower()))

    async def current(self, agent_id: str) -> Agent | None:
        """What is remembered is as new as the file but for the last log-in, which any process may have recorded."""
        agent_id = agent_id.lower()

        def find(connection: apsw.Connection) -> Agent | None:
            agent, _ = self._look_up(connection, agent_id)
            return None if agent is None else evolve(agent, last_login=_last_login(connection, agent_id))

        with self._unreadable.noting():
            return await self._database.read_now(find, lambda connection: _select(connection, agent_id))

    async def lookup(self, agent_id: str) -> Agent | None:
        agent_id = agent_id.lower()
        with self._unreadable.noting():
            return await self._database.read_now(
                lambda connection: self._look_up(connection, agent_id)[0],
                lambda connection: _select(connection, agent_id),
            )

    def known(self, agent_id: str) -> Agent | None:
        def find(connection: apsw.Connection) -> Agent | None:
            self._refresh(connection)
            found = self._cache.get(agent_id.lower())
            return None if found is None else found[0]

        return self._database.read_at_once(find)

    def _look_up(self, connection: apsw.Connection, agent_id: str) -> tuple[Agent | None, str | None]:
        """The agent and its fingerprint. On the event loop's thread only: the cache is not locked."""
        self._refresh(connection)
        found = self._cache.get(agent_id)
        if found is None:
            agent = _select(connection, agent_id)
            if agent is None:
                return None, None
            found = (agent, agent.fingerprint)
            self._cache.put(agent_id, found)
        return found

    def _refresh(self, connection: apsw.Connection) -> None:
        """Forgets the agents that another connection, of any process, has changed. The version is kept only after the
        counter was read: what is committed in between is noticed next time."""
        version = (connection, connection.execute("PRAGMA data_version").get)
        if version == self._data_version:
            return
        generation = connection.execute("SELECT value FROM counters WHERE name = 'agents'").get
        assert isinstance(generation, int)
        known = self._generation if connection is self._data_version[0] else None  # it may be another file
        if generation != known:
            changed = None if known is None else _changes(connection, known, generation)
            if changed is None:
                self._cache.clear()
            else:
                for agent_id in changed:
                    self._cache.drop(agent_id)
            self._changed = _together(self._changed, changed)
            self._generation = generation
        self._data_version = version

    async def changed(self) -> Collection[str] | None:
        def take(connection: apsw.Connection) -> set[str] | None:
            self._refresh(connection)
            changed, self._changed = self._changed, set()
            return changed

        return await self._database.read_now(take, lambda _: set())

    def may_be_served_unread(self, agent_id: str, fingerprint: str) -> bool:
        return False

    async def revoked(self, agents: Mapping[str, str]) -> Collection[str]:
        def compare(connection: apsw.Connection) -> list[str]:
            self._refresh(connection)
            known = self._cache
            gone = []
            for agent_id, fingerprint in agents.items():
                try:
                    found = known.get(agent_id) or self._look_up(connection, agent_id.lower())
                except DocumentUnreadable:
                    continue  # it isn't known to be gone
                if found[1] != fingerprint:
                    gone.append(agent_id)
            return gone

        def compare_anew(connection: apsw.Connection) -> list[str]:
            gone = []
            for agent_id, fingerprint in agents.items():
                with contextlib.suppress(DocumentUnreadable):
                    agent = _select(connection, agent_id.lower())
                    if agent is None or agent.fingerprint != fingerprint:
                        gone.append(agent_id)
            return gone

        return await self._database.read_now(compare, compare_anew) if agents else ()

    async def add(self, agent: Agent) -> None:
        if not storable(agent.id, agent.name, agent.key_hash, agent.type or "", agent.version or ""):
            raise MalformedRequest("An agent's id, name, type and version must be valid Unicode")
        row = (
            agent.id.lower(),
            agent.name,
            agent.key_hash,
            agent.type,
            agent.version,
            _json(list(agent.groups)),
            _json(agent.host),
            agent.status,
            agent.last_login,
        )

        def insert(connection: apsw.Connection) -> None:
            query = (
                f"INSERT INTO agents ({_COLUMNS}, checksum) VALUES (?,?,?,?,?,?,?,?,?,?)"
                " ON CONFLICT DO NOTHING RETURNING id"
            )
            if connection.execute(query, (*row, row_checksum(*row[:7]))).get is None:
                raise AgentExists

        await self._database.write(insert)

    async def remove(self, agent_id: str) -> bool:
        agent_id = agent_id.lower()
        if not storable(agent_id):
            return False
        result = _json({"message": rules.AGENT_REMOVED})

        def delete(connection: apsw.Connection) -> bool:
            if connection.execute("DELETE FROM agents WHERE id = ? RETURNING id", (agent_id,)).get is None:
                return False
            connection.execute(
                "UPDATE commands SET status = 'failed', result = ?, owner = NULL"
                " WHERE status = 'pending' AND target_type = 'agent' AND target_id = ?",
                (result, agent_id),
            )
            return True

        return await self._database.write(delete)

    async def rekey(self, agent_id: str, key_hash: str) -> bool:
        return await self._update("key_hash", key_hash, agent_id)

    async def set_groups(self, agent_id: str, groups: Sequence[str]) -> bool:
        if not storable(agent_id):
            return False
        return await self._database.write(
            lambda connection: set_groups(connection, agent_id.lower(), groups, after_all=True)
        )

    async def _update(self, column: str, value: str, agent_id: str) -> bool:
        if not storable(agent_id):
            return False
        query = f"UPDATE agents SET {column} = ? WHERE id = ? RETURNING id"

        def update(connection: apsw.Connection) -> bool:
            found = connection.execute(query, (value, agent_id.lower())).get is not None
            seal_agent(connection, agent_id.lower())
            return found

        return await self._database.write(update)

    async def record_login(self, agent_id: str, when: float) -> None:
        """Notes a log-in and returns at once; those of ``LOG_INS_WAIT``, and of a busy file, are written together."""
        if not storable(agent_id):
            return
        self._log_ins[agent_id.lower()] = when
        if self._log_ins_written is None or self._log_ins_written.is_set():
            self._log_ins_written = self._database.write_soon(self._write_log_ins, within=LOG_INS_WAIT)

    def _write_log_ins(self, connection: apsw.Connection) -> None:
        """In the writer's thread, while more may come: each is taken out by one step that can't be interrupted."""
        rows = []
        while self._log_ins:
            agent_id, when = self._log_ins.popitem()
            rows.append((when, agent_id))
        connection.executemany("UPDATE agents SET last_login = ?, status = 'active' WHERE id = ?", rows)

    async def list(self) -> Sequence[Agent]:
        def select(connection: apsw.Connection) -> list[Agent | DocumentUnreadable]:
            return list(read_rows(connection, "agents", _COLUMNS, "ORDER BY id", (), _agent))

        return self._unreadable.without(await self._database.read(select))

    async def pages(
        self, order: AgentOrder = "name", *, reverse: bool = False
    ) -> AsyncGenerator[Sequence[Agent], None]:
        """The ids of all are in memory meanwhile."""
        query = f"SELECT CAST(id AS BLOB) FROM agents ORDER BY {_ORDERS[order, reverse]}"
        ids = await self._database.read(lambda connection: [row[0] for row in connection.execute(query)])
        for start in range(0, len(ids), _PAGE):
            found = await self._database.read(partial(_agents_of, ids[start : start + _PAGE]))
            yield in_order(self._unreadable.without(found), order, reverse=reverse)

    async def count(self) -> int:
        """How many agents there are."""

        def select(connection: apsw.Connection) -> int:
            found = connection.execute("SELECT count(*) FROM agents").get
            assert isinstance(found, int)
            return found

        return await self._database.read(select)

    async def members(self, group: str) -> Sequence[str]:
        if not storable(group):
            return ()
        return await self._database.read(lambda connection: members(connection, group))

    async def named(self, name: str) -> Sequence[str]:
        if not storable(name):
            return ()
        query = "SELECT CAST(id AS BLOB) FROM agents WHERE name = ? ORDER BY id"
        return await self._database.read(lambda connection: texts(connection.execute(query, (name,))))

    async def unique_names(self, agent_ids: Collection[str]) -> Mapping[str, str]:
        ids = {agent_id: agent_id.lower() for agent_id in agent_ids}
        wanted = [key.encode() for key in dict.fromkeys(ids.values()) if storable(key)]
        names: dict[str, str] = {}
        for start in range(0, len(wanted), _PAGE):
            found = await self._database.read(partial(_agents_of, wanted[start : start + _PAGE]))
            page = {agent.id: agent.name for agent in self._unreadable.without(found)}
            shared = await self._database.read(partial(_shared, list(page.values())))
            names |= {agent_id: name for agent_id, name in page.items() if name not in shared}
        return {given: names[key] for given, key in ids.items() if key in names}


def _changes(connection: apsw.Connection, after: int, until: int) -> list[str] | None:
    """The agents that these changes of the file concerned; None where the file doesn't say, of each change."""
    query = "SELECT id FROM agent_changes WHERE no > ? AND no <= ?"
    try:
        ids = [row[0] for row in connection.execute(query, (after, until))]
    except UnicodeDecodeError:
        return None
    return ids if len(ids) == until - after else None


def _together(before: set[str] | None, now: Collection[str] | None) -> set[str] | None:
    if before is None or now is None or len(before) + len(now) > CHANGES_KEPT:
        return None
    return before.union(now)


def members(connection: apsw.Connection, group: str) -> list[str]:
    """The ids of a group's agents; ``all`` is every agent."""
    if group == "all":
        return texts(connection.execute("SELECT CAST(id AS BLOB) FROM agents ORDER BY id"))
    # A row whose groups can't be read is in no group, and costs the others nothing.
    query = (
        "SELECT CAST(id AS BLOB) FROM agents WHERE CASE WHEN json_valid(agents.groups) THEN"
        " EXISTS (SELECT 1 FROM json_each(agents.groups) WHERE value = ?) ELSE 0 END ORDER BY id"
    )
    return texts(connection.execute(query, (group,)))


def set_groups(
    connection: apsw.Connection, agent_id: str, groups: Sequence[str], turn: object = None, *, after_all: bool = False
) -> bool:
    """Sets an agent's groups as part of another write, unless those of a later ``turn`` are there: see
    ``next_group_turn``. None: it isn't known, and they are set as it comes; ``after_all`` turns that were given: none
    of these counts any more. Returns whether it did."""
    known = "group_turns" if after_all else "coalesce(?2, groups_of_turn)"
    query = (
        f"UPDATE agents SET groups = ?1, groups_of_turn = {known} WHERE id = ?3"
        " AND (?2 IS NULL OR groups_of_turn IS NULL OR groups_of_turn < ?2) RETURNING id"
    )
    if connection.execute(query, (_json(list(groups)), turn, agent_id)).get is None:
        return False
    seal_agent(connection, agent_id)
    return True


def next_group_turn(connection: apsw.Connection, agent_id: str) -> object:
    """The number of a delivery that changes the agent's groups, higher than those before; None: no such agent."""
    query = (
        "UPDATE agents SET group_turns = max(coalesce(group_turns, 0), coalesce(groups_of_turn, 0)) + 1"
        " WHERE id = ? RETURNING group_turns"
    )
    return connection.execute(query, (agent_id,)).get


def _last_login(connection: apsw.Connection, agent_id: str) -> float | None:
    found = connection.execute("SELECT last_login FROM agents WHERE id = ?", (agent_id,)).get
    return found if isinstance(found, float) else None


def _select(connection: apsw.Connection, agent_id: str) -> Agent | None:
    """Raises ``DocumentUnreadable``."""
    if not storable(agent_id):
        return None
    return read_row(connection, "agents", _COLUMNS, agent_id, _agent)


class _Row(msgspec.Struct, array_like=True):
    """As SQLite gives it; ``groups`` and ``host`` are JSON."""

    id: str
    name: str
    key_hash: str
    type: str | None
    version: str | None
    groups: str
    host: str
    status: Literal["active", "disconnected"]
    last_login: float | None


class _Read(msgspec.Struct, array_like=True):
    groups: tuple[str, ...]
    host: dict[str, Any]


def _agent(row: Any) -> Agent:
    """Raises ``ValueError``, ``RecursionError``."""
    columns = msgspec.convert(row, _Row)
    read = msgspec.convert((json.loads(columns.groups), json.loads(columns.host)), _Read)
    return Agent(
        id=columns.id,
        name=columns.name,
        key_hash=columns.key_hash,
        type=columns.type,
        version=columns.version,
        groups=read.groups,
        host=read.host,
        status=columns.status,
        last_login=columns.last_login,
    )


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _shared(names: Sequence[str], connection: apsw.Connection) -> set[str]:
    """The names, of these, that several agents have."""
    places = ", ".join("?" * len(names))
    query = f"SELECT name FROM agents WHERE name IN ({places}) GROUP BY name HAVING count(*) > 1"
    return {row[0] for row in connection.execute(query, names)}


def _agents_of(ids: Sequence[bytes], connection: apsw.Connection) -> Sequence[Agent | DocumentUnreadable]:
    places = ", ".join(["CAST(? AS TEXT)"] * len(ids))
    return list(read_rows(connection, "agents", _COLUMNS, f"WHERE id IN ({places})", tuple(ids), _agent))
