"""The schema of ``quarantine.db``."""

from __future__ import annotations

from typing import Final

from wazuh_comms_trio.backends.embedded.database.schema import Migration, Schema

_VERSION_1: Final = """
CREATE TABLE entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    agent_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    reason TEXT NOT NULL,
    size INTEGER NOT NULL,             -- what it counts against the limits
    payload_bytes INTEGER NOT NULL,
    first_at REAL NOT NULL,
    last_at REAL NOT NULL,
    count INTEGER NOT NULL DEFAULT 1,
    replayed_at REAL,
    replay_error TEXT,
    digest BLOB NOT NULL,
    metadata BLOB NOT NULL,
    payload BLOB,                      -- NULL: in the file of this name
    file TEXT UNIQUE,
    UNIQUE (agent_id, digest)
);
CREATE TABLE usage (agent_id TEXT PRIMARY KEY, entries INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO usage VALUES ('', 0, 0);   -- all of them
CREATE TRIGGER entry_added AFTER INSERT ON entries BEGIN
    INSERT INTO usage VALUES (new.agent_id, 1, new.size)
        ON CONFLICT DO UPDATE SET entries = entries + 1, bytes = bytes + new.size;
    UPDATE usage SET entries = entries + 1, bytes = bytes + new.size WHERE agent_id = '';
END;
CREATE TRIGGER entry_dropped AFTER DELETE ON entries BEGIN
    UPDATE usage SET entries = entries - 1, bytes = bytes - old.size WHERE agent_id IN ('', old.agent_id);
    DELETE FROM usage WHERE agent_id = old.agent_id AND entries = 0;
END;
"""

# What is overtaken isn't counted in its agent's share. A program of version 1 leaves the new columns empty.
_VERSION_2: Final = """
ALTER TABLE entries ADD COLUMN document TEXT;        -- index and id of the document it is about
ALTER TABLE entries ADD COLUMN version TEXT;         -- what that was at the refusal; NULL: not known
ALTER TABLE entries ADD COLUMN overtaken_at REAL;    -- when it was found to have changed since
CREATE INDEX entries_of_document ON entries (document) WHERE document IS NOT NULL;
CREATE INDEX entries_overtaken ON entries (id) WHERE overtaken_at IS NOT NULL;
DROP TRIGGER entry_dropped;
CREATE TRIGGER entry_dropped AFTER DELETE ON entries BEGIN
    UPDATE usage SET entries = entries - 1, bytes = bytes - old.size
        WHERE agent_id = '' OR (agent_id = old.agent_id AND old.overtaken_at IS NULL);
    DELETE FROM usage WHERE agent_id = old.agent_id AND entries = 0;
END;
CREATE TRIGGER entry_overtaken AFTER UPDATE OF overtaken_at ON entries
    WHEN old.overtaken_at IS NULL AND new.overtaken_at IS NOT NULL
BEGIN
    UPDATE usage SET entries = entries - 1, bytes = bytes - old.size WHERE agent_id = old.agent_id;
    DELETE FROM usage WHERE agent_id = old.agent_id AND entries = 0;
END;
CREATE TRIGGER entry_current AFTER UPDATE OF overtaken_at ON entries
    WHEN old.overtaken_at IS NOT NULL AND new.overtaken_at IS NULL
BEGIN
    INSERT INTO usage VALUES (new.agent_id, 1, new.size)
        ON CONFLICT DO UPDATE SET entries = entries + 1, bytes = bytes + new.size;
END;
"""

# Which entry of a document is the newest isn't told by the time: a clock may be set back. Whatever program writes, the
# triggers count.
_COUNT_ARRIVAL: Final = """
    UPDATE entries SET arrival = (SELECT coalesce(max(arrival), 0) + 1 FROM entries WHERE arrival IS NOT NULL)
        WHERE id = new.id;
"""
_VERSION_3: Final = f"""
ALTER TABLE entries ADD COLUMN arrival INTEGER;      -- a higher one each time it comes; NULL: not since this version
CREATE INDEX entries_by_arrival ON entries (arrival) WHERE arrival IS NOT NULL;
CREATE TRIGGER entry_came AFTER INSERT ON entries BEGIN {_COUNT_ARRIVAL} END;
CREATE TRIGGER entry_came_again AFTER UPDATE OF count ON entries BEGIN {_COUNT_ARRIVAL} END;
"""

QUARANTINE: Final = Schema(
    "quarantine.db",
    0x575A4351,
    [
        Migration(_VERSION_1, usable_since=1),
        Migration(_VERSION_2, usable_since=1),
        Migration(_VERSION_3, usable_since=1),
    ],
)
