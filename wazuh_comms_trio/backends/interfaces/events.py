"""The state index, and what is written to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Literal, Protocol

import msgspec
from attrs import frozen

__all__ = ["DocumentOperation", "EventIndex", "ItemResult", "Outcome"]


class DocumentOperation(msgspec.Struct, frozen=True, gc=False):
    """One write to the state index. ``body`` is one JSON object as UTF-8 bytes, already complete (agent metadata merged
    in): the document for ``create``, the partial document for ``update`` (objects merge deeply, other values replace),
    None for ``delete``.

    ``plain``: its maker has checked that the body is such an object, on one line, and that the id is short ASCII that
    stands in JSON as it is. No store has to look again.

    ``own``: the document is its agent's alone and follows it: a ``create`` of what exists replaces it, an ``update`` of
    what doesn't makes it.

    ``expected``: the document's version, ``absent`` for one that isn't there: the operation is applied to exactly that,
    and is 412 otherwise. Empty: to whatever is there. ``refused``: why it can never be applied: it is refused with that
    in its turn, so that its result knows what the document is then.
    """

    action: Literal["create", "update", "delete"]
    index: str
    document_id: str
    body: bytes | None = None
    plain: bool = False
    own: bool = False
    expected: str = ""
    refused: str = ""


class Outcome(StrEnum):
    DONE = "done"  # an ordinary result, 404 and 409 of a document included
    REFUSED = "refused"  # never: the document is malformed; quarantine
    PASSING = "passing"  # not now: try again
    FULL = "full"  # a quota has no room, and won't have soon: the agent comes again


@frozen
class ItemResult:
    """The outcome of one operation. ``result``: ``created``, ``updated``, ``deleted``, ``noop``, ``not_found``, or the
    error's reason. ``version``: of one that was refused or that a document stood against, what the document was then,
    as ``DocumentOperation.expected`` takes it; empty where that isn't known. ``cause``: what an error's reason comes
    from, where more is known than the reason says.
    """

    status: int
    result: str
    outcome: Outcome = Outcome.DONE
    version: str = ""
    cause: str = ""

    @property
    def whole_reason(self) -> str:
        return f"{self.result}: {self.cause}" if self.cause else self.result


class EventIndex(Protocol):
    """Where stateful events go. It may have a method ``probe`` besides, without arguments, as ``Engine`` may: raises
    ``BackendUnavailable``, with a sentence, when it could take nothing now. Cheap, and leaves nothing behind; called
    about once a second."""

    async def bulk(
        self,
        operations: Sequence[DocumentOperation],
        *,
        boundaries: Sequence[int] = (),
        is_open: Callable[[int], bool] | None = None,
    ) -> Sequence[ItemResult]:
        """Applies the operations in order; the results stand in the same positions. A ``create`` of an existing id is
        409, unless the content is equal: then 200 ``noop``. An ``update`` of a missing one is 404 (its reason as text),
        a ``delete`` 404 ``not_found``. Of an ``own`` document such a ``create`` replaces it, 200 ``updated``, and such
        an ``update`` makes it, 201 ``created``. ``boundaries``: the positions at which packets begin; where calls are
        limited in size, they are cut there. ``is_open``: whether somebody still waits for the operation at a position:
        where a store takes a second step, to replace or to make an own document, it asks before it, and the embedded
        one before it writes at all, in a thread. Raises ``BackendUnavailable`` when nothing can be said of the whole.
        """
        ...

    async def get(self, index: str, document_id: str) -> bytes | None: ...

    async def versions(self, documents: Sequence[tuple[str, str]]) -> Sequence[str]:
        """The versions of these documents (index and id) as ``DocumentOperation.expected`` takes them, by position;
        empty where one can't be known. Raises ``BackendUnavailable``."""
        ...
