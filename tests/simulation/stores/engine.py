"""The engine: our client of it, and a server over streams in memory, which takes events and answers scans. It is down,
answers late or twice, or breaks off; of what it refuses for good it doesn't always say to the end why."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import h11
import trio

from tests.simulation.nodes.network import SimStream, process_stream_pair, send_twice
from tests.simulation.nodes.plain_connection import PlainConnection
from tests.simulation.plans.faults import BUSY, ENGINE
from wazuh_comms_trio.backends.engine import client
from wazuh_comms_trio.backends.engine.client import UnixEngine, open_engine_client
from wazuh_comms_trio.backends.event_lines import find_bad_line
from wazuh_comms_trio.config.backend_models import EngineClient

if TYPE_CHECKING:
    from tests.simulation.nodes.process import Process
    from tests.simulation.plans.faults import Fault
    from tests.simulation.world import World

__all__ = ["SimEngine", "use_simulated_engine"]

#: What an engine answers that has too much to do.
_BUSY_STATUSES: Final = (408, 429, 500, 503)
#: Of a scan, of which a 500 may be the scan's own fault.
_BUSY_SCANS: Final = (429, 503)

#: Longer than any request has, seconds.
_LONG: Final = 60.0

#: Who connects, and to which engine.
_CALLER: ContextVar[tuple[SimEngine, Process | None]] = ContextVar("the engine's caller")


class SimEngine:
    """``bodies``: those that were taken, whole."""

    def __init__(self, world: World) -> None:
        self.bodies: list[bytes] = []
        self._world = world
        self._faults = [fault for fault in world.plan.faults if fault.kind in (*ENGINE, *BUSY)]

    @asynccontextmanager
    async def open_client(self, process: Process | None) -> AsyncIterator[UnixEngine]:
        """As this process has it; None: the operator's tool."""
        _CALLER.set((self, process))
        async with open_engine_client(EngineClient()) as engine:
            yield engine

    async def connect(self, process: Process | None) -> SimStream:
        """Raises ``OSError``."""
        await trio.lowlevel.checkpoint()
        if self._meets("engine down", "connection") is not None or (process is not None and process.dead):
            raise OSError(111, "Connection refused")
        ours, theirs = process_stream_pair()
        if process is not None:
            ours.belongs_to(process)
        self._world.nursery.start_soon(self._serve, theirs, ours)
        return ours

    def _meets(self, kind: str, place: str) -> Fault | None:
        world, now = self._world, trio.current_time()
        for fault in self._faults:
            here = fault.kind == kind and fault.start <= now < fault.start + fault.seconds
            if here and world.rng_calls.random() < fault.share:
                world.trace.strike(kind, place, "engine")
                return fault
        return None

    async def _serve(self, stream: SimStream, caller: SimStream) -> None:
        connection = PlainConnection()
        try:
            while await self._exchange(stream, caller, connection):
                connection.start_next_cycle()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            pass
        finally:
            stream.close()

    async def _exchange(self, stream: SimStream, caller: SimStream, connection: PlainConnection) -> bool:
        """One request and its answer; returns whether another one may follow."""
        target, body = b"", bytearray()
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some()))
            elif isinstance(event, h11.Request):
                target = event.target
            elif isinstance(event, h11.Data):
                body += event.data
                if self._refuses_early(bytes(body)):
                    await stream.send_all(self._encoded(connection, *self._answer(target, bytes(body))))
                    return False
            else:
                return False
        if self._meets("engine breaks off", "request") is not None:
            return False
        if self._meets("engine busy", "request") is not None:
            statuses = _BUSY_SCANS if target == b"/vulnerability/scan" else _BUSY_STATUSES
            status, answer = self._world.rng_calls.choice(statuses), {"error": ["not now"]}
        else:
            status, answer = self._answer(target, bytes(body))
        if (late := self._meets("engine late", "answer")) is not None:
            await trio.sleep(late.amount)
        else:
            await trio.sleep(self._world.rng_calls.uniform(0.0002, 0.05))
        data = self._encoded(connection, status, answer)
        if status == 400 and (left := crc32(body) % 4) < 2:
            self._world.trace.strike("refusal without its end", "answer", "engine")
            await stream.send_all(data[:-1])
            await trio.sleep(left * _LONG)
            return False
        if self._meets("engine answers twice", "answer") is not None:
            await send_twice(stream, caller, data)
        else:
            await stream.send_all(data)
        return True

    def _refuses_early(self, body: bytes) -> bool:
        """Before it has read the rest, where bodies come in pieces: what is there has a line that it never takes."""
        if not self._world.plan.features.small_bodies or find_bad_line(body[: body.rfind(b"\n") + 1]) is None:
            return False
        is_early = self._world.rng_calls.random() < 0.7
        if is_early:
            self._world.trace.strike("refused early", "body", "engine")
        return is_early

    @staticmethod
    def _encoded(connection: PlainConnection, status: int, answer: Any) -> bytes:
        encoded = b"" if answer is None else json.dumps(answer).encode()
        headers = [("Content-Length", str(len(encoded))), ("Content-Type", "application/json")]
        return connection.answer(status, headers, encoded)

    def _answer(self, target: bytes, body: bytes) -> tuple[int, Any]:
        if target == b"/vulnerability/scan":
            return 200, {"scanned": [package["name"] for package in json.loads(body)["packages"]]}
        if target == b"/":
            return 404, None
        if (bad := find_bad_line(body)) is not None:
            return 400, {"error": [bad]}
        self.bodies.append(body)
        return 204, None


def use_simulated_engine() -> None:
    """Once: in the place of the Unix socket."""

    async def connect(path: str) -> SimStream:
        engine, process = _CALLER.get()
        return await engine.connect(process)

    client.connect_unix = connect  # type: ignore[assignment]
