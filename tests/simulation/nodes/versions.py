"""Versions of the program: which of them a process is of, and what differs. All are this tree's code: the one before
hasn't seen the last migration of ``state.db``; the one to come has one more for each database, says over links what the
others don't know, and writes a member more into an indexer's documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final, Literal

from wazuh_comms_trio.backends.embedded import state_schema, stores
from wazuh_comms_trio.backends.embedded.database.schema import Migration, Schema
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


def use_versions() -> None:
    """Once in a process."""
    replacements: list[tuple[Any, str, object]] = [
        (stores, "STATE", _SchemaOfProcess(state_schema.STATE)),
        (quarantine_store, "QUARANTINE", _SchemaOfProcess(quarantine_schema.QUARANTINE)),
        (registry, "to_document", _with_more(registry.to_document)),
        (documents, "to_document", _with_more(documents.to_document)),
    ]
    for module, name, replacement in replacements:
        setattr(module, name, replacement)
