"""What the tests of the whole daemon in memory (``open_daemon``) share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from wazuh_comms_trio.testing import AgentClient, Reply


async def logged_in(daemon: Any, **options: Any) -> AgentClient:
    """An agent of a ``Daemon`` of ``testing.node``."""
    agent: AgentClient = await daemon.enrol_agent(**options)
    assert (await agent.authenticate()).status == 200
    return agent


async def timed(call: Callable[[], Awaitable[Reply]]) -> tuple[Reply, float]:
    """A reply, and how many seconds it took on trio's clock."""
    began = trio.current_time()
    return await call(), trio.current_time() - began


def command(agent: AgentClient, document_id: str = "c1", **more: Any) -> dict[str, Any]:
    """A command as it is posted to the command socket."""
    target = {"type": "agent", "id": agent.uuid}
    return {"document_id": document_id, "target": target, "action": {"name": "restart"}, "timeout": 600, **more}
