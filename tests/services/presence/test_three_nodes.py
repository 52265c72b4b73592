"""What three nodes on one indexer heard of an agent, as any of them can be asked."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from tests.indexer.bench import fake, stores_of
from wazuh_comms_trio.backends.leadership import Leadership
from wazuh_comms_trio.backends.local_node import LocalNode
from wazuh_comms_trio.backends.opensearch.agents.last_seen import OpenSearchPresence
from wazuh_comms_trio.backends.opensearch.index_names import IndexName
from wazuh_comms_trio.backends.presence import Heard, LastSeen
from wazuh_comms_trio.cli.agents.nodes import all_news
from wazuh_comms_trio.config.backend_models import IndexerNames
from wazuh_comms_trio.services.agent_journal import AgentJournal
from wazuh_comms_trio.services.presence.recorder import GATHER, INTERVAL, PresenceRecorder

NOW = 1_750_000_000.0
A1 = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1"


def wall_clock() -> float:
    return NOW + trio.current_time()


async def test_each_node_knows_what_all_heard_within_a_minute(autojump_clock: MockClock) -> None:
    async with fake() as indexer, stores_of(indexer) as stores, trio.open_nursery() as nursery:
        journals = []
        for number in (1, 2, 3):
            registry = IndexName(stores.client, "agents", IndexerNames())
            node = LocalNode(f"id{number}", f"n{number}", "")
            store = OpenSearchPresence(stores.client, registry, node, wall_clock)
            journals.append(AgentJournal(wall_clock))
            recorder = PresenceRecorder(journals[-1], store, Leadership(), after=1200, wall_clock=wall_clock)
            nursery.start_soon(recorder.run)
        journals[0].heard(A1, "login", "10.0.0.1")
        await trio.sleep(1)
        journals[1].heard(A1, "stateful", "10.0.0.2")
        await trio.sleep(1)
        journals[2].refused(A1, "login", "10.0.0.3", "wrong_key")
        await trio.sleep(INTERVAL + GATHER + 1)
        assert trio.current_time() < 60
        stored = await stores.presence.about(A1)
        seen, nodes = all_news(None, stored, "id1")
        assert nodes == ["n2", "n3"]
        login, stateful = seen["channels"]["login"], seen["channels"]["stateful"]
        assert login["success"] == {"at": NOW, "address": "10.0.0.1"}
        assert login["refusal"] == {"at": NOW + 2, "address": "10.0.0.3", "cause": "wrong_key", "node": "n3"}
        assert stateful["success"] == {"at": NOW + 1, "address": "10.0.0.2", "node": "n2"}
        nursery.cancel_scope.cancel()


async def test_what_a_node_writes_late_makes_nobody_silent(autojump_clock: MockClock) -> None:
    """It couldn't for a while, and what it heard then is older than what another one wrote."""
    async with fake() as indexer, stores_of(indexer) as stores:
        registry = IndexName(stores.client, "agents", IndexerNames())
        nodes = [LocalNode(name, name, "") for name in ("n1", "n2")]
        first, late = (OpenSearchPresence(stores.client, registry, node, wall_clock) for node in nodes)
        await first.record([Heard(A1, NOW, NOW - 5)])
        await late.record([Heard(A1, NOW - 5000, NOW - 5000)])
        await trio.sleep(2)
        assert (await first.last_seen())[A1] == LastSeen(NOW, NOW - 5, "n1")
        assert await first.last_seen(before=NOW - 1200) == {}
        assert await first.last_seen(sent_before=NOW - 1200) == {}
        assert (await first.last_seen(before=NOW + 1, sent_before=NOW)).keys() == {A1}
