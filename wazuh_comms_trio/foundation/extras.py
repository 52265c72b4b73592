"""What was installed: which version, and what to tell whoever runs a part whose packages weren't."""

from __future__ import annotations

__all__ = ["how_to_install", "installed_version"]

_PROJECT = "wazuh-comms-trio"


def installed_version(otherwise: str) -> str:
    """``0.1.0``; ``otherwise`` in a tree that isn't installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(_PROJECT)
    except PackageNotFoundError:
        return otherwise


def how_to_install(extra: str) -> str:
    """The command that adds the packages of ``extra`` to what this was installed from: no package index has this
    project under its name, so what one has there is somebody else's."""
    # Only for this message: importing them takes longer than all of the transport.
    import json
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import unquote, urlsplit

    try:
        said = distribution(_PROJECT).read_text("direct_url.json")
        source = urlsplit(json.loads(said or "{}").get("url", ""))
    except (PackageNotFoundError, ValueError, AttributeError):
        source = urlsplit("")
    if source.scheme == "file":
        return f"pip install '{unquote(source.path)}[{extra}]'"
    return f"install the wheel or the checkout again with its extra, as in: pip install './FILE.whl[{extra}]'"
