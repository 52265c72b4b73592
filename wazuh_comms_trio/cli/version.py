"""Which version this is."""

from __future__ import annotations

from importlib import metadata


def version_line(program: str) -> str:
    """``wazuh-comms-apid 0.1.0``"""
    try:
        return f"{program} {metadata.version('wazuh-comms-trio')}"
    except metadata.PackageNotFoundError:  # a tree that isn't installed
        return f"{program} (not installed)"
