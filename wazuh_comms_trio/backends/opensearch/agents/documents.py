"""An agent's document in the indexer. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.backends.opensearch.client.queries import to_moment
from wazuh_comms_trio.foundation.timestamps import to_iso


def to_document(agent: Agent) -> dict[str, Any]:
    """An agent's document; fields without a value are left out."""
    fields: dict[str, Any] = {
        "id": agent.id,
        "name": agent.name,
        "key": agent.key_hash,
        "type": agent.type,
        "version": agent.version,
        "groups": list(agent.groups),
        "status": agent.status,
        "last_login": None if agent.last_login is None else to_iso(agent.last_login),
        "host": dict(agent.host) or None,
    }
    return {"agent": {name: value for name, value in fields.items() if value is not None}}


def find_problem(source: object) -> str | None:
    """Why a document of the registry is no agent's, for the log and the operator; None: it is one's, perhaps one's that
    has no key and can't log in."""
    fields = source.get("agent") if isinstance(source, Mapping) else None
    if not isinstance(fields, Mapping):
        return "it has no object `agent`"
    return None if isinstance(fields.get("key", ""), str) else "its `agent.key` is no text"


def to_agent(document_id: str, source: object) -> Agent | None:
    """An agent from a document of any writer; None for one that is no agent's (without a key no agent can log in)."""
    fields = source.get("agent") if isinstance(source, Mapping) else None
    if not isinstance(fields, Mapping) or not isinstance(fields.get("key"), str):
        return None
    groups = fields.get("groups")
    host = fields.get("host")
    return Agent(
        id=document_id.lower(),
        name=to_name(source) or "",
        key_hash=fields["key"],
        type=_text(fields.get("type")),
        version=_text(fields.get("version")),
        groups=_groups(groups),
        host=host if isinstance(host, Mapping) else {},
        status="active" if fields.get("status") == "active" else "disconnected",
        last_login=to_moment(fields.get("last_login")),
    )


def to_name(source: object) -> str | None:
    """The name in a document of the registry, if it has one."""
    fields = source.get("agent") if isinstance(source, Mapping) else None
    return _text(fields.get("name")) if isinstance(fields, Mapping) else None


def _groups(value: object) -> tuple[str, ...]:
    """Group names from a field that is one name, a list of names, or anything else."""
    names = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(text for text in map(_text, names) if text)


def _text(value: object) -> str | None:
    """A field's text; what other writers have as a number becomes text."""
    return value if isinstance(value, str) else None if value is None else str(value)
