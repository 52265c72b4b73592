"""What an agent's bodies may be like, on a real OpenSearch: flaws, lost databases, refusals, names with dots."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Certificates
from tests.e2e.processes import start_daemon, tool
from tests.engine.fake import fake_engine
from tests.indexer.daemons import wazuh_files
from tests.indexer.harness import call
from wazuh_comms_trio.testing import stateful_event

pytestmark = [pytest.mark.indexer, pytest.mark.processes, pytest.mark.real_clock]

FIM = "wazuh-states-fim"


async def test_flaws_and_what_follows_them(tmp_path: Path, certificates: Certificates, port: int) -> None:
    files = wazuh_files(tmp_path, certificates, [port])
    async with fake_engine(tmp_path), start_daemon(files) as daemon:
        agent, other = await daemon.add_agent("a1"), await daemon.add_agent("a2")
        assert (await agent.authenticate()).status == 200

        async def post(*events: bytes) -> list[int]:
            reply = await agent.post_stateful(list(events))
            assert reply.status == 200
            return [result["status"] for result in reply.json()["results"]]

        def stored(document_id: str) -> object:
            found = call(port, "GET", f"/{FIM}/_doc/{agent.uuid}_{document_id}")
            return {name: value for name, value in found["_source"].items() if name != "agent"}

        # Its database is lost: creates over what is there, updates of what isn't, and what follows on these.
        old = {"process": {"pid": 1}, "old": 1}
        assert await post(stateful_event("p", "fim", "create", old)) == [201]
        again = [
            stateful_event("p", "fim", "create", {"process": {"pid": 2}}),
            stateful_event("p", "fim", "update", {"process": {"name": "new"}}),
            stateful_event("q", "fim", "update", {"n": 1}),
        ]
        assert await post(*again) == [200, 200, 201]
        assert stored("p") == {"process": {"pid": 2, "name": "new"}}
        assert await post(*again) == [200, 200, 200]
        assert (stored("p"), stored("q")) == ({"process": {"pid": 2, "name": "new"}}, {"n": 1})

        # A blank line, a header without data, lines without a header.
        bare = b'{"id":"bare","module":"fim","operation":"create"}\n'
        assert await post(b" \n", bare, bare, b"\r\n", stateful_event("b", "fim", "create", {"n": 1})) == [
            201,
            200,
            201,
        ]
        assert stored("bare") == {}
        assert await post(b"stray\n{}\n", stateful_event("c", "fim", "create", {"n": 1})) == [400, 201]

        # A name that reaches into the agent by dots: a search finds nothing under another agent.
        dotted = {"agent.id": other.uuid, "agent.host.os.name": "x", "n": 7}
        assert await post(stateful_event("dots", "fim", "create", dotted)) == [201]
        call(port, "POST", f"/{FIM}/_refresh")
        query = {"query": {"term": {"agent.id.keyword": other.uuid}}}
        hits = call(port, "POST", f"/{FIM}/_search", query)["hits"]["hits"]
        assert hits == []

        # Six refusals: each says why.
        bad = ['{"":1}', '{".":1}', '{"a..b":1}', '{"file":{"a":1,"a":2}}', '{"n":' + "1" * 1100 + "}"]
        bad.append('{"a":' * 30 + "1" + "}" * 30)
        header = '{{"id":"bad{}","module":"fim","operation":"create"}}\n{}\n'
        statuses = await post(*(header.format(number, data).encode() for number, data in enumerate(bad)))
        entries = await tool(files, "quarantine", "list", "--json")
        listed = json.loads(entries) if isinstance(entries, str) else entries
        reasons = [entry["reason"] for entry in listed if entry["document"]]
        assert len(reasons) == statuses.count(400)
        assert len(set(reasons)) == len(reasons)
        assert not [reason for reason in reasons if reason == "failed to parse"]
