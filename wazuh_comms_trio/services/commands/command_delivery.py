"""A command delivery: claimed commands on their way to one poll."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final, Literal

import trio
from attrs import evolve

from wazuh_comms_trio.backends.interfaces import Action, Command

__all__ = ["CommandDelivery", "DeliveryOutcome"]

DeliveryOutcome = Literal["sent", "released"]

#: How long a poll's request waits for the store to take note, seconds. The store goes on being told afterwards.
_RECORDING_TIMEOUT: Final = 5.0


class CommandDelivery:
    """Commands claimed for one poll of one agent. Exactly one of ``confirm`` and ``release`` is to be called, or
    ``release_nowait``; the first call counts, and counts even if it is cancelled. ``claimed``: ids of those commands
    that the store has; the others are posted ones that it doesn't keep. ``give_back``: called with those for which the
    reply has no room after all, before anything is sent. ``texts``: the commands, encoded; None where they are many
    bytes."""

    def __init__(
        self,
        agent_id: str,
        commands: Sequence[Command],
        claimed: Collection[str],
        finish: Callable[[CommandDelivery, DeliveryOutcome], trio.Event],
        give_back: Callable[[CommandDelivery, Sequence[Command]], object],
        texts: Sequence[bytes] | None = None,
    ) -> None:
        self.agent_id = agent_id
        self.commands = commands
        self.texts = texts
        self.claimed = claimed
        self._finish = finish
        self._give_back = give_back
        self._outcome: DeliveryOutcome | None = None

    def keep(self, count: int) -> None:
        """Only the first ``count`` commands are delivered; the others are pending again, for the agent's next poll."""
        if rest := self.commands[count:]:
            self.texts = None if self.texts is None else self.texts[:count]
            self._give_back(self, rest)
            self.commands = self.commands[:count]
            kept = {command.document_id for command in self.commands}
            self.claimed = dict.fromkeys(document_id for document_id in self.claimed if document_id in kept)

    def drop_contents(self) -> None:
        """What the commands say is in the reply: no copy of it stays in memory while that is sent."""
        self.commands = [evolve(command, action=Action(command.action.name)) for command in self.commands]

    async def confirm(self) -> None:
        """The agent has all bytes: the commands are sent. Returns when the store has taken note, or after some seconds:
        the recorder goes on then."""
        await self._wait(self._decide("sent"))

    async def release(self) -> None:
        """The agent may not have all bytes: the commands are pending again. Returns as ``confirm`` does."""
        await self._wait(self._decide("released"))

    def release_nowait(self) -> None:
        """As ``release``, without waiting."""
        self._decide("released")

    def _decide(self, outcome: DeliveryOutcome) -> trio.Event | None:
        if self._outcome is not None:
            return None
        self._outcome = outcome
        return self._finish(self, outcome)

    @staticmethod
    async def _wait(recorded: trio.Event | None) -> None:
        if recorded is not None:
            with trio.move_on_after(_RECORDING_TIMEOUT):
                await recorded.wait()
