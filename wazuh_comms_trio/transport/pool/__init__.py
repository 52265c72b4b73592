"""Connections to one daemon, shared by many tasks."""
