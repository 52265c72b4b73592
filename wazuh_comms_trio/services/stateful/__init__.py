"""Stateful events: a body is read into events, a batcher writes them in bulk, each gets its result."""
