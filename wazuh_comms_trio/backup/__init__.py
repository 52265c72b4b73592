"""Backup and restore of embedded state: one file for everything under ``embedded.path``; and whether it is whole.
Blocking calls."""
