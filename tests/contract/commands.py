"""Commands as the contract of ``CommandStore`` uses them."""

from collections.abc import Collection
from typing import Any

from tests.contract.harness import A1
from wazuh_comms_trio.backends.interfaces import Action, Backends, Command, Target


def command(document_id: str, agent_id: str = A1, **more: Any) -> Command:
    return Command(document_id, Target("agent", agent_id), Action("restart"), **more)


async def get(backends: Backends, document_id: str) -> Command:
    found = await backends.commands.get(document_id)
    assert found is not None
    return found


async def deliver(backends: Backends, *document_ids: str, agent_id: str = A1) -> None:
    await backends.commands.add([command(document_id, agent_id) for document_id in document_ids])
    claimed = await backends.commands.claim([agent_id])
    await backends.commands.mark_sent([c.document_id for c in claimed])


def ids(commands: Collection[Command]) -> list[str]:
    return [c.document_id for c in commands]
