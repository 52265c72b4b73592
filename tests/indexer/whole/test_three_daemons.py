"""Three daemons on one OpenSearch, of which one is killed: ``scripts/soak nodes``, small."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Certificates
from tests.indexer.cluster import shared_node
from tests.indexer.harness import wipe
from tests.indexer.three_daemons import Scale, three_nodes

pytestmark = [pytest.mark.indexer, pytest.mark.processes, pytest.mark.real_clock]


async def test_one_is_killed(tmp_path: Path, certificates: Certificates) -> None:
    """Nothing acknowledged is lost (that is asserted there), all agents are back, and each command has come."""
    port = shared_node().port
    wipe(port)
    scale = Scale(60, period=1.0, events=3, before=2.0, after=4.0, pause=1.0, documents=300, settled=0.0)
    agents, _ = await three_nodes(tmp_path, certificates, port, scale)
    assert len(agents.alive) == 2
    assert {agents.homes[number] for number in range(60)} == {0, 1}
    assert len(agents.acknowledged) > 300
    assert {uuid for _, uuid in agents.commands} == {agent.uuid for agent in agents.agents}
    assert len(agents.commands) == 120
    assert max(agents.commands.values()) <= 2
