"""`wazuh-comms simulate-fleet` as a program, against the daemon as another: enrolment, a run, Ctrl-C."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.conftest import Certificates
from tests.e2e.processes import PROGRAMS, Files, Running, start_daemon, tool, write_files
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key

pytestmark = [pytest.mark.processes, pytest.mark.real_clock]

PASSWORD = {"WAZUH_COMMS_ENROLLMENT_PASSWORD": "let them in"}
MIX = """\
fleet:
  stateless: {every: 0.2, bytes: 500}
  stateful: {every: 0.5, events: 3, documents: 5}
  files: {every: 1}
"""


@pytest.fixture
def files(tmp_path: Path, certificates: Certificates) -> Files:
    enrollment = {"host": "127.0.0.1", "port": 0, "users": {"operator": hash_key("let them in")}}
    files = write_files(tmp_path, certificates.cert, certificates.key, enrollment=enrollment)
    (files.groups / "default.yml").write_text("all: well\n")
    (tmp_path / "mix.yml").write_text(MIX)
    return files


async def simulate(*words: str, environment: Mapping[str, str] = PASSWORD) -> subprocess.CompletedProcess[bytes]:
    with trio.fail_after(60):
        return await trio.run_process(
            command(words), env=dict(environment), capture_stdout=True, capture_stderr=True, check=False, stdin=b""
        )


def command(words: Sequence[str]) -> list[str]:
    return [str(PROGRAMS / "wazuh-comms"), "simulate-fleet", *words]


def options(daemon: Running, agents: int, *more: str) -> list[str]:
    folder = daemon.files.folder
    urls = ["--url", f"https://127.0.0.1:{daemon.port}", "--enroll-url", f"https://127.0.0.1:{daemon.enrollment_port}"]
    kept = ["--agents-file", str(folder / "agents.jsonl"), "--mix", str(folder / "mix.yml"), "--ramp", "0"]
    return ["--agents", str(agents), *urls, *kept, *more]


async def test_a_fleet_is_enrolled_and_runs_and_runs_again(files: Files) -> None:
    async with start_daemon(files) as daemon:
        picture = files.folder / "run.svg"
        first = await simulate(
            *options(daemon, 5, "--user", "operator", "--duration", "2s", "--plot", str(picture), "--json")
        )
        assert (first.returncode, first.stderr) == (0, b"")
        document: dict[str, Any] = json.loads(first.stdout)
        assert (document["agents"], document["logged_in"], document["polls_parked"]) == (5, 5, 5)
        assert document["start"]["kinds"]["log-in, first"]["served"] == 5
        for kind in ("stateless", "stateful", "file"):
            assert document["rest"]["kinds"][kind]["served"] > 0
            assert document["rest"]["kinds"][kind]["errors"] == {}
        assert "</svg>" in picture.read_text()
        kept = [json.loads(line) for line in (files.folder / "agents.jsonl").read_text().splitlines()]
        enrolled = await tool(files, "agents", "list", "--name", "fleet-*")
        assert {each["uuid"] for each in kept} == {each["uuid"] for each in enrolled}
        assert (files.folder / "agents.jsonl").stat().st_mode & 0o777 == 0o600

        for words, said in (
            (["--user", "nobody"], "nobody may not enrol agents: 401"),
            (["--token", "wrong"], "wasn't enrolled: 401"),
        ):
            refused = await simulate(*options(daemon, 6, *words))
            assert (refused.returncode, refused.stdout) == (1, b"")
            assert said in refused.stderr.decode()
            assert len(refused.stderr.splitlines()) == 1

        second = await simulate(*options(daemon, 4, "--duration", "1s"), environment={})  # nobody is enrolled for it
        assert second.returncode == 0, second.stderr
        assert re.search(rb"^4 agents: \d+ s to start, \d+ s at rest$", second.stdout, re.MULTILINE)

        process = await trio.lowlevel.open_process(command(options(daemon, 5)), stdout=subprocess.PIPE)
        with trio.fail_after(30):
            await daemon.connections(5)
            process.send_signal(signal.SIGINT)
            assert process.stdout is not None
            said = b"".join([piece async for piece in process.stdout])
            assert await process.wait() == 0
        assert re.search(rb"^5 agents: \d+ s to start, \d+ s at rest$", said, re.MULTILINE)
        assert re.search(rb"^[0-5] polls parked at the end", said, re.MULTILINE)
