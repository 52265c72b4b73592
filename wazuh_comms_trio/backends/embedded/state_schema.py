"""The schema of ``state.db``: registry, state index and commands.

``counters`` is how processes tell each other of changes: ``agents`` grows with every removal, new key or change of an
agent that a cache must notice, and ``agent_changes`` says which agent each of the last ones concerned; ``news`` with
every command that becomes free to be offered; ``documents`` is the highest number that a document ever had.
"""

from __future__ import annotations

from typing import Final

from wazuh_comms_trio.backends.embedded.database.schema import Migration, Schema

_VERSION_1: Final = """
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counters VALUES ('agents', 1), ('news', 0), ('documents', 0);

CREATE TABLE agents (
    no INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    key_hash TEXT NOT NULL,
    type TEXT,
    version TEXT,
    groups TEXT NOT NULL,              -- a JSON list
    host TEXT NOT NULL,                -- a JSON object
    status TEXT NOT NULL,
    last_login REAL
);
CREATE TRIGGER agent_gone AFTER DELETE ON agents BEGIN
    UPDATE counters SET value = value + 1 WHERE name = 'agents';
END;
CREATE TRIGGER agent_changed AFTER UPDATE OF id, name, key_hash, type, version, groups, host ON agents BEGIN
    UPDATE counters SET value = value + 1 WHERE name = 'agents';
END;

CREATE TABLE indices (no INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE documents (               -- by rowid with an index beside it: bodies are long, ids are random
    no INTEGER PRIMARY KEY,            -- a higher one with every change: who follows them asks for those above
    index_no INTEGER NOT NULL REFERENCES indices,
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    changed_at REAL NOT NULL,
    body BLOB NOT NULL,                -- as the agent wrote it
    UNIQUE (index_no, id)
);

CREATE TABLE commands (
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    target_type TEXT NOT NULL,
    target_id TEXT NOT NULL,
    status TEXT NOT NULL,
    created_at REAL NOT NULL,
    sent_at REAL,
    timeout REAL NOT NULL,
    body TEXT NOT NULL,                -- a JSON object: what isn't searched for
    result TEXT,                       -- a JSON object
    owner TEXT,                        -- who offers it now
    offered INTEGER NOT NULL DEFAULT 0,
    news INTEGER NOT NULL DEFAULT 0,   -- the counter's value when it became free
    due_at REAL AS (CASE               -- as command_rules.is_overdue
        WHEN status = 'pending' THEN created_at + timeout
        WHEN status = 'sent' AND target_type = 'agent' THEN sent_at + timeout
    END) VIRTUAL
);
CREATE INDEX commands_pending ON commands (target_id, created_at, no) WHERE status = 'pending';
CREATE INDEX commands_news ON commands (news) WHERE status = 'pending' AND owner IS NULL;
CREATE INDEX commands_owned ON commands (owner) WHERE owner IS NOT NULL;
CREATE INDEX commands_due ON commands (due_at) WHERE due_at IS NOT NULL AND owner IS NULL;
CREATE INDEX commands_by_age ON commands (created_at, no);
CREATE INDEX commands_by_target ON commands (target_id, created_at, no);
"""

# Checksums of rows (row_checksums.py) and what pruning keeps in mind (pruning.py). `age` is the store's own clock, in
# seconds that were lived through: a wall clock that jumps makes nothing old.
_VERSION_2: Final = """
INSERT INTO counters VALUES ('age', 0), ('age_at', 0);

ALTER TABLE agents ADD COLUMN checksum INTEGER;
ALTER TABLE commands ADD COLUMN checksum INTEGER;
ALTER TABLE documents ADD COLUMN checksum INTEGER;
CREATE TRIGGER agent_unsealed AFTER UPDATE OF id, name, key_hash, type, version, groups, host ON agents
    WHEN new.checksum IS NOT NULL BEGIN
    UPDATE agents SET checksum = NULL WHERE no = new.no;
END;

ALTER TABLE commands ADD COLUMN ended_age INTEGER;   -- `age` when it was first seen to have ended
CREATE INDEX commands_ended ON commands (ended_age) WHERE status IN ('success', 'failed');

CREATE TABLE removed_agents (id TEXT PRIMARY KEY, age INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER agent_removed AFTER DELETE ON agents BEGIN
    INSERT OR REPLACE INTO removed_agents VALUES (old.id, (SELECT value FROM counters WHERE name = 'age'));
END;
CREATE TRIGGER agent_is_back AFTER INSERT ON agents BEGIN
    DELETE FROM removed_agents WHERE id = new.id;
END;

CREATE TABLE document_marks (no INTEGER PRIMARY KEY, age INTEGER NOT NULL);   -- how far documents were numbered then
"""

#: Changes of agents that the file remembers; a process that missed more of them forgets all agents.
CHANGES_KEPT: Final = 10_000

# `no` is the counter's value after the change.
_NOTE_CHANGE: Final = f"""
    UPDATE counters SET value = value + 1 WHERE name = 'agents';
    INSERT OR REPLACE INTO agent_changes SELECT value, old.id FROM counters WHERE name = 'agents';
    DELETE FROM agent_changes WHERE no <= (SELECT value - {CHANGES_KEPT} FROM counters WHERE name = 'agents');
"""
_VERSION_3: Final = f"""
CREATE TABLE agent_changes (no INTEGER PRIMARY KEY, id TEXT NOT NULL);
DROP TRIGGER agent_gone;
CREATE TRIGGER agent_gone AFTER DELETE ON agents BEGIN {_NOTE_CHANGE} END;
DROP TRIGGER agent_changed;
CREATE TRIGGER agent_changed AFTER UPDATE OF id, name, key_hash, type, version, groups, host ON agents
    BEGIN {_NOTE_CHANGE} END;
"""

# When agents were heard last: written by programs that know it, about once a minute, and beside the agents' own rows.
_VERSION_4: Final = """
CREATE TABLE agent_presence (id TEXT PRIMARY KEY, seen REAL NOT NULL, sent REAL) WITHOUT ROWID;
CREATE TRIGGER agent_unseen AFTER DELETE ON agents BEGIN
    DELETE FROM agent_presence WHERE id = old.id;
END;
"""

# What was told of agents' silence.
_VERSION_5: Final = """
CREATE TABLE presence_watch (no INTEGER PRIMARY KEY CHECK (no = 1), state TEXT NOT NULL);
"""

# Bytes of each agent's documents, counted by triggers that are there while there is a quota (quota/counting.py).
_VERSION_6: Final = """
CREATE TABLE document_usage (agent_id TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
"""

# Of the ``set-group`` of one agent the one that was claimed last counts, whichever report comes last: each claim gives
# it the agent's next turn. Where a turn isn't known (an earlier version claimed it) the report counts as it comes, and
# leaves the others theirs.
_VERSION_7: Final = """
ALTER TABLE commands ADD COLUMN group_turn INTEGER;
ALTER TABLE agents ADD COLUMN group_turns INTEGER;       -- the last turn that was given
ALTER TABLE agents ADD COLUMN groups_of_turn INTEGER;    -- the one that the agent's groups are of
"""

STATE: Final = Schema(
    "state.db",
    0x575A4353,
    [
        Migration(_VERSION_1, usable_since=1),
        Migration(_VERSION_2, usable_since=1),
        Migration(_VERSION_3, usable_since=1),
        Migration(_VERSION_4, usable_since=1),
        Migration(_VERSION_5, usable_since=1),
        Migration(_VERSION_6, usable_since=1),
        Migration(_VERSION_7, usable_since=1),
    ],
)
