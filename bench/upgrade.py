"""What an upgrade of a large state costs: the commit before the modules moved, this tree, and back, under load.

    scripts/bench upgrade [--cluster] [--agents N] [--documents N] [--json]

The earlier version makes the state (embedded backends) and serves it with three workers; agents send all along while
each version's programs take the place of the other's and a reload puts them in force. ``--cluster``: three nodes of two
workers on one OpenSearch instead, one node after the other; see :mod:`.upgrade_cluster`. ``reload_s`` is the whole
reload, ``pause_s`` the longest time in which no request at all was answered, ``usual_pause_s`` the same before it,
``open_s`` how long a start with that state takes until the first answer, migration included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import trio

from tests.e2e.processes import KEY, Files, Running, start_daemon, write_files
from tests.supervisor.nodes import Load, ask, serving, under_load
from tests.upgrade.versions import BEFORE_THE_MOVE, has_commit, install
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key
from wazuh_comms_trio.testing import AgentClient
from wazuh_comms_trio.testing.certificates import throwaway_certificate

WORKERS = 3
#: Agents that send all along, on each node.
SENDERS = 4
#: Run by the earlier version, with its own stores.
FILL = """
import sys, trio
from uuid import UUID
from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.backends.base import Agent, DocumentOperation
from wazuh_comms_trio.config.load import load_config

async def main(config, agents, documents, key_hash):
    async with open_backends(load_config(config).config) as backends:
        ids = [str(UUID(int=number + 1)) for number in range(agents)]
        for start in range(0, agents, 200):
            async with trio.open_nursery() as nursery:
                for number in range(start, min(start + 200, agents)):
                    nursery.start_soon(backends.agents.add, Agent(ids[number], f"agent-{number}", key_hash))
        body = b'{"agent":{"id":"%s"},"package":{"name":"zlib1g","version":"1:1.3","architecture":"amd64"}}'
        for start in range(0, documents, 2000):
            operations = []
            for number in range(start, min(start + 2000, documents)):
                uuid = ids[number % agents]
                document = body % uuid.encode()
                name = f"{uuid}_{number}"
                operations.append(DocumentOperation("create", "wazuh-states-inventory-packages", name, document))
            await backends.events.bulk(operations)

trio.run(main, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
"""


async def measure(folder: Path, agents: int, documents: int) -> list[dict[str, Any]]:
    site = folder / "site"
    site.mkdir()
    certificate = throwaway_certificate()
    files = write_files(folder, certificate.cert, certificate.key, workers=WORKERS)
    environment = install(site, commit=BEFORE_THE_MOVE)
    began = time.perf_counter()
    await fill(files, environment, agents, documents)
    size = sum(file.stat().st_size for file in files.state.rglob("*") if file.is_file())
    rows: list[dict[str, Any]] = [
        {"step": "made", "seconds": round(time.perf_counter() - began, 1), "megabytes": round(size / 1e6)}
    ]
    rows.append({"step": "start, earlier version", "open_s": await opening(files, environment)})
    async with start_daemon(files, environment=environment, limit=1200) as daemon:
        await serving(files, WORKERS)
        async with under_load(daemon, senders(daemon)) as load:
            usual = await longest_pause(load, 5)
            for generation, step, commit in ((2, "to this version", None), (3, "back", BEFORE_THE_MOVE)):
                install(site, commit=commit)
                costs = await reload(files, load, generation)
                rows.append({"step": f"reload, {step}", "usual_pause_s": usual, **costs})
        rows.append({"step": "requests", "answered": load.requests, "failed": len(load.failed)})
    for step, commit in (("this version", None), ("earlier version again", BEFORE_THE_MOVE)):
        rows.append({"step": f"start, {step}", "open_s": await opening(files, install(site, commit=commit))})
    return rows


async def fill(files: Files, environment: dict[str, str], agents: int, documents: int) -> None:
    """By the earlier version's stores alone: opened by this tree's, the state would be migrated already."""
    values = [str(files.config), str(agents), str(documents), hash_key(KEY)]
    await trio.run_process([sys.executable, "-P", "-c", FILL, *values], env={**environment, "PATH": "/usr/bin:/bin"})


def senders(daemon: Running, first: int = 0) -> list[AgentClient]:
    """Four of the agents that ``fill`` enrolled."""
    return [daemon.client(str(UUID(int=number + 1)), KEY) for number in range(first, first + SENDERS)]


async def opening(files: Files, environment: dict[str, str]) -> float:
    began = time.perf_counter()
    async with start_daemon(files, environment=environment, limit=1200) as daemon:
        took = time.perf_counter() - began
        assert (await ask(files, "GET", "/api/v1/status")).status == 200
        assert daemon.port
    return round(took, 2)


async def longest_pause(load: Load, seconds: float, until: Callable[[], bool] = lambda: False) -> float:
    """In which nothing was answered; looked at every 2 ms."""
    worst, answered, since = 0.0, load.requests, time.perf_counter()
    end = since + seconds
    while time.perf_counter() < end and not until():
        await trio.sleep(0.002)
        now = time.perf_counter()
        worst = max(worst, now - since)
        if load.requests != answered:
            answered, since = load.requests, now
    return round(worst, 3)


async def reload(files: Files, load: Load, generation: int, workers: int = WORKERS) -> dict[str, float]:
    done: list[float] = []

    async def ask_for_it() -> None:
        began = time.perf_counter()
        reply = (await ask(files, "POST", "/api/v1/reload")).json()
        assert reply["reloaded"], reply
        done.append(time.perf_counter() - began)
        await serving(files, workers, generation=generation)
        done.append(time.perf_counter() - began)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_for_it)
        pause = await longest_pause(load, 600, lambda: len(done) == 2)
    return {"reload_s": round(done[0], 2), "old_workers_gone_s": round(done[1], 2), "pause_s": pause}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench upgrade", description="An upgrade of a large state, and back.")
    parser.add_argument("--cluster", action="store_true", help="three nodes on one OpenSearch")
    parser.add_argument("--agents", type=int, default=5000)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not has_commit(BEFORE_THE_MOVE):
        print("this checkout's repository lacks the earlier commit", file=sys.stderr)
        return 1
    if arguments.agents < 3 * SENDERS:
        parser.error(f"at least {3 * SENDERS} agents")
    of = measure
    if arguments.cluster:  # which imports this module
        from bench.upgrade_cluster import measure_cluster as of
    with tempfile.TemporaryDirectory() as folder:
        rows = trio.run(of, Path(folder), arguments.agents, arguments.documents)
    for row in rows:
        print(json.dumps(row) if arguments.json else "  ".join(f"{name} {value}" for name, value in row.items()))
    failed = sum(int(row.get("failed", 0)) for row in rows)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(f"scripts/bench upgrade: {error}")
