"""Sections of the configuration that are long enough for files of their own, as frozen models."""
