"""Backup and restore of embedded state: one file for everything under ``embedded.path``. Blocking calls."""
