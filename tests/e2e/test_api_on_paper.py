"""The OpenAPI document against a live daemon: schemathesis makes requests of it, sound ones and others, and compares
every answer with what the document says.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
import trio

from tests.conftest import Certificates
from tests.e2e.agents import PASSWORD
from tests.e2e.processes import PROGRAMS, Files, Running, start_daemon, write_files
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key
from wazuh_comms_trio.testing import agent_tls, connect_tcp, exchange, open_tls, request_head

pytestmark = [pytest.mark.processes, pytest.mark.real_clock]

ROOT = Path(__file__).parents[2]
AGENT = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1"


@pytest.fixture
def files(tmp_path: Path, certificates: Certificates) -> Files:
    made = write_files(
        tmp_path,
        certificates.cert,
        certificates.key,
        timeouts={"commands": 1},
        enrollment={"host": "127.0.0.1", "port": 0, "users": {"alice": hash_key(PASSWORD)}},
    )
    (made.groups / "web.yml").write_text("x: 1\n")
    return made


async def findings(folder: Path, port: int | None, authorization: str, *words: str) -> str:
    """What schemathesis has to say; nothing when it has found nothing."""
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.e2e.ndjson_bodies", "PYTHONPATH": str(ROOT)}
    command = [PROGRAMS / "schemathesis", "--config-file", ROOT / "tests/e2e/schemathesis.toml"]
    command += ["run", ROOT / "wazuh_comms_trio/openapi.json", "--url", f"https://127.0.0.1:{port}"]
    command += ["--header", f"Authorization: {authorization}", "--tls-verify", "false", "--no-color"]
    # One thread: Python 3.11's ast.parse, which hypothesis calls, isn't safe in several ("recursion depth mismatch").
    command += ["--seed", "1", "--max-examples", "3", "--workers", "1", "--phases", "coverage,fuzzing"]
    command += ["--generation-deterministic", "--continue-on-failure", *words]
    done = await trio.run_process(
        [str(word) for word in command],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        cwd=folder,
        env=environment,
    )
    said = (done.stdout + done.stderr).decode()
    assert " generated" in said, said  # it did run
    return "" if done.returncode == 0 else said


async def session_of(daemon: Running, basic: str) -> str:
    """By hand, as an agent that joins gets it."""
    assert daemon.enrollment_port is not None
    stream = await open_tls(connect_tcp("127.0.0.1", daemon.enrollment_port), agent_tls(), host="localhost")
    headers = [("Host", "localhost"), ("Authorization", basic), ("Content-Length", "0")]
    async with stream:
        reply = await exchange(stream, request_head("POST", "/security/user/authenticate", headers))
    token: str = reply.json()["data"]["token"]
    return token


async def test_the_agents_api_is_as_its_document_says(files: Files, tmp_path: Path) -> None:
    async with start_daemon(files) as daemon:
        agent = await daemon.add_agent("a", "--uuid", AGENT, "--group", "web")
        assert (await agent.authenticate()).status == 200
        token = agent.token
        assert token is not None
        said = await findings(tmp_path, daemon.port, f"Bearer {token}", "--include-path-regex", "^/api/v1/")
        assert not said, said


async def test_the_enrolment_is_as_its_document_says(files: Files, tmp_path: Path) -> None:
    async with start_daemon(files) as daemon:
        basic = f"Basic {base64.b64encode(f'alice:{PASSWORD}'.encode()).decode()}"
        session = await session_of(daemon, basic)
        for path, authorization in (("/security/user/authenticate", basic), ("/agents", f"Bearer {session}")):
            said = await findings(tmp_path, daemon.enrollment_port, authorization, "--include-path", path)
            assert not said, said
