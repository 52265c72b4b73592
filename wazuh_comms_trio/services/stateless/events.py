"""Stateless events: a body's first line is looked at, all of it goes to the engine as it came."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from pathlib import Path
from typing import Final

import trio

from wazuh_comms_trio.backends.interfaces import BodyRefused, Engine
from wazuh_comms_trio.config.models import Events
from wazuh_comms_trio.errors import BackendUnavailable, EngineRefused, EngineTimeout, MalformedBody
from wazuh_comms_trio.foundation.environment import RunBlocking
from wazuh_comms_trio.metrics import families
from wazuh_comms_trio.metrics.counting import Metrics
from wazuh_comms_trio.metrics.refusal_log import RefusalLog
from wazuh_comms_trio.quarantine.interface import Quarantine, Rejected
from wazuh_comms_trio.services.authentication.authenticator import Caller
from wazuh_comms_trio.services.deadlines import backend_margin
from wazuh_comms_trio.services.metadata import METADATA_LIMIT, check_agent, read_metadata
from wazuh_comms_trio.services.stateless.body_copy import BodyCopy

__all__ = ["StatelessEvents"]

_log = logging.getLogger(__name__)

_BLANKS: Final = b" \t\r\n"


class StatelessEvents:
    """``spool_folder``: where bodies above 1 MiB wait for the engine's answer; None: the system's temporary folder."""

    def __init__(
        self,
        engine: Engine,
        quarantine: Quarantine,
        *,
        settings: Events,
        run_blocking: RunBlocking,
        spool_folder: Path | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._engine = engine
        self._quarantine = quarantine
        self._settings = settings
        self._run_blocking = run_blocking
        self._spool_folder = spool_folder
        self.refusals: RefusalLog = RefusalLog(_log)

    async def forward(self, caller: Caller, chunks: AsyncIterable[bytes], *, length: int | None, limit: float) -> None:
        """Streams one request's body to the engine; returns when it has taken all of it, or when it refused and the
        body is in quarantine. ``limit`` seconds count from the end of ``chunks``; an engine that doesn't take what is
        there for so long is too slow as well.

        What ``chunks`` raises goes through. Raises ``MalformedBody``, ``EngineRefused`` (only with
        ``events.invalid: refuse``), ``EngineTimeout`` and its siblings, ``BackendUnavailable``. A part of ``chunks``
        may be unread then. Cancelled: the engine may have taken the body.
        """
        try:
            outcome = await self._forward(caller, chunks, length, limit)
        except (MalformedBody, EngineRefused):
            self._metrics.count(families.EVENTS, "stateless", "refused")
            raise
        self._metrics.count(families.EVENTS, "stateless", outcome)

    async def _forward(self, caller: Caller, chunks: AsyncIterable[bytes], length: int | None, limit: float) -> str:
        outcome = "taken"
        body = _Body(chunks, limit)
        await body.read_head()
        metadata = read_metadata(body.first_line())
        check_agent(metadata, caller.agent.id, self._settings.foreign_agent, self.refusals)
        if not await body.has_events():
            return outcome
        with BodyCopy(self._spool_folder, self._run_blocking, self.refusals) as copy, body.scope:
            keeps = self._settings.invalid == "quarantine"
            if keeps and not self._engine.keeps_refused:
                body.copy = copy
            try:
                async with aclosing(body.stream()) as stream:
                    await self._engine.send_events(stream, agent_id=caller.agent.id, length=length)
            except EngineRefused as exc:
                if isinstance(exc, BodyRefused):
                    copy.resume(exc.consumed)
                if not keeps:
                    raise
                body.copy = copy
                await body.read_rest()
                await self._quarantine_body(caller.agent.id, exc.message, copy)
                outcome = "quarantined"
        if body.scope.cancelled_caught:
            raise EngineTimeout
        return outcome

    async def _quarantine_body(self, agent_id: str, reason: str, copy: BodyCopy) -> None:
        file = await copy.file()
        rejected = Rejected(agent_id, "stateless", reason, b"", b"" if file is not None else copy.held)
        if file is not None:
            await self._quarantine.add_file(rejected, file, copy.size, start=copy.start)
        else:
            await self._quarantine.add([rejected])


class _Body:
    """One request's body on its way. ``scope`` ends the wait for the engine: its clock runs while the engine has to
    take something or to answer, and stands still while the client is what is waited for."""

    def __init__(self, chunks: AsyncIterable[bytes], limit: float) -> None:
        self.scope = trio.CancelScope()
        self.copy: BodyCopy | None = None
        self._chunks = aiter(chunks)
        self._engine_timeout = limit - backend_margin(limit)
        self._head = bytearray()  # read, not yet given away
        self._ended = False
        self._broken = False  # reading it was cut off, the rest is lost

    async def _next(self) -> bytes:
        """The next chunk of the body; empty at the end."""
        self.scope.deadline = float("inf")
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            self._ended = True
            return b""
        except BaseException:
            self._broken = True
            raise
        finally:
            self.scope.deadline = trio.current_time() + self._engine_timeout

    async def read_head(self) -> None:
        """Reads until the first line is there, or can't be one."""
        while not self._ended and b"\n" not in self._head and len(self._head) <= METADATA_LIMIT:
            self._head += await self._next()
        if self._ended and not self._head.strip(_BLANKS):
            raise MalformedBody("The request body is empty")

    def first_line(self) -> bytes:
        end = self._head.find(b"\n")
        return bytes(self._head if end < 0 else self._head[:end])

    async def has_events(self) -> bool:
        """Whether anything but blanks follows the first line."""
        start = self._head.find(b"\n")
        if start < 0:
            return False  # the body has ended: a longer line is refused by now
        while not self._head[start:].strip(_BLANKS):
            if self._ended:
                return False
            if len(self._head) - start > METADATA_LIMIT:
                return True  # so many blanks: they are the engine's to judge
            self._head += await self._next()
        return True

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The whole body, unchanged, in chunks."""
        chunk, self._head = bytes(self._head), bytearray()
        while chunk or not self._ended:
            if chunk:
                if self.copy is not None:
                    await self.copy.add(chunk)
                yield chunk
            chunk = b"" if self._ended else await self._next()

    async def read_rest(self) -> None:
        """Reads what the engine hasn't taken, for the quarantine: it has refused the whole. Raises
        ``BackendUnavailable`` when reading was cut off before."""
        if self._broken:
            raise BackendUnavailable
        chunk, self._head = bytes(self._head), bytearray()  # of an engine that refused before it took anything
        while chunk or not self._ended:
            if self.copy is not None and chunk:
                await self.copy.add(chunk)
            chunk = b"" if self._ended else await self._next()
