"""The modules of an agent whose state is kept in indices of its own: one table, which everything else is made from.

A row added here is the whole change: the reader of events takes the module's header lines and writes to its index,
``wazuh-comms indexer init`` makes the index and its template, ``indexer check`` looks at it, and ``scripts/make-docs``
writes it into ``docs/indexer.md``. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final

from attrs import field, frozen

__all__ = ["STATE_INDICES", "STATE_MODULES", "STATE_PATTERN", "STATE_TEMPLATES", "StateModule", "markdown_table"]

#: What all indices of states are called: the account's rights and the probe are for these.
STATE_PATTERN: Final = "wazuh-states-*"


@frozen
class StateModule:
    """``module`` and ``collector`` are what a header line says; a module either names a collector with each event, or
    has none. ``template`` is the name of the template that ``init`` makes for ``index``."""

    module: str
    collector: str | None
    index: str = field()
    template: str = "wazuh-comms-states"

    @index.validator
    def _check_index(self, _: object, index: str) -> None:
        if not fnmatchcase(index, STATE_PATTERN):
            raise ValueError(f"the index {index} isn't one of {STATE_PATTERN}")


STATE_MODULES: Final = (
    StateModule("fim", None, "wazuh-states-fim"),
    StateModule("sca", None, "wazuh-states-sca"),
    StateModule("vulnerability", None, "wazuh-states-vulnerabilities"),
    StateModule("inventory", "hardware", "wazuh-states-inventory-hardware"),
    StateModule("inventory", "hotfixes", "wazuh-states-inventory-hotfixes"),
    StateModule("inventory", "packages", "wazuh-states-inventory-packages"),
    StateModule("inventory", "networks", "wazuh-states-inventory-networks"),
    StateModule("inventory", "system", "wazuh-states-inventory-system"),
    StateModule("inventory", "ports", "wazuh-states-inventory-ports"),
    StateModule("inventory", "processes", "wazuh-states-inventory-processes"),
)

#: Their indices, each once.
STATE_INDICES: Final = tuple(dict.fromkeys(module.index for module in STATE_MODULES))

#: Template -> the patterns of indices that it is for. The first one takes what there is no row for, too.
STATE_TEMPLATES: Final[Mapping[str, tuple[str, ...]]] = {
    "wazuh-comms-states": (STATE_PATTERN,),
    **{
        module.template: tuple(each.index for each in STATE_MODULES if each.template == module.template)
        for module in STATE_MODULES
        if module.template != "wazuh-comms-states"
    },
}


def markdown_table() -> str:
    """For ``docs/indexer.md``."""
    lines = ["| module | collector | index | template |", "|---|---|---|---|"]
    for row in STATE_MODULES:
        collector = "" if row.collector is None else f"`{row.collector}`"
        lines.append(f"| `{row.module}` | {collector} | `{row.index}` | `{row.template}` |")
    return "\n".join(lines) + "\n"
