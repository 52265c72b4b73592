"""The other workers of this node, as one worker's dispatcher knows them.

An agent may be parked on any worker. What a worker learns that concerns the others (new commands, deliveries) it tells
them; what only one of them may do (deliver a command that no store claims for it) it asks for first.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, Protocol

from wazuh_comms_trio.backends.interfaces import Command

__all__ = ["NO_OTHER_WORKERS", "NoOtherWorkers", "OtherWorkers"]


class OtherWorkers(Protocol):
    """What a worker tells the others. Nothing here blocks but ``acquire``. Lost messages cost time, never a command:
    the store knows better."""

    def news(self, agent_ids: Collection[str]) -> None:
        """Tells that these agents may have new commands in the store."""
        ...

    def parked(self, agent_id: str) -> None:
        """Tells that this agent's newest poll is here."""
        ...

    def delivered(self, commands: Sequence[Command]) -> None:
        """Tells that an agent's side has these commands."""
        ...

    def hold(self, commands: Sequence[Command], seconds: float) -> None:
        """Tells of commands that were posted here and that no store keeps: a worker that parks their agent within
        ``seconds`` may ask for them."""
        ...

    def withdraw(self, commands: Sequence[Command]) -> None:
        """Tells that the post of these commands has been answered."""
        ...

    async def acquire(self, document_ids: Collection[str]) -> Collection[str]:
        """Asks which of these posted commands this worker alone may deliver now. Cancelled: none of them."""
        ...

    def returned(self, document_ids: Collection[str]) -> None:
        """Tells of commands that were acquired and not delivered: another worker may acquire them."""
        ...


class NoOtherWorkers:
    """There are no others."""

    def news(self, agent_ids: Collection[str]) -> None: ...

    def parked(self, agent_id: str) -> None: ...

    def delivered(self, commands: Sequence[Command]) -> None: ...

    def hold(self, commands: Sequence[Command], seconds: float) -> None: ...

    def withdraw(self, commands: Sequence[Command]) -> None: ...

    async def acquire(self, document_ids: Collection[str]) -> Collection[str]:
        return document_ids

    def returned(self, document_ids: Collection[str]) -> None: ...


NO_OTHER_WORKERS: Final = NoOtherWorkers()
