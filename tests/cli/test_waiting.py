"""What the operator is told while a command waits for an indexer that hangs."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import LEAST
from wazuh_comms_trio.cli import stores
from wazuh_comms_trio.cli.tool import main
from wazuh_comms_trio.services import readiness

pytestmark = pytest.mark.real_clock


@pytest.fixture
def hanging() -> Iterator[int]:
    """A port whose kernel takes connections, and nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_it_is_said_before_the_command_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], hanging: int
) -> None:
    monkeypatch.setattr(stores, "_PATIENCE", 0.05)
    monkeypatch.setattr(readiness, "PROBE_LIMIT", 0.1)
    config = tmp_path / "wazuh-server.yml"
    indexer = f"indexer: {{hosts: [{{host: 127.0.0.1, port: {hanging}}}], client: {{read_timeout: 3}}}}\n"
    config.write_text(LEAST.replace("backend: embedded", "backend: wazuh") + indexer)
    assert main(["--config", str(config), "agents", "list"]) == 1
    told, *_, failed = capsys.readouterr().err.splitlines()
    assert told == "still waiting: index: no answer within 0 s"  # the limit, as the sentence rounds it
    assert "no answer within 3 s" in failed
