"""An engine that refuses a body, and how its answer ends."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio

from tests.engine.test_engine import send, settings
from wazuh_comms_trio.backends.engine.client import open_engine_client
from wazuh_comms_trio.errors import EngineRefused

pytestmark = pytest.mark.real_clock


@pytest.mark.parametrize("end", ["stall", "close", "endless"])
@pytest.mark.parametrize("size", [10, 100_000])
@pytest.mark.parametrize("limit", [0.5, 60.0])
async def test_a_refusal_is_one_by_its_head(tmp_path: Path, size: int, end: str, limit: float) -> None:
    """Its body has reasons alone: without it, or all of it, the events would come again for ever. Nor is it waited for
    as long as for a head: by default the agent's request would be over before."""

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            received = 0
            while received < size:
                received += len(await stream.receive_some(65536))
            length = 2**40 if end == "endless" else 20
            await stream.send_all(b'HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n{"err' % length)
            if end != "close":
                await trio.sleep_forever()

    async with open_engine_client(settings(tmp_path, timeout=limit)) as engine, trio.open_nursery() as nursery:
        listener = trio.socket.socket(socket.AF_UNIX)
        await listener.bind(str(tmp_path / "engine.socket"))
        listener.listen()
        nursery.start_soon(trio.serve_listeners, answer, [trio.SocketListener(listener)])
        with trio.fail_after(9.5), pytest.raises(EngineRefused, match="answered 400"):
            await send(engine, b"x" * size)
        nursery.cancel_scope.cancel()
