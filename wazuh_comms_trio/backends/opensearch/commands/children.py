"""A group's command and the commands that it became, found again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Final

from wazuh_comms_trio.backends import command_rules as rules
from wazuh_comms_trio.backends.opensearch.client.queries import Query, every, exactly, nothing_of
from wazuh_comms_trio.backends.opensearch.commands import documents
from wazuh_comms_trio.backends.opensearch.commands.documents import Document
from wazuh_comms_trio.backends.opensearch.commands.index import CommandIndex, Place

_LARGEST_PAGE: Final = 10_000  # index.max_result_window
_ANYTHING: Final[Query] = {"match_all": {}}


class Children:
    """Finds the children of groups' commands: a child has its parent's order id, and an id that is made of its parent's
    and its agent's. ``members`` gives a group's agents: where a parent has no order id, its children are looked for by
    their ids."""

    def __init__(self, index: CommandIndex, members: Callable[[str], Awaitable[Iterable[str]]]) -> None:
        self._index = index
        self._members = members

    async def of(self, parents: Collection[str]) -> list[Document]:
        """The children that exist and can be read. Raises ``BackendUnavailable``."""
        found = await self._index.read(list(dict.fromkeys(parents)))
        groups = {i: document.command for i, document in found.items() if document.command.target.type == "group"}
        orders = {command.order_id for command in groups.values() if command.order_id}
        children: list[Document] = []
        place: Place | None = None
        query = every(documents.AGENTS, exactly("command.order_id", sorted(orders)))
        while orders:
            page, _, place = await self._index.page(query, _LARGEST_PAGE, place)
            children += [document for document in page if rules.parent_id(document.command) in groups]
            if place is None:
                break
        for document_id, command in groups.items():
            if not command.order_id:
                ids = [rules.child_id(document_id, agent) for agent in await self._members(command.target.id)]
                children += (await self._index.read(ids)).values()
        return children

    async def left_out(self) -> Query:
        """A query's clause that leaves out children: what is of a group's order and for an agent. Raises
        ``BackendUnavailable``."""
        groups = await self._index.search(documents.GROUPS, order="desc", size=_LARGEST_PAGE)
        orders = {command.order_id for command in (group.command for group in groups) if command.order_id}
        if not orders:
            return _ANYTHING
        return nothing_of(_ANYTHING, every(documents.AGENTS, exactly("command.order_id", sorted(orders))))
