"""Real daemons on a real OpenSearch and an engine of the tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import Certificates
from tests.e2e.processes import Files, write_files

#: Quick enough for tests; the values are the product's own, but for the interval of an idle node.
COMMANDS = {"interval": 0.5, "idle_interval": 1.0, "lease": 5.0}


def wazuh_files(
    folder: Path,
    certificates: Certificates,
    ports: Sequence[int],
    *,
    indexer: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Files:
    """A configuration with `backend: wazuh`; the engine's socket is ``engine.socket`` in the folder."""
    folder.mkdir(exist_ok=True)
    files = write_files(folder, certificates.cert, certificates.key, backend="wazuh", **changes)
    config = yaml.safe_load(files.config.read_text())
    config["indexer"] = {
        "hosts": [{"host": "127.0.0.1", "port": port} for port in ports],
        "commands": COMMANDS,
        **(indexer or {}),
    }
    config["engine"] = {"client": {"api_socket_path": str(folder / "engine.socket"), "retries": 1, "timeout": 5}}
    files.config.write_text(yaml.safe_dump(config))
    return files
