"""The orders in which agents are listed. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol, TypeVar

__all__ = ["AgentOrder", "in_order"]

AgentOrder = Literal["name", "uuid"]


class _Listed(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...


_Agent = TypeVar("_Agent", bound=_Listed)


def in_order(agents: Iterable[_Agent], order: AgentOrder, *, reverse: bool = False) -> list[_Agent]:
    """Sorts agents by name or id. Equal names by id, also in ``reverse``."""
    by_id = sorted(agents, key=lambda agent: agent.id, reverse=reverse and order == "uuid")
    return by_id if order == "uuid" else sorted(by_id, key=lambda agent: agent.name, reverse=reverse)
