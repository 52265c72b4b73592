"""How a test's pool reaches a fake daemon: in memory or over a socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wazuh_comms_trio.testing import FakeDaemon


def echo(request: bytes) -> bytes:
    return b"ok " + request


def reach(daemon: FakeDaemon, home: Path) -> dict[str, Any]:
    """``open_pool``'s arguments to get to the fake."""
    return {"home": home} if daemon.path is not None else {"connect": daemon.connect}
