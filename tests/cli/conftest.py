"""The operator's tool, called in this process on embedded state in the test's own folder."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from wazuh_comms_trio.cli.tool import main
from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.config.models import Config

LEAST = """\
communications_api:
  host: 127.0.0.1
  port: 0
  backend: embedded
  ssl: {key: key.pem, cert: cert.pem}
  embedded: {path: state}
  files: {path: groups}
  command_socket: api.sock
"""


@frozen
class Outcome:
    """What a call of the tool left."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Tool = Callable[..., Outcome]


@pytest.fixture
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its TLS files don't exist: the tool has no need of them."""
    file = tmp_path / "wazuh-server.yml"
    file.write_text(LEAST)
    (tmp_path / "groups").mkdir()
    monkeypatch.setenv("WAZUH_COMMS_CONFIG", str(file))
    return file


@pytest.fixture
def config(config_file: Path) -> Config:
    return load_config(config_file, check_files=False).config


@pytest.fixture
def state(config: Config) -> Path:
    return config.communications_api.embedded.path


@pytest.fixture
def tool(config_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Tool:
    """``tool("agents", "add", "web-1")``; ``stdin`` is what it can read."""

    def call(*words: str, stdin: str = "") -> Outcome:
        capsys.readouterr()
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        try:
            status = main(words)
        except SystemExit as end:  # argparse's way
            status = int(end.code or 0)
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call


@pytest.fixture
def audit(state: Path) -> Callable[[], list[dict[str, Any]]]:
    """The audit log's entries so far."""

    def read() -> list[dict[str, Any]]:
        file = state / "audit.log"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    return read
