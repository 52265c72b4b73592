"""One SQLite file shared by tasks, workers and the tool: connections, group commit, schema versions, faults. Knows
no table."""
