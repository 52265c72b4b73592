"""The embedded command store.

A claim is a row's ``owner``, the token of a process lock; a process that has ended loses its claims at the next look
(``process_locks.py``). Commands become news under a number that only grows, so a process sees every one however busy it
was meanwhile.
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from functools import partial
from typing import Any, Final

import apsw
import trio

from wazuh_comms_trio.backends import command_rules as rules
from wazuh_comms_trio.backends.embedded import command_rows as rows
from wazuh_comms_trio.backends.embedded.database.database import Database
from wazuh_comms_trio.backends.embedded.database.pauses import with_pauses
from wazuh_comms_trio.backends.embedded.database.text import storable, texts
from wazuh_comms_trio.backends.embedded.group_expansion import EXPANDING, GroupExpansion, hidden, is_expanding
from wazuh_comms_trio.backends.embedded.process_locks import ProcessLock
from wazuh_comms_trio.backends.embedded.row_reading import read_rows
from wazuh_comms_trio.backends.interfaces import (
    Command,
    CommandReport,
    CommandResult,
    CommandStatus,
    ItemResult,
)
from wazuh_comms_trio.backends.leadership import Finding, Leadership
from wazuh_comms_trio.backends.unreadable import UnreadableLog
from wazuh_comms_trio.errors import BackendUnavailable, DocumentUnreadable, MalformedRequest
from wazuh_comms_trio.foundation.aligned_timer import next_tick

#: Seconds between looks, by one process of the daemon, for what other processes did; a look costs microseconds.
POLL_INTERVAL: Final = 1.0
#: ... and by the other processes: the leader's connections may be broken while theirs are not.
FOLLOWERS_INTERVAL: Final = 10.0
_TOPIC: Final = "commands"
#: Of a list that is read in pages.
_PAGE: Final = 500

_NEWEST_FIRST: Final = "ORDER BY created_at DESC, no DESC"


class SqliteCommands:
    """``CommandStore``."""

    keeps_posted = True

    def __init__(
        self,
        database: Database,
        process_lock: ProcessLock,
        wall_clock: Callable[[], float],
        leadership: Leadership | None = None,
    ) -> None:
        self._unreadable = UnreadableLog()
        self._leadership = leadership = leadership or Leadership()
        leadership.register(_TOPIC, on_finding=self._take_news, on_change=self._wake)
        self._database = database
        self._process_lock = process_lock
        self._groups = GroupExpansion(database, process_lock.token)
        self._now = wall_clock
        self._seen = -1  # the news up to here were handed out
        self._data_version: object = None
        self._own_news = trio.Event()
        self._told: set[str] = set()  # agents that another worker found news for, or that a claim had no room for
        self._being_added: list[frozenset[str]] = []  # whose commands

    # --- posting -------------------------------------------------------------------------------------------------

    async def add(self, commands: Sequence[Command]) -> Sequence[Command]:
        now = self._now()
        if not all(storable(command.document_id, command.target.id) for command in commands):
            raise MalformedRequest("A command's ids must be valid Unicode")

        token = self._process_lock.token

        def insert(connection: apsw.Connection) -> list[tuple[Command, bool]]:
            return [rows.insert(connection, rules.normalized(command, now), token) for command in commands]

        stored: list[Command] = []
        groups = {command.document_id for command in commands if rules.is_to_expand(command)}
        whose = frozenset(command.target.id for command in commands if command.target.type == "agent")
        self._being_added.append(whose)
        try:
            with self._groups.begun(groups):
                for command, is_new in await self._database.write(insert, urgent=True, followed=bool(whose)):
                    is_group = is_new and rules.is_to_expand(command)
                    stored.append(await self._groups.expand(command, now) if is_group else command)
        finally:
            self._being_added.remove(whose)
            self._own_news.set()
        return stored

    async def cancel(self, document_id: str) -> Command | None:
        if not storable(document_id):
            return None
        result = rows.encode_result(CommandResult(message=rules.CANCELLED))

        def update(connection: apsw.Connection) -> Command | None:
            self._free_claims_of_ended(connection)
            cancel = f"UPDATE commands SET status = 'failed', result = ? WHERE {rows.FREE} AND "
            connection.execute(f"{cancel} id = ?", (result, document_id))
            stop = f"UPDATE commands SET status = 'failed', result = ?, owner = NULL WHERE {EXPANDING} AND id = ?"
            connection.execute(stop, (result, document_id))
            connection.execute(f"{cancel} {rows.CHILD_OF}", (result, *rows.child_of(document_id)))
            return rows.select_for_change(connection, document_id)

        return await self._database.write(update)

    # --- delivering ----------------------------------------------------------------------------------------------

    async def wait_news(self) -> Collection[str]:
        while True:
            own_news = self._own_news
            if own_news.is_set():
                own_news = self._own_news = trio.Event()
            try:
                agents = await self._look_for_news()
            except BackendUnavailable:
                agents = ()  # the store is away; what it has is news when it is back
            if not agents and await self._groups.finish(self._now()):
                continue
            if self._leadership.is_leader and agents:
                self._leadership.publish(_TOPIC, {"agents": list(agents)})
            if agents or self._told:
                told, self._told = self._told, set()
                return told.union(agents)
            interval = POLL_INTERVAL if self._leadership.is_leader else FOLLOWERS_INTERVAL
            with trio.move_on_at(next_tick(interval)):
                await own_news.wait()

    def _wake(self) -> None:
        self._own_news.set()

    def _take_news(self, finding: Finding) -> None:
        self._told.update(finding.get("agents", ()))
        self._wake()

    async def _look_for_news(self) -> Collection[str]:
        version = await self._database.read_now(
            lambda connection: (connection, connection.execute("PRAGMA data_version").get), lambda _: None
        )
        if version is not None and version == self._data_version:
            return ()
        seen = self._seen

        def select(connection: apsw.Connection) -> tuple[int, list[str], list[str]]:
            last = connection.execute("SELECT value FROM counters WHERE name = 'news'").get
            assert isinstance(last, int)
            if last == seen:
                return last, [], []
            kind = "CASE target_type WHEN 'group' THEN CAST(id AS BLOB) END"
            columns = f"CAST(target_id AS BLOB), {kind}"
            # What looks overdue now is news all the same: the clock may be set back, as the dispatcher notices.
            query = f"SELECT DISTINCT {columns} FROM commands WHERE news > ? AND {rows.FREE}"
            since = seen if seen < last else -1  # an older state of the file was put back: all of it is news
            found: list[Any] = connection.execute(query, (since,)).fetchall()
            groups = texts((group,) for _, group in found if group is not None)
            return last, texts((target,) for target, group in found if group is None), groups

        last, agents, groups = await self._database.read(select)
        self._groups.found(groups)
        # No checkpoint from here: a cancelled call has taken no news.
        self._seen = last
        self._data_version = version
        return agents

    async def claim(self, agent_ids: Collection[str]) -> Sequence[Command]:
        wanted = sorted({agent_id.lower() for agent_id in agent_ids if storable(agent_id)})
        now = self._now()

        def is_there(connection: apsw.Connection) -> bool:
            query = f"SELECT 1 FROM commands WHERE target_id = ? AND {rows.FREE} LIMIT 1"
            names = wanted if few else with_pauses(wanted)
            return any(connection.execute(query, (agent_id,)).get is not None for agent_id in names)

        # Most polls find nothing, and a look costs no transaction. What is being added it doesn't see: the claim does,
        # which comes after that in the same transaction.
        look = self._database.read_now if (few := len(wanted) <= 16) else self._database.read
        if all(whose.isdisjoint(wanted) for whose in self._being_added) and not await look(is_there):
            return ()

        def take(connection: apsw.Connection) -> rows.Taken:
            query = (
                "SELECT created_at, no, ? FROM commands WHERE target_id = ?"
                f" AND {rows.FREE} AND due_at >= ? ORDER BY created_at, no LIMIT ?"
            )
            free: list[Any] = []
            for agent_id in with_pauses(wanted):
                free += connection.execute(query, (agent_id, agent_id, now, rules.CLAIM_LIMIT))
            free.sort()
            return rows.take(connection, [(no, agent_id) for _, no, agent_id in free], self._process_lock.token)

        # On disk before the agent can have it: its report may come after a power cut, and is taken of what was offered.
        taken = await self._database.write(take, urgent=True)
        for error in taken.unreadable:
            self._unreadable.note(error)
        if taken.left:
            self._told |= taken.left
            self._own_news.set()
        return taken.commands

    async def mark_sent(self, document_ids: Collection[str]) -> None:
        now = self._now()

        def update(connection: apsw.Connection) -> None:
            for document_id in with_pauses(document_ids):
                rows.mark_sent(connection, document_id, now)

        if document_ids:
            await self._database.write(update)

    async def release(self, document_ids: Collection[str]) -> None:
        if not document_ids:
            return

        def update(connection: apsw.Connection) -> None:
            query = "UPDATE commands SET owner = NULL, news = ? WHERE id = ? AND owner = ?"
            number = rows.next_news(connection)
            for document_id in with_pauses(document_ids):
                connection.execute(query, (number, document_id, self._process_lock.token))

        await self._database.write(update, durable=False)
        self._own_news.set()

    def _free_claims_of_ended(self, connection: apsw.Connection) -> None:
        """Frees what processes that have ended had claimed."""
        gone = self._ended_owners(connection)
        for owner in gone:
            self._groups.take_over(connection, owner)
        if gone:
            number = rows.next_news(connection)
            query = "UPDATE commands SET owner = NULL, news = ? WHERE owner = CAST(? AS TEXT)"
            connection.executemany(query, [(number, owner) for owner in gone])

    def _ended_owners(self, connection: apsw.Connection) -> list[bytes]:
        """Who has claims and has ended; a damaged owner is nobody."""
        query = "SELECT DISTINCT CAST(owner AS BLOB) FROM commands WHERE owner IS NOT NULL"
        owners: list[Any] = connection.execute(query).fetchall()
        return [owner for (owner,) in owners if self._process_lock.has_ended(owner.decode("ascii", "replace"))]

    # --- ending --------------------------------------------------------------------------------------------------

    async def report(self, reports: Sequence[CommandReport]) -> Sequence[ItemResult]:
        now = self._now()

        def apply(connection: apsw.Connection) -> list[ItemResult]:
            return [
                rows.apply_report(connection, report, now)
                if storable(report.document_id)
                else rules.not_there(report.document_id)
                for report in reports
            ]

        return await self._database.write(apply) if reports else ()

    async def expire(self) -> None:
        await self._leadership.wait_until_leader()
        now = self._now()

        def is_due(connection: apsw.Connection) -> bool:
            if self._ended_owners(connection):
                return True
            overdue = f"SELECT 1 FROM commands WHERE {rows.OVERDUE} LIMIT 1"
            return connection.execute(overdue, {"now": now}).get is not None

        def update(connection: apsw.Connection) -> None:
            self._free_claims_of_ended(connection)
            query = f"UPDATE commands SET status = 'failed', result = :result WHERE status = :status AND {rows.OVERDUE}"
            for status, reason in (("pending", rules.NOT_DELIVERED), ("sent", rules.NO_ANSWER)):
                connection.execute(
                    query,
                    {"now": now, "status": status, "result": rows.encode_result(CommandResult(message=reason))},
                )

        if await self._database.read_now(is_due):
            await self._database.write(update)
            self._own_news.set()  # and what ended processes left to expand

    # --- looking -------------------------------------------------------------------------------------------------

    async def get(self, document_id: str) -> Command | None:
        if not storable(document_id):
            return None
        return await self._database.read(lambda connection: rows.select(connection, document_id))

    async def children(self, parents: Collection[str]) -> Sequence[Command]:
        wanted = [parent for parent in dict.fromkeys(parents) if storable(parent)]

        def select(connection: apsw.Connection) -> list[Command | DocumentUnreadable]:
            return [
                child
                for parent in wanted
                if not is_expanding(connection, parent)
                for child in read_rows(
                    connection, "commands", rows.COLUMNS, f"WHERE {rows.CHILD_OF}", rows.child_of(parent), rows.decode
                )
            ]

        return self._unreadable.without(await self._database.read(select))

    async def list(
        self,
        *,
        status: CommandStatus | None = None,
        agent_id: str | None = None,
        limit: int = 1000,
        children: bool = True,
    ) -> Sequence[Command]:
        which = _which(status, agent_id, children)
        if which is None:
            return ()
        conditions, values = which

        def select(connection: apsw.Connection) -> list[Command | DocumentUnreadable]:
            condition, of_parents = hidden(connection)
            rest = f"WHERE {conditions} AND NOT ({condition}) {_NEWEST_FIRST} LIMIT ?"
            parameters = (*values, *of_parents, limit)
            return list(read_rows(connection, "commands", rows.COLUMNS, rest, parameters, rows.decode))

        return self._unreadable.without(await self._database.read(select))

    async def pages(
        self, *, status: CommandStatus | None = None, agent_id: str | None = None, children: bool = True
    ) -> AsyncGenerator[Sequence[Command], None]:
        """The numbers of all are in memory meanwhile: what a place in their order is told by may be damaged."""
        which = _which(status, agent_id, children)
        if which is None:
            return
        conditions, values = which

        def select_all(connection: apsw.Connection) -> array[int]:
            condition, of_parents = hidden(connection)
            query = f"SELECT no FROM commands WHERE {conditions} AND NOT ({condition}) {_NEWEST_FIRST}"
            return array("q", (row[0] for row in connection.execute(query, (*values, *of_parents))))

        def select(connection: apsw.Connection, numbers: array[int]) -> list[Command | DocumentUnreadable]:
            rest = f"WHERE {conditions} AND no IN carray(?) {_NEWEST_FIRST}"
            parameters = (*values, apsw.carray(numbers))
            return list(read_rows(connection, "commands", rows.COLUMNS, rest, parameters, rows.decode))

        numbers = await self._database.read(select_all)
        for start in range(0, len(numbers), _PAGE):
            found = await self._database.read(partial(select, numbers=numbers[start : start + _PAGE]))
            yield self._unreadable.without(found)


def _which(status: CommandStatus | None, agent_id: str | None, children: bool) -> tuple[str, Sequence[Any]] | None:
    """A condition and its values; None where nothing can meet it."""
    conditions, values = ["1"], list[Any]()
    if status is not None:
        conditions.append("status = ?")
        values.append(status)
    if agent_id is not None:
        if not storable(agent_id):
            return None
        conditions.append("target_type = 'agent' AND target_id = ?")
        values.append(agent_id.lower())
    if not children:
        conditions.append(f"NOT {rows.IS_CHILD}")
    return " AND ".join(conditions), values
