"""What `scripts/bench real` runs on: OpenSearch and an engine, on the client's core, and daemons that use them."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import trio
import yaml

from bench.bare import Job, Result
from bench.daemon import enrol, write_config
from bench.processes import START_LIMIT_S, Server, cores, cpu_seconds, pinned, repeating, resident_bytes, start_daemon
from bench.relay import Call, Relay, open_relay
from bench.workloads import Agent, metadata, request
from tests.indexer.cluster import nodes
from wazuh_comms_trio.backends.opensearch.admin.init import init_indexer
from wazuh_comms_trio.backends.opensearch.client.client import OpenSearchClient
from wazuh_comms_trio.config.backend_models import Indexer, IndexerHost, IndexerNames

LARGE_BYTES = 100 * 1024 * 1024


@dataclass(frozen=True)
class Daemons:
    """Two alike: one straight on the indexer, which is measured, and one whose calls to it are kept."""

    direct: Server
    recorded: Server
    relay: Relay


@dataclass(frozen=True)
class Site:
    folder: Path
    engine: str
    indexer_pid: int
    indexer_port: int
    base: Mapping[str, Any]

    def config(self, name: str, port: int, batcher: Mapping[str, int]) -> Path:
        api = self.base["communications_api"] | {
            "backend": "wazuh",
            "embedded": {"path": str(self.folder / f"{name}-state")},
            "command_socket": str(self.folder / f"{name}.sock"),
            "timeouts": {"stateless": 60},
            "batcher": dict(batcher),
        }
        config = {
            "communications_api": api,
            "indexer": {"hosts": [{"host": "127.0.0.1", "port": port}]},
            "engine": {"client": {"api_socket_path": self.engine}},
        }
        path = self.folder / f"{name}.yml"
        path.write_text(yaml.safe_dump(config))
        return path

    def enrol(self, count: int) -> list[Agent]:
        return trio.run(enrol, self.config("enrol", self.indexer_port, {}), count)

    def indexer_cpu(self) -> float:
        return cpu_seconds(self.indexer_pid)

    @contextmanager
    def daemons(self, name: str, batcher: Mapping[str, int]) -> Iterator[Daemons]:
        with open_relay(self.indexer_port) as relay:
            direct = self.config(f"{name}-direct", self.indexer_port, batcher)
            recorded = self.config(f"{name}-recorded", relay.port, batcher)
            with (
                start_daemon(direct, self.folder / f"{name}-direct.log") as one,
                start_daemon(recorded, self.folder / f"{name}-recorded.log") as other,
            ):
                yield Daemons(one, other, relay)


@contextmanager
def open_site(folder: Path) -> Iterator[Site]:
    """With the product's own templates and indices."""
    base = yaml.safe_load(write_config(folder).read_text())
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cores()[1]})  # the node's too, which counts its cores when it starts
    try:
        # With less, its breaker refuses calls for garbage that isn't collected yet.
        with nodes(1, heap="2g") as (node,), open_engine(folder) as engine:
            os.sched_setaffinity(0, everywhere)
            trio.run(prepare, node.port)
            assert node.process is not None
            yield Site(folder, engine, node.process.pid, node.port, base)
    finally:
        os.sched_setaffinity(0, everywhere)


@contextmanager
def open_config(folder: Path, backend: str) -> Iterator[Path]:
    """A daemon's configuration, with what it stands on running: nothing for ``embedded``."""
    if backend == "embedded":
        yield write_config(folder)
        return
    with open_site(folder) as site:
        config = site.config("wazuh-server", site.indexer_port, {})
        document = yaml.safe_load(config.read_text())
        document["communications_api"]["command_socket"] = str(folder / "c.sock")
        config.write_text(yaml.safe_dump(document))
        yield config


async def prepare(port: int) -> None:
    async with OpenSearchClient(Indexer(hosts=(IndexerHost("127.0.0.1", port),))) as client:
        await init_indexer(client, IndexerNames())


@contextmanager
def open_engine(folder: Path) -> Iterator[str]:
    path = folder / "engine.socket"
    process = subprocess.Popen([sys.executable, "-m", "bench.engine", str(path)], preexec_fn=pinned(cores()[1]))
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while not path.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the engine didn't start")
            time.sleep(0.05)
        yield str(path)
    finally:
        process.kill()
        process.wait()


def make_calls(address: int | str, calls: Sequence[Call], *, repeat: int = 1, connections: int = 1) -> Result:
    """The bare client, on the servers' core."""
    job = msgspec.json.encode(Job(address, list(calls), repeat, connections))
    process = subprocess.run(
        [sys.executable, "-m", "bench.bare"],
        input=job,
        stdout=subprocess.PIPE,
        preexec_fn=pinned(cores()[0]),
        check=False,
    )
    if process.returncode:
        raise SystemExit("the bare client failed")
    return msgspec.json.decode(process.stdout, type=Result)


# --- a large body


def large_body_growth(site: Site, agent: Agent) -> float:
    """How much more memory, in MiB, a daemon has at its peak while a stateless body of 100 MiB is in flight than after
    one of 1 MiB. A new daemon: one that has worked has memory to spare."""
    with start_daemon(site.config("large", site.indexer_port, {}), site.folder / "large.log") as daemon:
        pid = daemon.process.pid
        post_large(daemon.port, agent, 1024 * 1024)
        before = peak = resident_bytes(pid)

        def watch() -> None:
            nonlocal peak
            peak = max(peak, resident_bytes(pid))

        with repeating(watch, 0.003):
            post_large(daemon.port, agent, LARGE_BYTES)
    return (peak - before) / 1024 / 1024


def post_large(port: int, agent: Agent, size: int) -> None:
    line = b'{"module":"m","collector":"c"}\n{"message":"' + b"x" * 4000 + b'"}\n'
    first = metadata(agent)
    block = line * 16
    blocks = (size - len(first)) // len(block)
    head, _ = request("POST", "/api/v1/events/stateless", agent.token)
    length = f"Content-Type: application/json\r\nContent-Length: {len(first) + blocks * len(block)}\r\n\r\n"
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as raw,
        context.wrap_socket(raw, suppress_ragged_eofs=True) as sock,
    ):
        sock.sendall(head.removesuffix(b"\r\n") + length.encode() + first)
        for _ in range(blocks):
            sock.sendall(block)
        answer = sock.recv(65536)
    if not answer.startswith(b"HTTP/1.1 204"):
        raise SystemExit(f"a body of {size} bytes: {answer!r}")
