"""Agents by their uuid, or by a name that one of them has."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Final

from wazuh_comms_trio.cli.arguments import is_uuid
from wazuh_comms_trio.cli.program import Failure, printable

if TYPE_CHECKING:
    from wazuh_comms_trio.backends.interfaces import AgentRegistry

#: Uuids named in one sentence.
_NAMED: Final = 10


async def agent_id_of(registry: AgentRegistry, word: str) -> str:
    """The id of the agent that an operator names by its uuid or name. A uuid is taken as it is, whether there is such
    an agent or not. Raises ``Failure``: nobody has this name, or several do."""
    if is_uuid(word):
        return word.lower()
    found = list(await registry.named(word))
    if len(found) == 1:
        return found[0]
    if not found:
        raise Failure(f"there is no agent of the name {word}")
    raise Failure(f"{len(found)} agents have the name {word}: {several(found)}; say which by its uuid")


async def agent_option(arguments: Namespace) -> str | None:
    """The id that ``--agent`` means; None where it isn't given. Only a name needs the registry, which may be away.
    Raises ``Failure``."""
    from wazuh_comms_trio.cli.stores import open_stores

    word: str | None = arguments.agent
    if word is None or is_uuid(word):
        return None if word is None else word.lower()
    async with open_stores(arguments) as stores:
        return await agent_id_of(stores.backends.agents, word)


def several(ids: list[str]) -> str:
    """Agents in words: named up to a point, and counted."""
    rest = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return printable(", ".join(ids[:_NAMED]) + rest)
