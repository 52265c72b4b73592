"""One event of a stateful request's body, as it was read."""

from __future__ import annotations

import msgspec

from wazuh_comms_trio.backends.interfaces import CommandReport, DocumentOperation

__all__ = ["Event", "Unusable"]


class Unusable(msgspec.Struct, gc=False, frozen=True):
    """Why an event can never be taken."""

    reason: str


class Event(msgspec.Struct, gc=False):
    """One event. ``index`` and ``id`` are for its result (the agent's own id), None where they can't be told; its bytes
    are ``body[start:end]``. ``document_id``: of an unusable one that names a document all the same, its id in
    the index; else empty."""

    index: str | None
    id: str | None
    start: int
    end: int
    action: DocumentOperation | CommandReport | Unusable
    document_id: str = ""

    @property
    def document(self) -> str:
        """The document that the event is about, as ``Rejected.document``."""
        action = self.action
        if type(action) is DocumentOperation:
            return f"{action.index}/{action.document_id}"
        return f"{self.index}/{self.document_id}" if self.document_id else ""
