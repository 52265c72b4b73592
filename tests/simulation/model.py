"""What ought to be: an agent's documents as its operations in order make them, and the life of each command. Written
from docs/guarantees.md, not from the code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from math import inf
from typing import Any, Final

from attrs import define, field

__all__ = ["CommandLife", "DocumentModel", "Operation"]

Key = tuple[str, str]
INDEX_OF: Final = {
    "fim": "wazuh-states-fim",
    "sca": "wazuh-states-sca",
    "vulnerability": "wazuh-states-vulnerabilities",
    "inventory": "wazuh-states-inventory-packages",
}


@define(eq=False)
class Operation:
    """One stateful event of an agent. ``poison``: the index refuses it for good, or until it
    heals."""

    module: str
    id: str
    action: str
    data: Mapping[str, Any] | None
    poison: bool = False
    acknowledged: bool = False

    @property
    def key(self) -> Key:
        return INDEX_OF[self.module], self.id


def merged(current: Mapping[str, Any], partial: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(current)
    for name, value in partial.items():
        old = result.get(name)
        result[name] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


@lru_cache(1000)
def _read(body: bytes) -> tuple[str | None, dict[str, Any]]:
    """Whose document it is, and the rest."""
    document = json.loads(body)
    return document.pop("agent", {}).get("id"), document


@define
class _AtOnce:
    bodies: Sequence[Mapping[Key, Mapping[str, Any]]]
    whole: bool


class DocumentModel:
    """One agent's documents. ``apply`` is called for each operation in the order it was made; what the index has to
    hold is known for every document without an operation that isn't acknowledged yet."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.documents: dict[Key, dict[str, Any]] = {}
        self.open: dict[Key, int] = {}
        self.refused: list[Operation] = []
        #: What documents may be besides since an event was taken on them: of those that were refused the index may take
        #: some later, at once or by a replay, and after it none that came before.
        self.replayable: dict[Key, list[Mapping[str, Any]]] = {}
        #: Whose, and what the index held, when that was as it has to be: until an operation is made or acknowledged.
        self._right: tuple[str, Mapping[Key, bytes]] | None = None
        self._at_once: dict[str, _AtOnce] = {}  # by module

    def apply(self, operation: Operation) -> None:
        self._right = None
        self.operations.append(operation)
        key = operation.key
        self.open[key] = self.open.get(key, 0) + 1
        if operation.poison:
            self.refused.append(operation)
            self.replayable.setdefault(key, []).append(operation.data or {})
            return
        self.replayable.pop(key, None)
        if operation.action == "delete":
            self.documents.pop(key, None)
        elif operation.action == "create":
            self.documents[key] = dict(operation.data or {})
        else:
            self.documents[key] = merged(self.documents.get(key, {}), operation.data or {})

    def at_once(self, bodies: Sequence[Sequence[Operation]], *, whole: bool) -> None:
        """Of bodies that were sent at once, each with the same documents, nobody knows yet which was the last; each
        is the last as a whole (``whole``), or of each document any may be."""
        of_bodies = [{each.key: dict(each.data or {}) for each in body} for body in bodies]
        self._at_once[bodies[0][0].module] = _AtOnce(of_bodies, whole)

    def _settle(self, held: Mapping[Key, bytes]) -> Iterator[str]:
        """Once all of them are acknowledged it is seen which was the last."""
        for module, sent in list(self._at_once.items()):
            if any(self.open.get(key) for key in sent.bodies[0]):
                continue
            there = {key: _read(held[key])[1] for key in sent.bodies[0] if key in held}
            del self._at_once[module]
            if sent.whole and there not in sent.bodies:
                yield f"of bodies that came at once none was the last: there is {there}"
            if strange := [key for key, value in there.items() if all(value != body[key] for body in sent.bodies)]:
                yield f"{strange} are of none of the bodies that came at once: there is {there}"
            self.documents |= there

    def acknowledge(self, operation: Operation) -> None:
        if not operation.acknowledged:
            self._right = None
            operation.acknowledged = True
            self.open[operation.key] -= 1

    def differences(self, held: Mapping[Key, bytes], uuid: str) -> list[str]:
        """Where the index (this agent's documents by their own ids) isn't what it has to be now. ``held`` doesn't
        change later."""
        if self._right == (uuid, held):
            return []
        found = list(self._settle(held))
        for key in {*self.documents, *held}:
            if self.open.get(key):
                continue
            wanted, body = self.documents.get(key), held.get(key)
            if body is None:
                if wanted is not None:
                    found.append(f"{key} is missing")
                continue
            owner, document = _read(body)
            if owner != uuid or not (document == wanted or self._was_replayed(key, document)):
                found.append(f"{key} is {document} of {owner}, not {wanted}")
        self._right = None if found else (uuid, held)
        return found

    def _was_replayed(self, key: Key, document: Mapping[str, Any]) -> bool:
        """Whether it is what the index may have made of a refused event; then it makes nothing of earlier ones."""
        refused = self.replayable.get(key, [])
        if document not in refused:
            return False
        del refused[: refused.index(document)]
        return True


#: What an agent may report of a command besides success (0) and failure (1).
IN_PROGRESS: Final = 2
OTHER_FAILURES: Final = (3, 4)


@define(eq=False)
class CommandLife:
    """A command for one agent, as seen from both ends. ``posted``: by a local program, whether or not a store keeps it.
    ``excused``: it may be delivered twice, ``given_up``: it needn't be delivered, ``stolen``: who has it is no agent,
    and won't report on it. ``cancelled``: so the operator was told.
    ``came_whole``: on a connection without a fault."""

    document_id: str
    agent: str
    posted: bool
    made: float
    timeout: float
    received: list[float] = field(factory=list)
    listed: bool = False
    excused: bool = False
    #: Which of those commands for its agent that were sent in an order; 0: of no such. ``too_large``: for any reply.
    number: int = 0
    too_large: bool = False
    ended: bool = False  # seen so in the store: failed without having come
    given_up: bool = False
    cancelled: bool = False
    came_whole: bool = False
    #: Since when nothing of its group's command comes any more but what was being handed over.
    group_cancelled: float = inf
    stolen: bool = False
    #: When the call ended by which it was posted last; infinite while one waits.
    posted_until: float = inf
    #: Since when the store has it, as its sender knows.
    added: float = inf
    #: What the agent reported first, once that is acknowledged.
    first_final: int | None = None
    #: By client, the first one that it had begun to post until then: a clone's may have come before.
    begun_finals: dict[str, int] = field(factory=dict)
