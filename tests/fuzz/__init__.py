"""Fuzzers: bytes that a program made up, read by everything that reads bytes of others. docs/simulation.md says how."""
