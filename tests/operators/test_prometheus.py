"""A real Prometheus scrapes a real daemon, as docs/operating.md shows it for another host: TLS and a token."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trio
import yaml

from tests.conftest import Certificates
from tests.e2e.processes import start_daemon, write_files
from tests.operators.prometheus import RULES, program
from wazuh_comms_trio.testing import ExchangeFailed, exchange, request_head

pytestmark = [pytest.mark.real_clock, pytest.mark.processes, pytest.mark.prometheus]
TOKEN = "a token of operators".replace(" ", "-")


@asynccontextmanager
async def prometheus(folder: Path, scrape: dict[str, Any]) -> AsyncIterator[int]:
    """Its port, while the block runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    config = folder / "prometheus.yml"
    timing = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    document = {"global": timing, "rule_files": [str(RULES)], "scrape_configs": [scrape]}
    config.write_text(yaml.safe_dump(document))
    command = [
        program("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
        "--log.level=error",
    ]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def ask(port: int, target: str) -> Any:
    """The ``data`` of an answer of Prometheus' API; None while it doesn't listen yet."""
    try:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            reply = await exchange(stream, request_head("GET", target, [("Host", "localhost")]))
    except (OSError, ExchangeFailed):
        return None
    return json.loads(reply.body)["data"] if reply.status == 200 else None


async def value(port: int, expression: str) -> float | None:
    data = await ask(port, f"/api/v1/query?query={quote(expression)}")
    return float(data["result"][0]["value"][1]) if data and data["result"] else None


async def test_prometheus_reads_it(tmp_path: Path, certificates: Certificates) -> None:
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    operators = {
        "listen": "127.0.0.1:0",
        "ssl": {"key": str(certificates.key), "cert": str(certificates.cert)},
        "token_file": str(token),
    }
    files = write_files(tmp_path, certificates.cert, certificates.key, operators=operators)
    program("promtool")
    async with start_daemon(files) as running:
        line = await running.wait_for_line(r"operators read on https://127\.0\.0\.1:\d+")
        address = re.search(r"https://([0-9.:]+)", line)
        assert address is not None
        scrape = {
            "job_name": "wazuh-comms",
            "scheme": "https",
            "tls_config": {"ca_file": str(certificates.ca)},
            "authorization": {"credentials_file": str(token)},
            "static_configs": [{"targets": [address[1]]}],
        }
        (agent,) = await running.add_agents(1)
        assert (await agent.authenticate()).status == 200
        async with prometheus(tmp_path, scrape) as port:
            with trio.fail_after(60):
                while await value(port, "wazuh_comms_logins_taken_total") != 1:  # noqa: ASYNC110 - it tells nobody
                    await trio.sleep(0.2)
            assert await value(port, 'up{job="wazuh-comms"}') == 1
            assert await value(port, "wazuh_comms_http_request_duration_seconds_count") == 1
            bucket = quote("wazuh_comms_http_request_duration_seconds_bucket")
            (found,) = await ask(port, f"/api/v1/query_exemplars?query={bucket}&start=0&end=9999999999")
            assert found["exemplars"][0]["labels"] == {"request": "1-1"}
            (group,) = (await ask(port, "/api/v1/rules"))["groups"]
            assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}
