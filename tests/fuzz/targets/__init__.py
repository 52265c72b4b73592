"""A module for each kind of bytes; each has ``TARGETS``, by name."""

from __future__ import annotations

from importlib import import_module

from tests.fuzz.target import Target

__all__ = ["MODULES", "load", "names"]

#: Target -> its module. The modules are imported when they are asked for: atheris wants to be there before them.
MODULES = {
    "http-request": "http",
    "http-chunks": "http",
    "http-reply": "http",
    "packet": "packet",
    "frames": "frames",
    "wazuh-db": "wazuh_db",
    "wazuh-db-query": "wazuh_db",
    "token": "tokens",
    "token-claims": "tokens",
    "commands": "commands",
    "configuration": "configuration",
    "backup": "backup",
    "backup-database": "backup",
    "manifest": "backup",
    "segments": "segments",
    "segments-damaged": "segments",
    "hub": "hub",
    "hub-stream": "hub",
    "proxy": "proxy",
    "forwarded": "proxy",
}


def names() -> list[str]:
    return list(MODULES)


def load(name: str) -> Target:
    """Raises ``KeyError``."""
    targets: dict[str, Target] = import_module(f"tests.fuzz.targets.{MODULES[name]}").TARGETS
    return targets[name]
