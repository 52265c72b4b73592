"""A group's command becomes one for each member, some hundred in a transaction, so that others' writes come in between.

Until all are stored the group's command is ``pending`` and owned, as a claim is, by the process that expands it, and
listings leave its children out. What a process leaves unfinished that fails, or ends, is continued: by itself, or by
the daemon that finds its claims.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

import apsw

from wazuh_comms_trio.backends import command_rules as rules
from wazuh_comms_trio.backends.embedded import command_rows as rows
from wazuh_comms_trio.backends.embedded.agents import members
from wazuh_comms_trio.backends.embedded.database.database import Database
from wazuh_comms_trio.backends.embedded.database.text import texts
from wazuh_comms_trio.backends.interfaces import Command, CommandResult
from wazuh_comms_trio.errors import BackendUnavailable, DocumentUnreadable

#: Children in one transaction: some milliseconds.
AT_ONCE: Final = 250

#: A group's command that is being expanded.
EXPANDING: Final = "owner IS NOT NULL AND target_type = 'group' AND status = 'pending'"


class GroupExpansion:
    """``token``: this process's, which owns what it expands."""

    def __init__(self, database: Database, token: str) -> None:
        self._database = database
        self._token = token
        self._unfinished: set[str] = set()
        self._running: set[str] = set()

    @contextmanager
    def begun(self, document_ids: set[str]) -> Iterator[None]:
        """The groups' commands are stored and expanded within the block; ``finish`` expands what is left of them at its
        end. One that is sent a second time stays with the call that began it, or with ``finish``."""
        with self._under_way(document_ids - self._unfinished):
            yield

    @contextmanager
    def _under_way(self, document_ids: set[str]) -> Iterator[None]:
        self._unfinished |= document_ids
        self._running |= document_ids
        try:
            yield
            self._unfinished -= document_ids
        finally:
            self._running -= document_ids

    async def expand(self, parent: Command, now: float) -> Command:
        """Expands a group's command that was stored as this process's; returns it as it is afterwards. Raises
        ``BackendUnavailable``; cancelled, a part of its children may be there."""
        ids = await self._database.read(lambda connection: members(connection, parent.target.id))
        for start in range(0, len(ids), AT_ONCE):
            await self._database.write(partial(self._store, parent=parent, agent_ids=ids[start : start + AT_ONCE]))
        return await self._database.write(partial(self._end, document_id=parent.document_id, now=now)) or parent

    def found(self, document_ids: Iterable[str]) -> None:
        """Notes groups' commands that are pending and that no process owns: an earlier version freed them, or they come
        from a backup."""
        self._unfinished.update(document_ids)

    async def finish(self, now: float) -> bool:
        """Goes on with expansions that are left; true when there were any and all are done. What can't be stored now is
        left again, and what looks overdue: it fails, or the clock is set back."""
        left = self._unfinished - self._running
        try:
            if left:
                left -= await self._database.read(partial(_overdue, document_ids=left, now=now))
            with self._under_way(left):
                for document_id in sorted(left):
                    await self._finish(document_id, now)
        except BackendUnavailable:
            return False
        return bool(left)

    async def _finish(self, document_id: str, now: float) -> None:
        try:
            parent = await self._database.write(partial(self._adopt, document_id=document_id))
            if parent is not None:
                await self.expand(parent, now)
        except DocumentUnreadable as exc:
            await self._database.write(partial(self._fail, document_id=document_id, why=exc.why))

    def take_over(self, connection: apsw.Connection, owner: bytes) -> None:
        """This process takes over the expansions that an ended process has left. Within another write; ``finish`` goes
        on with it."""
        changed = f"UPDATE commands SET owner = ? WHERE owner = CAST(? AS TEXT) AND {EXPANDING}"
        query = f"{changed} RETURNING CAST(id AS BLOB)"
        self._unfinished.update(texts(connection.execute(query, (self._token, owner))))

    def _adopt(self, connection: apsw.Connection, document_id: str) -> Command | None:
        """A group's command that no process owns is this process's from now on. None where there is nothing to do any
        more."""
        query = f"UPDATE commands SET owner = ? WHERE id = ? AND target_type = 'group' AND {rows.FREE}"
        connection.execute(query, (self._token, document_id))
        return rows.select(connection, document_id) if self._is_ours(connection, document_id) else None

    def _is_ours(self, connection: apsw.Connection, document_id: str) -> bool:
        """Whether a group's command is still to be expanded here: neither cancelled meanwhile nor taken over."""
        query = f"SELECT 1 FROM commands WHERE id = ? AND owner = ? AND {EXPANDING}"
        return connection.execute(query, (document_id, self._token)).get is not None

    def _store(self, connection: apsw.Connection, parent: Command, agent_ids: Sequence[str]) -> None:
        if self._is_ours(connection, parent.document_id):
            _, children = rules.expand(parent, agent_ids, parent.created_at)
            rows.insert_new(connection, children)

    def _end(self, connection: apsw.Connection, document_id: str, now: float) -> Command | None:
        if self._is_ours(connection, document_id):
            query = "UPDATE commands SET status = 'sent', sent_at = ?, owner = NULL WHERE id = ?"
            connection.execute(query, (now, document_id))
        return rows.select_for_change(connection, document_id)

    def _fail(self, connection: apsw.Connection, document_id: str, why: str) -> None:
        query = "UPDATE commands SET status = 'failed', owner = NULL, result = ? WHERE id = ?"
        connection.execute(query, (rows.encode_result(CommandResult(message=f"can't be read: {why}")), document_id))


def _overdue(connection: apsw.Connection, document_ids: Iterable[str], now: float) -> set[str]:
    """Those that no process owns, and whose time is over."""
    query = f"SELECT 1 FROM commands WHERE id = ? AND {rows.FREE} AND due_at < ?"
    return {each for each in document_ids if connection.execute(query, (each, now)).get is not None}


def hidden(connection: apsw.Connection) -> tuple[str, tuple[str, ...]]:
    """A condition, and its values, that children of commands under expansion meet; mostly there are none."""
    parents = texts(connection.execute(f"SELECT CAST(id AS BLOB) FROM commands WHERE {EXPANDING}"))
    one = "(id > ? AND id < ? AND id = ? || target_id)"
    values = [value for parent in parents for value in rows.child_of(parent)[:3]]
    return f"target_type = 'agent' AND ({' OR '.join([one] * len(parents)) or '0'})", tuple(values)


def is_expanding(connection: apsw.Connection, document_id: str) -> bool:
    return connection.execute(f"SELECT 1 FROM commands WHERE id = ? AND {EXPANDING}", (document_id,)).get is not None
