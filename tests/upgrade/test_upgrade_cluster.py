"""Two versions side by side on one real OpenSearch, each on a node of its own."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.conftest import Certificates
from tests.e2e.processes import Running, start_daemon, tool
from tests.engine.fake import fake_engine
from tests.indexer.cluster import shared_node
from tests.indexer.daemons import wazuh_files
from tests.indexer.harness import call, wipe
from tests.supervisor.nodes import parked, serving, status
from tests.upgrade.versions import install
from wazuh_comms_trio.testing import AgentClient, stateful_event

pytestmark = [pytest.mark.indexer, pytest.mark.processes, pytest.mark.real_clock]


async def tool_of(environment: Mapping[str, str], daemon: Running, *arguments: str) -> Any:
    """The operator's tool of one of the versions."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return await tool(daemon.files, *arguments)


async def test_two_versions_on_one_cluster(tmp_path: Path, certificates: Certificates) -> None:
    port = shared_node().port
    wipe(port)
    sites = [tmp_path / "a site", tmp_path / "another"]
    for site in sites:
        site.mkdir()
    environments = [install(sites[0]), install(sites[1], later=True)]
    token = {"private_key": str(certificates.client_key)}  # the nodes' common one
    async with AsyncExitStack() as stack:
        daemons = []
        for name, environment in zip(("earlier", "later"), environments, strict=True):
            files = wazuh_files(tmp_path / name, certificates, [port], workers=2, token=token)
            await stack.enter_async_context(fake_engine(files.folder))
            daemons.append(await stack.enter_async_context(start_daemon(files, environment=environment)))
            await serving(files, 2)
        later = [[worker.get("later", False) for worker in (await status(d.files))["workers"]] for d in daemons]
        assert later == [[False, False], [True, True]]
        # One enrolled by each version's tool; each logs in at one, and takes its commands at the other.
        agents: list[list[AgentClient]] = [[], []]
        for number, environment in enumerate(environments):
            made = await tool_of(environment, daemons[number], "agents", "add", f"a{number}", "--group", "web")
            here = daemons[0].client(made["uuid"], made["key"])
            there = daemons[1].client(made["uuid"], made["key"])
            assert (await here.authenticate()).status == 200
            there.token = here.token
            agents[0].append(here)
            agents[1].append(there)
        for sender, polled in ((0, 1), (1, 0)):  # written to the indexer by one version, delivered by the other
            clients = agents[polled]
            got: list[list[str]] = [[], []]

            async def poll(client: AgentClient, got: list[str]) -> None:
                reply = await client.poll()
                got.extend(command["document_id"] for command in reply.json()["commands"])

            with trio.fail_after(30):
                async with trio.open_nursery() as nursery:
                    for client, ids in zip(clients, got, strict=True):
                        nursery.start_soon(poll, client, ids)
                    await parked(daemons[polled].files, 2)
                    await tool_of(
                        environments[sender], daemons[sender], "commands", "send", "--group", "web", "restart"
                    )
            assert [len(ids) for ids in got] == [1, 1]
            for client, ids in zip(agents[sender], got, strict=True):
                assert (await client.report(ids[0], 200)).status == 200
        for clients in agents:
            event = stateful_event("same", "fim", "create", {"n": 1})
            assert [(await client.post_stateful([event])).status for client in clients] == [200, 200]
        # What the later one wrote is there still, whoever changed the document.
        call(port, "POST", "/_refresh")
        found = call(port, "POST", "/*,.*/_search?expand_wildcards=all", {"query": {"exists": {"field": "later"}}})
        words = {hit["_id"]: hit["_source"] for hit in found["hits"]["hits"]}
        assert words
        assert all(source["later"] == {"n": 1} for source in words.values())
