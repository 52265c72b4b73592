"""Versions of the program: which of them a process is of, and what differs. All are this tree's code: the one before
hasn't seen the last migration of ``state.db``, and uses nothing of it; the one to come has one more for each database,
says over links what the others don't know, and writes a member more into an indexer's documents."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final, Literal

import apsw

from wazuh_comms_trio.backends.embedded import agents, command_rows, state_schema, stores
from wazuh_comms_trio.backends.embedded.database.schema import Migration, Schema
from wazuh_comms_trio.backends.embedded.row_checksums import seal_agent
from wazuh_comms_trio.backends.opensearch.agents import registry
from wazuh_comms_trio.backends.opensearch.commands import documents
from wazuh_comms_trio.quarantine import schema as quarantine_schema
from wazuh_comms_trio.quarantine import store as quarantine_store

__all__ = ["VERSION", "VERSIONS", "Version", "use_versions"]

Version = Literal["before", "now", "later"]
VERSIONS: Final[Sequence[Version]] = ("before", "now", "later")
#: Of the process whose task this is.
VERSION: ContextVar[Version] = ContextVar("version", default="now")

_MORE: Final[Mapping[str, Migration]] = {
    "state.db": Migration(
        "ALTER TABLE agents ADD later TEXT; ALTER TABLE documents ADD later TEXT; ALTER TABLE commands ADD later TEXT",
        usable_since=1,
    ),
    "quarantine.db": Migration("ALTER TABLE entries ADD later TEXT", usable_since=1),
}


class _SchemaOfProcess:
    """``Schema`` as the process that asks knows it."""

    def __init__(self, schema: Schema) -> None:
        self.name = schema.name
        self.application_id = schema.application_id
        self._migrations = {
            "before": schema.migrations[:-1] if schema is state_schema.STATE else schema.migrations,
            "now": schema.migrations,
            "later": [*schema.migrations, _MORE[schema.name]],
        }

    @property
    def migrations(self) -> Sequence[Migration]:
        return self._migrations[VERSION.get()]

    @property
    def version(self) -> int:
        return len(self.migrations)


def _with_more(to_document: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def with_more(*args: Any) -> dict[str, Any]:
        document = to_document(*args)
        return {**document, "later": {"n": 1}} if VERSION.get() == "later" else document

    return with_more


def _set_groups(connection: apsw.Connection, agent_id: str, groups: Sequence[str], turn: object = None) -> bool:
    """As each version does, the one before whatever the turn."""
    if VERSION.get() != "before":
        return agents.set_groups(connection, agent_id, groups, turn)
    connection.execute("UPDATE agents SET groups = ? WHERE id = ?", (json.dumps(list(groups)), agent_id))
    seal_agent(connection, agent_id)
    return True


def _since_now(function: Callable[..., Any]) -> Callable[..., Any]:
    """What the version before doesn't do."""
    return lambda *args: function(*args) if VERSION.get() != "before" else None


def use_versions() -> None:
    """Once in a process."""
    replacements: list[tuple[Any, str, object]] = [
        (stores, "STATE", _SchemaOfProcess(state_schema.STATE)),
        (quarantine_store, "QUARANTINE", _SchemaOfProcess(quarantine_schema.QUARANTINE)),
        (command_rows, "set_groups", _set_groups),
        (command_rows, "give_group_turn", _since_now(command_rows.give_group_turn)),
        (command_rows, "group_turn", _since_now(command_rows.group_turn)),
        (registry, "to_document", _with_more(registry.to_document)),
        (documents, "to_document", _with_more(documents.to_document)),
    ]
    for module, name, replacement in replacements:
        setattr(module, name, replacement)
