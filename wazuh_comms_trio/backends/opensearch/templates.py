"""What is made in an indexer that lacks it: templates and indices. Nothing that exists is changed. Pure, but for
``create_index``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable, OpenSearchClient, path
from wazuh_comms_trio.backends.opensearch.client.error_details import error_of
from wazuh_comms_trio.backends.state_modules import STATE_PATTERN, STATE_TEMPLATES

Kind = Literal["agents", "commands", "states", "presence"]

#: When agents were heard last, and by which node: ours alone.
PRESENCE_INDEX: Final = "wazuh-comms-presence"

_KEYWORD: Final = {"type": "keyword"}
_DATE: Final = {"type": "date"}
_SETTINGS: Final = {"index": {"number_of_shards": 1, "auto_expand_replicas": "0-1", "refresh_interval": "1s"}}

_HOST: Final = {
    "properties": {
        "architecture": _KEYWORD,
        "hostname": _KEYWORD,
        "ip": {"type": "ip", "ignore_malformed": True},
        "os": {"properties": dict.fromkeys(("name", "type", "version", "full", "platform", "kernel"), _KEYWORD)},
    }
}

_AGENTS: Final = {
    "dynamic": True,
    "date_detection": False,
    "properties": {
        "agent": {
            "properties": {
                **dict.fromkeys(("id", "name", "key", "type", "version", "status", "groups"), _KEYWORD),
                "last_login": _DATE,
                "host": _HOST,
            }
        }
    },
}

_LONG_TEXT: Final = {"type": "keyword", "ignore_above": 8191}  # of four bytes each, what a term can hold

_COMMANDS: Final = {
    "dynamic": True,
    "date_detection": False,
    "properties": {
        "@timestamp": _DATE,
        "delivery_timestamp": _DATE,
        "agent": {"properties": {"groups": _KEYWORD}},
        "command": {
            "properties": {
                **dict.fromkeys(("source", "user", "status", "order_id", "request_id"), _KEYWORD),
                "target": {"properties": {"id": _KEYWORD, "type": _KEYWORD}},
                "action": {
                    "properties": {
                        "name": _KEYWORD,
                        "version": _KEYWORD,
                        # Every action has arguments of its own, of any type: kept, not searched.
                        "args": {"type": "object", "enabled": False},
                    }
                },
                "timeout": {"type": "float"},
                "result": {"properties": {"code": {"type": "long"}, "message": _LONG_TEXT, "data": _LONG_TEXT}},
            }
        },
        "delivery": {
            "properties": {
                "token": _KEYWORD,
                "offered": {"type": "boolean"},
                "sent_at": {"type": "long"},
                "answer_by": {"type": "long"},
                "renewed": {"type": "long"},
                "data": {"type": "keyword", "index": False, "doc_values": False},
            }
        },
    },
}

_STATES: Final = {
    "dynamic": True,
    "properties": {
        "@timestamp": _DATE,
        "agent": {
            "properties": {
                **dict.fromkeys(("id", "name", "groups", "type", "version"), _KEYWORD),
                "host": _HOST,
            }
        },
    },
    # What an inventory holds is names, versions, paths: looked for as a whole.
    "dynamic_templates": [
        {"texts": {"match_mapping_type": "string", "mapping": {"type": "keyword", "ignore_above": 1024}}}
    ],
}

_PRESENCE: Final = {
    "dynamic": False,
    "properties": {
        "seen": {"type": "long"},
        "sent": {"type": "long"},
        "node": _KEYWORD,
        # What each node heard: kept, not searched.
        "nodes": {"type": "object", "enabled": False},
    },
}

_MAPPINGS: Final[Mapping[Kind, Mapping[str, Any]]] = {
    "agents": _AGENTS,
    "commands": _COMMANDS,
    "states": _STATES,
    "presence": _PRESENCE,
}


def index_body(kind: Kind) -> dict[str, Any]:
    hidden = {} if kind == "states" else {"hidden": True}
    return {"settings": {"index": {**_SETTINGS["index"], **hidden}}, "mappings": _MAPPINGS[kind]}


def templates(agents: str, commands: str) -> dict[str, dict[str, Any]]:
    """Name -> composable template, for the names in use."""
    made = {
        "wazuh-comms-agents": _template([agents], "agents"),
        "wazuh-comms-commands": _template([commands], "commands"),
        PRESENCE_INDEX: _template([PRESENCE_INDEX], "presence"),
    }
    for name, patterns in STATE_TEMPLATES.items():
        # Of two templates for one index the indexer takes the one of the higher priority.
        made[name] = _template(patterns, "states", priority=1 if STATE_PATTERN in patterns else 2)
    return made


def _template(patterns: Sequence[str], kind: Kind, *, priority: int = 1) -> dict[str, Any]:
    return {"index_patterns": list(patterns), "priority": priority, "template": index_body(kind)}


async def create_index(client: OpenSearchClient, name: str, kind: Kind) -> bool:
    """Makes an index; False when it was there already, made by another node a moment ago perhaps. Raises
    ``BackendUnavailable``."""
    try:
        await client.json("PUT", path(name), index_body(kind))
    except IndexerUnavailable as exc:
        if exc.reply is not None and error_of(exc.reply).type == "resource_already_exists_exception":
            return False
        raise
    return True


async def index_exists(client: OpenSearchClient, name: str) -> bool:
    """Whether there is an index or an alias of this name. Raises ``BackendUnavailable`` when that can't be told."""
    reply = await client.request("HEAD", path(name))
    if reply.status == 404:
        return False
    if reply.status != 200:
        raise IndexerUnavailable(f"the indexer answered {reply.status} to a look at {name}", reply=reply)
    return True
