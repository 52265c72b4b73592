"""Agents by their uuid, or by a name that one of them has."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

from wazuh_comms_trio.cli.arguments import is_uuid
from wazuh_comms_trio.cli.program import Failure
from wazuh_comms_trio.foundation.journal import printable

if TYPE_CHECKING:
    from wazuh_comms_trio.backends.interfaces import AgentRegistry, Target

#: Uuids named in one sentence.
_NAMED: Final = 10
#: Seconds that a table waits for the names of its agents.
_NAMES_TIMEOUT: Final = 5.0


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


def is_label(name: str) -> bool:
    """Whether a name that no other agent has is a label: nobody takes it for a uuid or, by the blanks in it, for
    another agent's name or for several columns."""
    return bool(name) and name == " ".join(name.split()) and not is_uuid(name)


class AgentLabels:
    """What agents are called in tables: by their name, or by their uuid where another agent has the same name, where a
    name is no label, or where names can't be read, which costs nothing else. Without a ``registry`` by their uuid."""

    def __init__(self, registry: AgentRegistry | None) -> None:
        self._registry = registry

    async def of(self, agent_ids: Iterable[str]) -> Mapping[str, str]:
        """A label for each of these agents, by id as it is given."""
        ids = list(dict.fromkeys(agent_ids))
        return {agent_id: agent_id for agent_id in ids} | dict(await self._names(ids))

    async def of_target(self, target: Target) -> str:
        """A label for whom a command is for; a group's is its name."""
        return (await self.of([target.id]))[target.id] if target.type == "agent" else target.id

    async def _names(self, ids: Sequence[str]) -> Mapping[str, str]:
        import trio

        from wazuh_comms_trio.errors import BackendUnavailable

        if not ids or self._registry is None:
            return {}
        try:
            with trio.fail_after(_NAMES_TIMEOUT):
                names = await self._registry.unique_names(ids)
        except (BackendUnavailable, trio.TooSlowError):
            self._registry = None
            return {}
        return {agent_id: name for agent_id, name in names.items() if is_label(name)}


@asynccontextmanager
async def open_labels(arguments: Namespace) -> AsyncIterator[AgentLabels]:
    """Labels from a registry that isn't open yet, and may not be there: then uuids."""
    from wazuh_comms_trio.cli.stores import open_stores
    from wazuh_comms_trio.errors import CommsError

    labels = AgentLabels(None)
    async with AsyncExitStack() as stack:
        try:
            stores = await stack.enter_async_context(open_stores(arguments))
            labels = AgentLabels(stores.backends.agents)
        except* (CommsError, OSError, Failure):
            pass
        yield labels


def several(ids: list[str]) -> str:
    """Agents in words: named up to a point, and counted."""
    rest = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return printable(", ".join(ids[:_NAMED]) + rest)
