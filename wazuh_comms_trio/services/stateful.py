"""Stub."""

from __future__ import annotations

import trio

from wazuh_comms_trio.services.authentication import Caller


class StatefulEvents:
    async def submit(self, caller: Caller, body: bytes | bytearray, *, deadline: float) -> bytes:
        """One request's body; returns the reply's JSON, ``{"results":[...]}``. Raises ``MalformedBody``, ``BackendUnavailable``,
        before ``deadline`` (trio's clock). Cancelled: the packet may still be applied."""
        raise NotImplementedError

    async def run_batcher(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ends when ``close`` was called and everything is settled."""
        raise NotImplementedError

    def close(self) -> None:
        """No more packets: a later ``submit`` raises ``BackendUnavailable``."""
        raise NotImplementedError
