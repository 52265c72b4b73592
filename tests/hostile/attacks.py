"""The attackers, in a process of their own so that they don't slow down whoever measures: ``python -m
tests.hostile.attacks`` reads a ``Job`` as JSON from stdin and prints what became of it, a ``Report``, as JSON."""

from __future__ import annotations

import base64
import json
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import msgspec
import trio

from wazuh_comms_trio.testing.agent.connection import agent_tls

MIB: Final = 1024 * 1024


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


class NotConnectedError(Exception):
    """A connection that was refused, or closed before its handshake; it is counted as ``closed``."""


class Attacker:
    def __init__(self, job: Job) -> None:
        self.job = job
        self.ends: Counter[str] = Counter()
        self.tried = 0
        self.longest = 0.0
        self._status: dict[trio.abc.Stream, str] = {}
        self._tls: ssl.SSLContext = agent_tls()
        self._connecting = trio.CapacityLimiter(50)

    @asynccontextmanager
    async def connection(self, port: int | None = None) -> AsyncIterator[trio.abc.Stream]:
        """Its end is counted: a reply's status, ``closed``, or ``open`` when time is up. Raises
        ``NotConnectedError``."""
        self.tried += 1
        began = trio.current_time()
        end = "closed"
        stream: trio.abc.Stream | None = None
        try:
            try:
                async with self._connecting:
                    tcp = await trio.open_tcp_stream("127.0.0.1", port or self.job.port)
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

    async def reply(self, stream: trio.abc.Stream) -> None:
        data = b""
        while b"\r\n" not in data and (more := await stream.receive_some(65536)):
            data += more
        if data.startswith(b"HTTP/1.1 "):
            self._status[stream] = data.split(b" ")[1].decode()

    async def _late_reply(self, stream: trio.abc.Stream) -> str:
        """What a server said that closed while a body was being sent."""
        with trio.move_on_after(1):
            await self.reply(stream)
        return self._status.pop(stream, "closed")

    async def drip(self, stream: trio.abc.Stream, head: bytes, pause: float, chunk: bytes = b"x") -> None:
        """A head, then a bit of body now and then, until the server has enough."""
        async with trio.open_nursery() as nursery:

            async def write() -> None:
                await stream.send_all(head)
                while True:
                    await trio.sleep(pause)
                    await stream.send_all(chunk)

            nursery.start_soon(write)
            try:
                await self.reply(stream)
            finally:
                nursery.cancel_scope.cancel()

    async def ask(self, data: bytes, port: int | None = None) -> None:
        async with self.connection(port) as stream:
            await stream.send_all(data)
            await self.reply(stream)


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


async def again_and_again(attacker: Attacker, one: Callable[[int], Awaitable[None]]) -> None:
    """``count`` a second, in an open loop."""
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(int(attacker.job.count * attacker.job.seconds)):
            await trio.sleep_until(began + number / attacker.job.count)
            nursery.start_soon(tried, one, number)


async def slow_bodies(attacker: Attacker) -> None:
    """A byte in 25 s, on any path."""
    paths = ["api/v1/authentication", "api/v1/events/stateful", "api/v1/", "nowhere"]

    async def one(number: int) -> None:
        async with attacker.connection() as stream:
            path = paths[number % len(paths)]
            method = "GET" if path.endswith("/") else "POST"
            await attacker.drip(stream, head_of(method, path, 4000), 25)

    await many(attacker, one)


async def silence(attacker: Attacker) -> None:
    """Connections that ask for nothing, on both listeners."""

    async def one(number: int) -> None:
        ports = [attacker.job.port, attacker.job.enrollment_port or attacker.job.port]
        async with attacker.connection(ports[number % 2]) as stream:
            await stream.receive_some(1)

    await many(attacker, one)


async def log_in_bodies(attacker: Attacker) -> None:
    """Strangers' bodies of 1 MiB, announced or in chunks that never end."""

    async def one(number: int) -> None:
        async with attacker.connection() as stream:
            if number % 2:
                await attacker.drip(stream, head_of("POST", "api/v1/authentication", MIB), 0.01, b"x" * 4096)
            else:
                head = head_of("POST", "api/v1/authentication", "chunked")
                await attacker.drip(stream, head, 0.05, b"400\r\n" + b"x" * 1024 + b"\r\n")

    await many(attacker, one)


async def large_bodies(attacker: Attacker) -> None:
    """Legal batches, all at once, each of another agent."""
    job = attacker.job
    event = b'{"id":"%d","module":"fim","operation":"create"}\n{"v":"%s"}\n'
    lines = b"".join(event % (number, b"x" * 20_000) for number in range(job.size // 20_000))

    async def one(number: int) -> None:
        token = job.tokens[number % len(job.tokens)]
        body = metadata_line(token) + b"\n" + lines
        async with attacker.connection() as stream:
            await stream.send_all(head_of("POST", "api/v1/events/stateful", len(body), token=token))
            for start in range(0, len(body), 65536):
                await stream.send_all(body[start : start + 65536])
            await attacker.reply(stream)

    await many(attacker, one)


async def unfinished_uploads(attacker: Attacker) -> None:
    """All but the last byte of a stateless body, with one stolen token, then a trickle."""
    job = attacker.job
    token = job.tokens[0]

    async def one(number: int) -> None:
        async with attacker.connection() as stream:
            await stream.send_all(head_of("POST", "api/v1/events/stateless", job.size, token=token))
            await stream.send_all(metadata_line(token) + b"\n")
            async with trio.open_nursery() as nursery:

                async def write() -> None:
                    for _ in range(job.size // 65536 - 1):
                        await stream.send_all(b" " * 65536)
                    while True:
                        await trio.sleep(0.5)
                        await stream.send_all(b" ")

                nursery.start_soon(write)
                try:
                    await attacker.reply(stream)
                finally:
                    nursery.cancel_scope.cancel()

    await many(attacker, one)


async def polls(attacker: Attacker) -> None:
    """Long polls of one stolen token."""
    head = head_of("GET", "api/v1/commands", 0, token=attacker.job.tokens[0])

    async def one(number: int) -> None:
        await attacker.ask(head)

    await many(attacker, one)


async def wrong_keys(attacker: Attacker) -> None:
    """For the uuid of an agent that there is."""

    async def one(number: int) -> None:
        body = json.dumps({"uuid": attacker.job.uuid, "key": f"{number:032}"}).encode()
        await attacker.ask(head_of("POST", "api/v1/authentication", len(body)) + body)

    await again_and_again(attacker, one)


async def passwords(attacker: Attacker) -> None:
    """Wrong passwords at the enrolment listener, for users that there are and others."""

    async def one(number: int) -> None:
        user = "admin" if number % 2 else f"nobody{number}"
        head = head_of("POST", "security/user/authenticate", 0, basic=f"{user}:{number}")
        await attacker.ask(head, attacker.job.enrollment_port)

    await again_and_again(attacker, one)


async def many_requests(attacker: Attacker) -> None:
    """A hundred times its share, with one stolen token."""
    token = attacker.job.tokens[0]
    body = metadata_line(token) + b'\n{"id":"a","module":"fim","operation":"create"}\n{"v":1}\n'
    data = head_of("POST", "api/v1/events/stateful", len(body), token=token) + body

    async def one(number: int) -> None:
        await attacker.ask(data)

    await again_and_again(attacker, one)


async def documents(attacker: Attacker) -> None:
    """Always new ones, a hundred of a kilobyte in a request, with one stolen token."""
    token = attacker.job.tokens[0]
    event = b'{"id":"%d","module":"fim","operation":"create"}\n{"v":"%b"}\n'

    async def one(number: int) -> None:
        lines = [event % (100 * number + place, b"x" * 1000) for place in range(100)]
        body = metadata_line(token) + b"\n" + b"".join(lines)
        await attacker.ask(head_of("POST", "api/v1/events/stateful", len(body), token=token) + body)

    await again_and_again(attacker, one)


def metadata_line(token: str) -> bytes:
    claims = token.split(".")[1]
    uuid = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["uuid"]
    return json.dumps({"agent": {"id": uuid}}).encode()


ATTACKS: Final[dict[str, Callable[[Attacker], Awaitable[None]]]] = {
    "slow bodies": slow_bodies,
    "silent connections": silence,
    "strangers' log-in bodies": log_in_bodies,
    "large bodies at once": large_bodies,
    "unfinished uploads": unfinished_uploads,
    "one token's polls": polls,
    "wrong keys": wrong_keys,
    "wrong passwords": passwords,
    "100 times its share": many_requests,
    "documents without end": documents,
}


async def run(job: Job) -> Report:
    attacker = Attacker(job)
    with trio.move_on_after(job.seconds + min(5, job.seconds / 4)):
        await ATTACKS[job.name](attacker)
    return Report(tried=attacker.tried, ends=dict(attacker.ends), longest=attacker.longest)


def main() -> Any:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    report = trio.run(run, job)
    sys.stdout.buffer.write(msgspec.json.encode(report))


if __name__ == "__main__":
    main()
