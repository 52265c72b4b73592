"""A state that an earlier version has left, in the schema that it knew and with that version's statements: agents,
documents, commands that wait, and what is in quarantine. And what an operator does with that version's tool."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import apsw
from attrs import evolve

from tests.simulation.actors.operators import begin
from tests.simulation.determinism import EPOCH
from tests.simulation.model import Operation
from wazuh_comms_trio.backends.embedded.database.schema import Schema, migrate
from wazuh_comms_trio.backends.embedded.row_checksums import seal_agent
from wazuh_comms_trio.backends.embedded.state_schema import STATE
from wazuh_comms_trio.quarantine.interface import Rejected, digest, size_of
from wazuh_comms_trio.quarantine.schema import QUARANTINE

if TYPE_CHECKING:
    from tests.simulation.actors.agents import SimAgent
    from tests.simulation.world import World

__all__ = ["rekey", "write_earlier"]

_ADD_AGENT = (
    "INSERT INTO agents (id, name, key_hash, type, version, groups, host, status, last_login)"
    " VALUES (?, ?, ?, NULL, NULL, ?, '{}', 'disconnected', NULL)"
)
_ADD_DOCUMENT = "INSERT INTO documents (no, index_no, id, version, changed_at, body) VALUES (?, ?, ?, 1, ?, ?)"
_ADD_COMMAND = (
    "INSERT INTO commands (id, target_type, target_id, status, created_at, sent_at, timeout, body, result, news)"
    " VALUES (?, 'agent', ?, 'pending', ?, NULL, ?, '{\"name\":\"restart\"}', NULL, ?)"
)
_ADD_ENTRY = (
    "INSERT INTO entries (agent_id, kind, reason, size, payload_bytes, first_at, last_at, digest, metadata, payload)"
    " VALUES (?, 'stateful', ?, ?, ?, ?, ?, ?, ?, ?)"
)
_REASON = "The data line is not UTF-8"


def write_earlier(world: World, folder: Path) -> None:
    """Of all agents, before anybody uses the folder."""
    rng = Random(f"{world.plan.seed} earlier state")
    version = rng.randrange(1, STATE.version)
    state = _database(folder / STATE.name, STATE, version)
    (folder / "quarantine").mkdir()
    quarantine = _database(folder / "quarantine" / QUARANTINE.name, QUARANTINE, rng.randrange(1, QUARANTINE.version))
    number = 0
    for agent in world.agents:
        record = agent.record
        state.execute(_ADD_AGENT, (record.id, record.name, record.key_hash, json.dumps(list(record.groups))))
        if version > 1:  # the first one had no checksums
            seal_agent(state, record.id)
        for operation in agent.make_earlier(rng.randrange(4)):
            number += 1
            _add_document(state, agent, operation, number)
        for _ in range(rng.randrange(3)):
            number += 1
            timeout = rng.choice([5.0, 60.0, 600.0])
            begin(world, f"e{number}", agent, timeout, posted=False)
            state.execute(_ADD_COMMAND, (f"e{number}", agent.uuid, EPOCH, timeout, number))
        for _ in range(rng.randrange(3)):
            number += 1
            _add_entry(
                quarantine, agent, Operation("fim", f"late-e{number}", "create", {"text": "poison"}, poison=True)
            )
    state.execute("UPDATE counters SET value = ? WHERE name IN ('documents', 'news')", (number,))
    world.trace.strike("an earlier state", f"schema {state.pragma('user_version')}", "node0")
    for database in (state, quarantine):
        database.close()


def _database(path: Path, schema: Schema, version: int) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.pragma("page_size", 8192)
    connection.pragma("journal_mode", "wal")
    migrate(connection, evolve(schema, migrations=schema.migrations[:version]))
    return connection


def _add_document(state: apsw.Connection, agent: SimAgent, operation: Operation, number: int) -> None:
    index, own_id = operation.key
    state.execute("INSERT INTO indices (name) VALUES (?) ON CONFLICT DO NOTHING", (index,))
    index_no = state.execute("SELECT no FROM indices WHERE name = ?", (index,)).get
    head = json.loads(agent.client.metadata)["agent"]
    body = json.dumps({"agent": head, **(operation.data or {})}, separators=(",", ":")).encode()
    state.execute(_ADD_DOCUMENT, (number, index_no, f"{agent.uuid}_{own_id}", EPOCH, body))


def _add_entry(quarantine: apsw.Connection, agent: SimAgent, operation: Operation) -> None:
    agent.model.apply(operation)
    agent.model.acknowledge(operation)
    header = {"id": operation.id, "module": operation.module, "operation": operation.action}
    payload = json.dumps(header, separators=(",", ":")).encode() + b'\n{"text":"poison\xff"}'
    rejected = Rejected(agent.uuid, "stateful", _REASON, agent.client.metadata.rstrip(b"\n"), payload)
    size, digested = size_of(rejected, len(payload)), digest(rejected, [payload])
    values = (agent.uuid, _REASON, size, len(payload), EPOCH, EPOCH, digested, rejected.metadata, payload)
    quarantine.execute(_ADD_ENTRY, values)


def rekey(connection: apsw.Connection, agent_id: str, key_hash: str) -> Any:
    """As the first version's tool did it, which knew no checksums of rows."""
    query = "UPDATE agents SET key_hash = ? WHERE id = ? RETURNING id"
    return connection.execute(query, (key_hash, agent_id)).get is not None
