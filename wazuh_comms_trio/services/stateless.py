"""Stub."""

from __future__ import annotations

from collections.abc import AsyncIterable

from wazuh_comms_trio.services.authentication import Caller


class StatelessEvents:
    async def forward(self, caller: Caller, chunks: AsyncIterable[bytes], *, length: int | None, limit: float) -> None:
        """Streams one request's body to the engine; ``limit`` seconds count from the end of ``chunks``. What ``chunks`` raises
        goes through. Raises ``MalformedBody``, ``EngineRefused`` (only with ``events.invalid: refuse``), ``EngineTimeout`` and
        its siblings, ``BackendUnavailable``."""
        raise NotImplementedError
