"""An upgrade of three nodes that share an OpenSearch: each in its turn from the earlier version to this tree, and back.

The earlier version makes its indices and fills them. Each node is a daemon of two workers with an installation of its
own; four agents send to each all along. Of each node's reload the longest time is told in which *that node* answered
nothing.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bench.upgrade import SENDERS, fill, longest_pause, reload, senders
from tests.conftest import Certificates
from tests.e2e.processes import Files, Running, start_daemon
from tests.engine.fake import fake_engine
from tests.indexer.cluster import nodes
from tests.indexer.daemons import wazuh_files
from tests.indexer.harness import call
from tests.supervisor.nodes import Load, serving, under_load
from tests.upgrade.versions import BEFORE_THE_MOVE, install
from wazuh_comms_trio.testing.certificates import throwaway_certificate

NODES = 3
WORKERS = 2
INDEX = "wazuh-states-inventory-packages"


def count(port: int, index: str) -> int:
    call(port, "POST", f"/{index}/_refresh")
    return int(call(port, "GET", f"/{index}/_count")["count"])


async def measure_cluster(folder: Path, agents: int, documents: int) -> list[dict[str, Any]]:
    with nodes(1, heap="1g") as (opensearch,):
        return await _measure(folder, opensearch.port, agents, documents)


async def _measure(folder: Path, port: int, agents: int, documents: int) -> list[dict[str, Any]]:
    own = throwaway_certificate()
    certificates = Certificates(own.cert, own.cert, own.key, own.cert, own.key, own.cert)
    token = {"private_key": str(own.key)}  # the nodes' common one
    all_files: list[Files] = []
    sites: list[Path] = []
    async with AsyncExitStack() as stack:
        for number in range(NODES):
            site = folder / f"site-{number}"
            site.mkdir()
            sites.append(site)
            files = wazuh_files(folder / f"node-{number}", certificates, [port], workers=WORKERS, token=token)
            await stack.enter_async_context(fake_engine(files.folder))
            all_files.append(files)
        environments = [install(site, commit=BEFORE_THE_MOVE) for site in sites]
        began = time.perf_counter()
        await fill(all_files[0], environments[0], agents, documents)
        filled = count(port, INDEX)
        rows: list[dict[str, Any]] = [
            {"step": "made", "seconds": round(time.perf_counter() - began, 1), "documents": filled}
        ]
        daemons: list[Running] = []
        for files, environment in zip(all_files, environments, strict=True):
            starting = start_daemon(files, environment=environment, limit=1200)
            daemons.append(await stack.enter_async_context(starting))
            await serving(files, WORKERS)
        loads: list[Load] = []
        async with AsyncExitStack() as working:
            for number, daemon in enumerate(daemons):
                clients = senders(daemon, SENDERS * number)
                loads.append(await working.enter_async_context(under_load(daemon, clients)))
            usual = await longest_pause(loads[0], 5)
            for generation, step, commit in ((2, "to this version", None), (3, "back", BEFORE_THE_MOVE)):
                for number, (files, site, load) in enumerate(zip(all_files, sites, loads, strict=True), 1):
                    install(site, commit=commit)
                    costs = await reload(files, load, generation, WORKERS)
                    rows.append({"step": f"node {number}, {step}", "usual_pause_s": usual, **costs})
        for number, load in enumerate(loads, 1):
            rows.append({"step": f"requests, node {number}", "answered": load.requests, "failed": len(load.failed)})
        lost = filled - count(port, INDEX)
        there = count(port, "wazuh-states-fim")
        acknowledged = {name for load in loads for name in load.acknowledged}
        rows.append({"step": "documents", "made_and_lost": lost, "acknowledged": len(acknowledged), "there": there})
        if lost or there < len(acknowledged):
            rows[-1]["failed"] = lost + len(acknowledged) - there
    return rows
