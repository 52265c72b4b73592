"""An attacker's connections, and how often it makes them."""

from __future__ import annotations

import base64
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import msgspec
import trio

from wazuh_comms_trio.testing.agent.connection import agent_tls

MIB: Final = 1024 * 1024
#: Seconds after which a connection that was closed is tried again.
COME_AGAIN: Final = 1.0


class Job(msgspec.Struct, kw_only=True):
    """``count`` connections or agents, for ``seconds``; ``size`` of a body. ``tokens``: stolen ones."""

    name: str
    port: int
    enrollment_port: int | None = None
    uuid: str = ""
    tokens: list[str] = []
    count: int = 1
    seconds: float = 1.0
    size: int = 0


class Report(msgspec.Struct, kw_only=True):
    """``tried`` requests or connections; how they ended: by status, ``closed``, or ``open`` still; ``longest``: how
    long the one that was held longest was, seconds."""

    tried: int
    ends: dict[str, int]
    longest: float
    #: What the attack measured, seconds, by what.
    took: dict[str, list[float]] = {}


class NotConnectedError(Exception):
    """A connection that was refused, or closed before its handshake; it is counted as ``closed``."""


class Attacker:
    def __init__(self, job: Job) -> None:
        self.job = job
        self.ends: Counter[str] = Counter()
        self.tried = 0
        self.longest = 0.0
        self.took: dict[str, list[float]] = {}
        self._status: dict[trio.abc.Stream, str] = {}
        self._tls: ssl.SSLContext = agent_tls()
        self._connecting = trio.CapacityLimiter(50)

    @asynccontextmanager
    async def connection(
        self, port: int | None = None, *, tls: bool = True, address: str | None = None
    ) -> AsyncIterator[trio.abc.Stream]:
        """Its end is counted: a reply's status, ``closed``, or ``open`` when time is up. ``tls``: with its handshake;
        ``address``: where it comes from. Raises ``NotConnectedError``."""
        self.tried += 1
        began = trio.current_time()
        end = "closed"
        stream: trio.abc.Stream | None = None
        try:
            try:
                async with self._connecting:
                    stream = tcp = await trio.open_tcp_stream("127.0.0.1", port or self.job.port, local_address=address)
                    if tls:
                        stream = trio.SSLStream(tcp, self._tls, https_compatible=True)
                        await stream.do_handshake()
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
                raise NotConnectedError from error
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                yield stream
            end = self._status.pop(stream, "") or await self._late_reply(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            end = "closed"
        except trio.Cancelled:
            end = "open"
            raise
        finally:
            self.ends[end] += 1
            self.longest = max(self.longest, trio.current_time() - began)
            if stream is not None:
                with trio.CancelScope(shield=True):
                    await trio.aclose_forcefully(stream)

    async def reply(self, stream: trio.abc.Stream) -> str:
        """Returns its status; empty: there was none."""
        data = b""
        while b"\r\n" not in data and (more := await stream.receive_some(65536)):
            data += more
        if data.startswith(b"HTTP/1.1 "):
            self._status[stream] = data.split(b" ")[1].decode()
        return self._status.get(stream, "")

    async def _late_reply(self, stream: trio.abc.Stream) -> str:
        """What a server said that closed while a body was being sent."""
        with trio.move_on_after(1):
            await self.reply(stream)
        return self._status.pop(stream, "closed")

    async def drip(self, stream: trio.abc.Stream, head: bytes, pause: float, chunk: bytes = b"x") -> None:
        """A head, then a bit of body now and then, until the server has enough."""

        async def write() -> None:
            await stream.send_all(head)
            while True:
                await trio.sleep(pause)
                await stream.send_all(chunk)

        await self.reply_while(stream, write)

    async def reply_while(self, stream: trio.abc.Stream, write: Callable[[], Awaitable[None]]) -> None:
        """Waits for a reply while it is written; what is left to write then isn't."""
        left = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)

        async def write_on() -> None:
            with suppress(*left):
                await write()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_on)
            with suppress(*left):
                await self.reply(stream)
            nursery.cancel_scope.cancel()

    async def ask(self, data: bytes, port: int | None = None, *, address: str | None = None) -> str:
        """Returns the reply's status; empty: there was none."""
        async with self.connection(port, address=address) as stream:
            await stream.send_all(data)
            return await self.reply(stream)
        return ""

    def client_hello(self) -> bytes:
        outgoing = ssl.MemoryBIO()
        with suppress(ssl.SSLWantReadError):
            self._tls.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
        return outgoing.read()

    async def measure(self, what: str, asking: Awaitable[str]) -> None:
        """How long a reply takes, by ``what`` and its status: what is refused for the number of tries isn't hashed."""
        began = trio.current_time()
        if status := await asking:
            self.took.setdefault(f"{what}: {status}", []).append(trio.current_time() - began)


def head_of(method: str, path: str, length: int | str, *, token: str = "", basic: str = "") -> bytes:
    lines = [f"{method} /{path} HTTP/1.1", "Host: h"]
    lines += [f"Content-Length: {length}"] if isinstance(length, int) else ["Transfer-Encoding: chunked"]
    lines += [f"Authorization: Bearer {token}"] if token else []
    lines += [f"Authorization: Basic {base64.b64encode(basic.encode()).decode()}"] if basic else []
    return "\r\n".join([*lines, "", ""]).encode()


async def tried(one: Callable[[int], Awaitable[None]], number: int) -> None:
    with suppress(NotConnectedError):
        await one(number)


async def many(attacker: Attacker, one: Callable[[int], Awaitable[None]]) -> None:
    """``count`` at a time, each once; when all have ended the attack has."""
    async with trio.open_nursery() as nursery:
        for number in range(attacker.job.count):
            nursery.start_soon(tried, one, number)


async def kept(attacker: Attacker, one: Callable[[int], Awaitable[None]]) -> None:
    """``count`` at a time until time is up: who is closed comes again, as something else."""

    async def keep(number: int) -> None:
        while True:
            await tried(one, number)
            await trio.sleep(COME_AGAIN)
            number += 1

    async with trio.open_nursery() as nursery:
        for number in range(attacker.job.count):
            nursery.start_soon(keep, number)


async def again_and_again(attacker: Attacker, one: Callable[[int], Awaitable[None]]) -> None:
    """``count`` a second, in an open loop."""
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(int(attacker.job.count * attacker.job.seconds)):
            await trio.sleep_until(began + number / attacker.job.count)
            nursery.start_soon(tried, one, number)


def metadata_line(token: str) -> bytes:
    claims = token.split(".")[1]
    uuid = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["uuid"]
    return json.dumps({"agent": {"id": uuid}}).encode()
