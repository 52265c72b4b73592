"""Limits that aren't configured. A run has some of them small, so that what happens beyond them does happen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from types import ModuleType
from typing import Final

from wazuh_comms_trio.backends import command_rules
from wazuh_comms_trio.backends.embedded import documents
from wazuh_comms_trio.backends.embedded.database import group_commit
from wazuh_comms_trio.backends.embedded.ndjson import engine
from wazuh_comms_trio.services.commands import deliveries, lookup_queue
from wazuh_comms_trio.services.stateful import events

__all__ = ["choose_limits", "set_limits"]

_SMALL: Final[Sequence[tuple[ModuleType, str, Sequence[int]]]] = (
    (events, "_SMALL_PACKET_BYTES", (200, 400)),  # a body above it is written in pieces
    (events, "_PIECE_EVENTS", (1, 2, 3)),
    (engine, "MEMORY_BYTES", (100, 350)),  # a stateless body above it is a segment of its own
    (documents, "_PART_BYTES", (150, 500)),
    (group_commit, "GROUP_JOBS", (1, 2)),
    (lookup_queue, "_AGENTS_PER_LOOKUP", (1, 2)),
    (deliveries, "_COMMANDS_PER_DELIVERY", (1, 2)),
    (command_rules, "CLAIM_LIMIT", (1, 2)),
)
_USUAL: Final = {(module, name): getattr(module, name) for module, name, _ in _SMALL}


def choose_limits(rng: Random) -> Mapping[str, int]:
    chosen = [rng.choice(values) if rng.random() < 0.3 else None for _, _, values in _SMALL]
    return {name: value for (_, name, _), value in zip(_SMALL, chosen, strict=True) if value is not None}


def set_limits(limits: Mapping[str, int]) -> None:
    """The others are what they usually are."""
    for (module, name), usual in _USUAL.items():
        setattr(module, name, limits.get(name, usual))
