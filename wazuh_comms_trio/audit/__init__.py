"""The audit log: what operators and local programs changed, when, and by whom."""
