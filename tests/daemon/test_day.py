"""An agent's whole day against the whole daemon, in one process and no time."""

from __future__ import annotations

import json

from trio.testing import MockClock

from wazuh_comms_trio.backends.memory.stores import memory_backends
from wazuh_comms_trio.testing.agent.client import stateful_event, stateless_event
from wazuh_comms_trio.testing.node.daemon import open_daemon


async def test_authentication_events_files_and_the_root(autojump_clock: MockClock) -> None:
    async with open_daemon(backends=memory_backends(files={"default.conf": b"<agent_config/>"})) as daemon:
        agent = await daemon.enrol_agent(groups=["web"])
        assert (await agent.alive()).status == 200
        assert (await agent.authenticate()).status == 200

        assert (await agent.post_stateless([stateless_event("logcollector", "file", {"n": 1})])).status == 204
        (body,) = daemon.backends.engine.bodies
        assert body.body.endswith(b'{"n":1}\n')

        reply = await agent.post_stateful([stateful_event("a1", "fim", "create", {"file": {"path": "/etc/passwd"}})])
        assert reply.json() == {
            "results": [{"index": "wazuh-states-fim", "id": "a1", "result": "created", "status": 201}]
        }
        stored = await daemon.backends.events.get("wazuh-states-fim", f"{agent.uuid}_a1")
        assert json.loads(stored)["file"] == {"path": "/etc/passwd"}

        assert (await agent.get_file("default.conf")).body == b"<agent_config/>"
