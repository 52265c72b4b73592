"""Everything in files of our own under ``embedded.path``: SQLite for agents, documents and commands, NDJSON
segments for events."""
