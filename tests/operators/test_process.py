"""The operators' listener of real daemons."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.child_processes import children
from tests.conftest import Certificates
from tests.e2e.processes import Running, start_daemon, tool, write_files
from wazuh_comms_trio.testing import ExchangeFailed, Reply, exchange, request_head

pytestmark = [pytest.mark.real_clock, pytest.mark.processes]
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@asynccontextmanager
async def daemon(folder: Path, certificates: Certificates, **changes: Any) -> AsyncIterator[tuple[Running, Path]]:
    path = folder / "operators.sock"
    files = write_files(folder, certificates.cert, certificates.key, operators={"listen": str(path)}, **changes)
    async with start_daemon(files) as running:
        yield running, path


async def get(path: Path, target: str) -> Reply:
    head = request_head("GET", target, [("Host", "localhost"), ("Accept", OPENMETRICS)])
    with trio.fail_after(30):
        async with await trio.open_unix_socket(str(path)) as stream:
            return await exchange(stream, head)


async def samples(path: Path) -> dict[tuple[str, ...], float]:
    reply = await get(path, "/metrics")
    assert reply.status == 200
    return {
        (sample.name.removeprefix("wazuh_comms_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(reply.body.decode())
        for sample in family.samples
    }


async def operators_pid(pid: int) -> int:
    while True:
        for child, line in children(pid).items():
            if "operators_start" in line:
                return child
        await trio.sleep(0.05)


def hang(stack: ExitStack, path: Path, count: int) -> None:
    """So many clients that don't read, half of them don't even ask."""
    for number in range(count):
        client = stack.enter_context(socket.socket(socket.AF_UNIX))
        client.settimeout(20)
        client.connect(str(path))
        if number % 2:
            with suppress(OSError):  # it was one too many already
                client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_scrape_answers_for_the_node(tmp_path: Path, certificates: Certificates, workers: int) -> None:
    async with daemon(tmp_path, certificates, workers=workers) as (running, path):
        assert path.stat().st_mode & 0o777 == 0o660
        agents = await running.add_agents(6)
        for agent in agents:
            await agent.authenticate()
        refused = running.client(agents[0].uuid, "x" * 32)
        for _ in range(3):
            assert (await refused.authenticate()).status == 401
        found = await samples(path)
        assert found["logins_refused_total", "wrong_key"] == 3
        assert found["http_requests_total", "agents", "/api/v1/authentication", "401"] == 3
        assert found["logins_taken_total",] == 6
        assert found["http_requests_total", "agents", "/api/v1/authentication", "200"] == 6
        assert found["workers", "serving"] == workers
        assert found["workers_configured",] == workers
        assert found["ready",] == 1
        assert found["store_limit_bytes", "quarantine"] == 1024**3
        assert found["store_limit_bytes", "events"] == 10 * 1024**3
        assert found["warnings", "quota"] == 0
        why = await tool(running.files, "agents", "why", agents[0].uuid)
        assert why["heard"]["channels"]["login"]["refusal"]["cause"] == "wrong_key"
        assert why["heard"]["channels"]["login"]["success"]["address"] == "127.0.0.1"
        assert any("rekey" in sentence for sentence in why["sentences"])
        ready = await get(path, "/ready")
        assert (ready.status, ready.json()) == (200, {"ready": True, "reasons": []})
        assert (await get(path, "/healthz")).status == 200
        status = json.loads((await get(path, "/status")).body)
        assert [worker["state"] for worker in status["workers"]] == ["serving"] * workers
    assert not path.exists()


async def test_a_connection_ends_with_its_reply(tmp_path: Path, certificates: Certificates) -> None:
    """Who reads to the end waits for nothing else: by ``ConnectionLimits`` alone it would be 20 s."""
    async with daemon(tmp_path, certificates) as (_, path):
        for target in ("/healthz", "/metrics", "/nothing"):
            async with await trio.open_unix_socket(str(path)) as stream:
                await stream.send_all(request_head("GET", target, [("Host", "localhost")]))
                with trio.fail_after(10):
                    assert b"".join([data async for data in stream]).startswith(b"HTTP/1.1 ")


async def test_a_head_that_comes_whole_is_measured_too(tmp_path: Path, certificates: Certificates) -> None:
    """H11 looks at 60 000 blanks before a control character for seven seconds."""
    async with daemon(tmp_path, certificates) as (_, path):
        for value, status in (("x" * 3000, 200), ("x" * 20_000, 431), (" " * 60_000 + "\0", 431)):
            head = request_head("GET", "/healthz", [("Host", "localhost"), ("Value", value)])
            with trio.fail_after(30):
                async with await trio.open_unix_socket(str(path)) as stream:
                    assert (await exchange(stream, head)).status == status


async def test_with_a_ca_only_its_clients_read(tmp_path: Path, certificates: Certificates) -> None:
    """On an address that others reach: without a certificate of the CA there is no reply at all."""
    tls = {"key": str(certificates.key), "cert": str(certificates.cert), "ca": str(certificates.ca)}
    operators = {"listen": "0.0.0.0:0", "ssl": tls}
    files = write_files(tmp_path, certificates.cert, certificates.key, operators=operators)
    async with start_daemon(files) as running:
        line = await running.wait_for_line(r"operators read on https://")
        port = int(line.split(" [")[0].rpartition(":")[2])

        async def read(context: ssl.SSLContext) -> Reply | None:
            head = request_head("GET", "/healthz", [("Host", "localhost")])
            try:
                with trio.fail_after(30):
                    stream = await trio.open_ssl_over_tcp_stream(
                        "127.0.0.1", port, ssl_context=context, https_compatible=True
                    )
                    async with stream:
                        return await exchange(stream, head)
            except (trio.BrokenResourceError, ExchangeFailed):
                return None

        nobody = ssl.create_default_context(cafile=certificates.ca)
        somebody = ssl.create_default_context(cafile=certificates.ca)
        somebody.load_cert_chain(certificates.client_cert, certificates.client_key)
        known = await read(somebody)
        assert known is not None
        assert known.status == 200
        assert await read(nobody) is None


async def test_an_ended_workers_counts_are_kept(tmp_path: Path, certificates: Certificates) -> None:
    files_operators = tmp_path / "operators.sock"
    changes: dict[str, Any] = {"operators": {"listen": str(files_operators)}, "workers": 2}
    files = write_files(tmp_path, certificates.cert, certificates.key, **changes)
    async with start_daemon(files, expect_errors=True) as running:
        for agent in await running.add_agents(8):
            await agent.authenticate()
        before = await samples(files_operators)
        assert before["logins_taken_total",] == 8
        status = json.loads((await get(files_operators, "/status")).body)
        pids = {worker["pid"] for worker in status["workers"]}
        os.kill(min(pids), signal.SIGKILL)
        await running.wait_for_line("ended with SIGKILL")
        with trio.fail_after(20):
            while (after := await samples(files_operators))["worker_restarts_total",] != 1:  # noqa: ASYNC110
                await trio.sleep(0.2)  # an answer is given again for a second
        assert after["logins_taken_total",] == 8


async def logins(path: Path, number: int) -> None:
    """Returns once so many are counted: all who scrape within a second get the same page. Among a thousand others this
    scraper, too, may be sent away, and asks again."""
    counted: float | None = None
    with trio.fail_after(10):
        while counted != number:
            with suppress(ExchangeFailed):
                counted = (await samples(path))["logins_taken_total",]
            await trio.sleep(0.05)


async def test_hanging_scrapers_and_its_death_change_nothing_for_agents(
    tmp_path: Path, certificates: Certificates
) -> None:
    async with daemon(tmp_path, certificates, workers=1) as (running, path):
        (agent,) = await running.add_agents(1)
        await samples(path)  # it serves
        first = await operators_pid(running.process.pid)
        with ExitStack() as stack:
            for number in range(1000):
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                client.setblocking(False)
                client.connect(str(path))
                if number % 2:  # the others don't even ask
                    client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
                if number % 100 == 99:
                    await trio.lowlevel.checkpoint()
            with trio.fail_after(10):
                assert (await agent.authenticate()).status == 200
            await logins(path, 1)  # in spite of them
        os.kill(first, signal.SIGKILL)
        await running.wait_for_line("the operators' process ended with SIGKILL")
        assert (await agent.authenticate()).status == 200
        await logins(path, 2)  # the first look waits in the listener until there is a process again
        assert await operators_pid(running.process.pid) != first
