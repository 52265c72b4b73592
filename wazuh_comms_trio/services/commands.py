"""Stub."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from wazuh_comms_trio.backends.base import Command
from wazuh_comms_trio.services.authentication import Caller


class Offer:
    """Commands claimed for one poll. Exactly one of ``confirm`` and ``release`` is called; either is safe under cancellation."""

    commands: Sequence[Command]

    async def confirm(self) -> None:
        """The agent has all bytes. ``BackendUnavailable`` doesn't come out: it is logged and tried again in the background."""
        raise NotImplementedError

    async def release(self) -> None:
        """It may not have them: pending again."""
        raise NotImplementedError


class CommandDispatcher:
    async def poll(self, caller: Caller, *, deadline: float) -> Offer | None:
        """None: nothing came (deadline, the token's end, shutdown). Raises ``TokenInvalid`` when the agent was removed or rekeyed
        meanwhile."""
        raise NotImplementedError

    def poll_limit(self) -> float:
        """How long one poll may take: ``timeouts.commands`` ± 10 %, in seconds."""
        raise NotImplementedError

    async def post(self, commands: Sequence[Command]) -> Sequence[Command]:
        """Those of ``commands`` whose delivery was confirmed within 2 s (and groups once their children are stored)."""
        raise NotImplementedError

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Finds news, expires, drops polls of revoked agents; ends after ``close``, once the offers in flight are settled."""
        raise NotImplementedError

    def close(self) -> None:
        """Answers every parked poll with None; later polls get None at once."""
        raise NotImplementedError

    @property
    def parked(self) -> int:
        """How many polls wait now."""
        raise NotImplementedError
