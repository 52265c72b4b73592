"""A small embedded store with a little of everything, and all that can be read of one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from tests.contract.harness import A1, A2, INDEX, embedded_config
from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.backends.interfaces import Action, Agent, Command, CommandReport, CommandResult, Target
from wazuh_comms_trio.backends.interfaces import DocumentOperation as Operation
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.quarantine.interface import Rejected
from wazuh_comms_trio.quarantine.opening import open_quarantine

LARGE = b"x" * 300_000


async def pieces(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


async def make_store(folder: Path, *, large: bytes = LARGE) -> Config:
    """Its daemon has ended in order."""
    made = embedded_config(folder)
    async with open_backends(made) as backends, open_quarantine(made) as quarantine:
        for number in range(4):
            async with aclosing(pieces(b'{"n":%d}\n' % number)) as body:
                await backends.engine.send_events(body, agent_id=A1, length=None)
            await backends.events.bulk([Operation("create", INDEX, f"d{number}", b'{"n":%d}' % number)])
        await backends.agents.add(Agent(A1, "one", key_hash="hash", groups=("web",)))
        await backends.agents.set_groups(A1, ["web", "db"])
        await backends.agents.add(Agent(A2, "two", key_hash="hash"))
        await backends.agents.rekey(A2, "another hash")
        await backends.commands.add([Command("c1", Target("group", "web"), Action("restart"))])
        await backends.commands.report([CommandReport(A1, f"c1_{A1}", CommandResult(0, "done"))])
        await quarantine.add([Rejected(A1, "stateful", "why", b"{}", b"{}\nnonsense")])
        await quarantine.add([Rejected(A2, "stateless", "why", b"", large)])
    return made


def state(config: Config) -> Path:
    return config.communications_api.embedded.path
