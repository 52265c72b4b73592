"""``scripts/run``, past the setting up: the daemon comes up, its hints work when pasted, and a second run finds the
first's state."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from attrs import frozen

pytestmark = [pytest.mark.processes, pytest.mark.real_clock]

DEMO = Path(__file__).parents[2] / "scripts" / "lib" / "demo.py"
UUID = "[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


@frozen
class Demo:
    """A daemon that serves; ``hints`` is what it printed, ``commands`` the lines to paste, by their titles."""

    process: subprocess.Popen[str]
    hints: str

    @property
    def commands(self) -> dict[str, str]:
        return dict(re.findall(r"^# (.+)\n    (.+)$", self.hints, flags=re.MULTILINE))

    @property
    def agent(self) -> str:
        found = re.search(rf"^Demo agent: uuid ({UUID}), key ([A-Za-z0-9]{{32}})$", self.hints, flags=re.MULTILINE)
        assert found is not None
        return found[1]


def two_free_ports() -> list[int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("0.0.0.0", 0))
        two.bind(("0.0.0.0", 0))
        return [one.getsockname()[1], two.getsockname()[1]]


def command_line(folder: Path, ports: list[int]) -> list[str]:
    options = ["--state", str(folder), "--port", str(ports[0]), "--enrollment-port", str(ports[1])]
    return [sys.executable, str(DEMO), *options]


@contextmanager
def running(folder: Path, ports: list[int]) -> Iterator[Demo]:
    process = subprocess.Popen(
        command_line(folder, ports), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        yield Demo(process, read_hints(process.stdout))
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


def read_hints(stdout: IO[str]) -> str:
    """They end with the real agent's command; the end of the output is the daemon's end."""
    lines = []
    for line in stdout:
        lines.append(line)
        if "wazuh-agent --enroll " in line:
            break
    return "".join(lines)


@contextmanager
def shell(script: str) -> Iterator[subprocess.Popen[str]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WAZUH")}
    process = subprocess.Popen(
        ["bash", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def paste(*commands: str) -> str:
    with shell("\n".join(commands)) as process:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    return out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "its state"  # a name that needs quoting


def test_hints_work_when_pasted(folder: Path) -> None:
    ports = two_free_ports()
    with running(folder, ports) as demo:
        assert f"https://127.0.0.1:{ports[0]}" in demo.hints
        assert f"https://127.0.0.1:{ports[1]}" in demo.hints
        authenticate, stateless, stateful, look, park, send, status, fetch, well, join = demo.commands.values()
        assert paste(authenticate).count(".") == 2
        assert paste(authenticate, stateless).partition("\n")[2].startswith("HTTP/1.1 204")
        results = json.loads(paste(authenticate, stateful).partition("\n")[2])["results"]
        assert [(result["id"], result["status"]) for result in results] == [("zlib1g", 201)]
        assert demo.process.stdout is not None
        shown = []
        while len(shown) < 2:
            line = demo.process.stdout.readline()
            assert line, shown
            shown += [kind for kind in ("logcollector/file", "wazuh-states-inventory-packages") if kind in line]
        assert sorted(shown) == ["logcollector/file", "wazuh-states-inventory-packages"]
        events = paste(look)
        assert "stateless  logcollector/file" in events
        assert "wazuh-states-inventory-packages" in events
        with shell(f"{authenticate}\n{park}") as poll:
            assert poll.stdout is not None
            assert poll.stdout.readline().count(".") == 2
            document_id = paste(send).strip()
            (command,) = json.loads(poll.stdout.readline())["commands"]
        assert (command["document_id"], command["action"]["name"]) == (document_id, "restart")
        assert document_id in paste(status)
        assert "file_name=default.yml" in paste(authenticate, fetch)
        assert "1 of 1 serve" in paste(well)
        assert f" --enroll --enroll-url https://127.0.0.1:{ports[1]} --user demo --password " in join


def test_second_run_finds_the_same_agent_on_other_ports(folder: Path) -> None:
    with running(folder, two_free_ports()) as first:
        pass
    ports = two_free_ports()
    with running(folder, ports) as second:
        assert second.agent == first.agent
        assert paste(next(iter(second.commands.values()))).count(".") == 2
        assert f":{ports[0]}/" in second.hints
    for secret in ("demo.json", "wazuh-server.yml", "certs/server-key.pem", "certs/ca-key.pem"):
        assert stat.S_IMODE((folder / secret).stat().st_mode) == 0o600


def test_port_that_is_taken(folder: Path) -> None:
    ports = two_free_ports()
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        ports[1] = taken.getsockname()[1]
        done = subprocess.run(command_line(folder, ports), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"scripts/run: port {ports[1]} can't be used (Address already in use); "
        "choose another: scripts/run --enrollment-port N\n"
    )
