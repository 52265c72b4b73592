"""The attackers, in a process of their own so that they don't slow down whoever measures: ``python -m
tests.hostile.attacks`` reads a ``Job`` as JSON from stdin and prints what became of it, a ``Report``, as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import msgspec
import trio

from tests.hostile.attacker import MIB, Attacker, Job, Report, again_and_again, head_of, kept, many, metadata_line


async def slow_bodies(attacker: Attacker) -> None:
    """A byte in 25 s, on any path, also after a refusal."""
    paths = ["api/v1/authentication", "api/v1/events/stateful", "api/v1/", "nowhere"]
    lengths = [4000, 4000, 4000, 100 * MIB]  # every fourth is refused for its length, or its path alone

    async def one(number: int) -> None:
        async with attacker.connection() as stream:
            path = paths[number % len(paths)]
            method = "GET" if path.endswith("/") else "POST"
            head = head_of(method, path, lengths[number // len(paths) % len(lengths)])
            await attacker.drip(stream, head, 25)

    await many(attacker, one)


async def slow_readers(attacker: Attacker) -> None:
    """A large file, of which 5 kB/s are read."""
    tokens = attacker.job.tokens

    async def one(number: int) -> None:
        head = head_of("GET", "api/v1/files?file_name=default.yml", 0, token=tokens[number % len(tokens)])
        async with attacker.connection() as stream:
            await stream.send_all(head)
            await attacker.reply(stream)
            data = b"x"
            while data:
                await trio.sleep(2)
                data = await stream.receive_some(10_000)

    await many(attacker, one)


async def silence(attacker: Attacker) -> None:
    """Connections that ask for nothing, on both listeners."""

    async def one(number: int) -> None:
        ports = [attacker.job.port, attacker.job.enrollment_port or attacker.job.port]
        async with attacker.connection(ports[number % 2]) as stream:
            await stream.receive_some(1)

    await many(attacker, one)


async def half_begun(attacker: Attacker) -> None:
    """Connections that never come to a request, each a little further: not a byte; one; a ClientHello; one, byte by
    byte; a handshake; half a head; a head, byte by byte."""
    hello, head = attacker.client_hello(), head_of("GET", "api/v1/", 0, token="x" * 1000)

    async def one(number: int) -> None:
        stage = number % 7
        port = attacker.job.enrollment_port if number % 3 == 2 else None
        async with attacker.connection(port, tls=stage > 3) as stream:
            if stage in (3, 6):
                data = hello if stage == 3 else head
                for place in range(len(data) - 1):
                    await stream.send_all(data[place : place + 1])
                    with trio.move_on_after(1):
                        if not await stream.receive_some(4096):
                            return
            sent = {1: hello[:1], 2: hello, 5: head[: len(head) // 2]}.get(stage, b"")
            if sent:
                await stream.send_all(sent)
            while await stream.receive_some(4096):
                pass

    await kept(attacker, one)


async def not_a_byte(attacker: Attacker) -> None:
    """``count`` connections a second that send nothing, and stay."""

    async def one(number: int) -> None:
        ports = [attacker.job.port, attacker.job.enrollment_port or attacker.job.port]
        async with attacker.connection(ports[number % 2], tls=False) as stream:
            await stream.receive_some(1)

    await again_and_again(attacker, one)


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
    """Legal batches, all at once, each of another agent. Every second one looks for its answer while it sends; the
    others do once they have sent all, as agents do."""
    job = attacker.job
    event = b'{"id":"%d","module":"fim","operation":"create"}\n{"v":"%s"}\n'
    lines = b"".join(event % (number, b"x" * 20_000) for number in range(job.size // 20_000))

    async def write(stream: trio.abc.Stream, head: bytes, body: bytes) -> None:
        await stream.send_all(head)
        for start in range(0, len(body), 65536):
            await stream.send_all(body[start : start + 65536])

    async def one(number: int) -> None:
        token = job.tokens[number % len(job.tokens)]
        body = metadata_line(token) + b"\n" + lines
        head = head_of("POST", "api/v1/events/stateful", len(body), token=token)
        async with attacker.connection() as stream:
            if number % 2:
                await write(stream, head, body)
                await attacker.reply(stream)
            else:
                await attacker.reply_while(stream, partial(write, stream, head, body))

    await many(attacker, one)


async def unfinished_uploads(attacker: Attacker) -> None:
    """All but the last byte of a stateless body, with one stolen token, then a trickle."""
    job = attacker.job
    token = job.tokens[0]

    async def one(number: int) -> None:
        async with attacker.connection() as stream:
            await stream.send_all(head_of("POST", "api/v1/events/stateless", job.size, token=token))
            await stream.send_all(metadata_line(token) + b"\n")

            async def write() -> None:
                for _ in range(job.size // 65536 - 1):
                    await stream.send_all(b" " * 65536)
                while True:
                    await trio.sleep(0.5)
                    await stream.send_all(b" ")

            await attacker.reply_while(stream, write)

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


def address_of(number: int) -> str:
    """Of this machine; another for each number up to some millions."""
    return f"127.{1 + number // 62_500 % 200}.{number // 250 % 250}.{1 + number % 250}"


async def wrong_keys_from_everywhere(attacker: Attacker) -> None:
    """The same, each from another address: of the agent that is about to log in first, and of one at work."""
    at_work = str(json.loads(metadata_line(attacker.job.tokens[0]))["agent"]["id"])

    async def one(number: int) -> None:
        body = json.dumps({"uuid": (attacker.job.uuid, at_work)[number % 2], "key": f"{number:032}"}).encode()
        head = head_of("POST", "api/v1/authentication", len(body))
        await attacker.ask(head + body, address=address_of(number))

    await again_and_again(attacker, one)


async def passwords(attacker: Attacker) -> None:
    """Wrong passwords at the enrolment listener, for a user that there is, one that isn't, and always another."""

    async def one(number: int) -> None:
        user, what = [("admin", "a user"), ("nobody", "nobody"), (f"nobody{number}", "others")][number % 3]
        head = head_of("POST", "security/user/authenticate", 0, basic=f"{user}:{number}")
        await attacker.measure(what, attacker.ask(head, attacker.job.enrollment_port))

    await again_and_again(attacker, one)


async def passwords_from_everywhere(attacker: Attacker) -> None:
    """The same, from always another address: nobody is slowed down for having tried before, so that each is hashed. An
    address tries all three, in each order."""

    async def one(number: int) -> None:
        turn = number // 3
        user, what = [("admin", "a user"), ("nobody", "nobody"), (f"nobody{number}", "others")][(number + turn) % 3]
        head = head_of("POST", "security/user/authenticate", 0, basic=f"{user}:{number}")
        asking = attacker.ask(head, attacker.job.enrollment_port, address=address_of(turn))
        await attacker.measure(what, asking)

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


ATTACKS: Final[dict[str, Callable[[Attacker], Awaitable[None]]]] = {
    "slow bodies": slow_bodies,
    "slow readers": slow_readers,
    "silent connections": silence,
    "half-begun connections": half_begun,
    "connections without a byte": not_a_byte,
    "strangers' log-in bodies": log_in_bodies,
    "large bodies at once": large_bodies,
    "unfinished uploads": unfinished_uploads,
    "one token's polls": polls,
    "wrong keys": wrong_keys,
    "wrong keys from everywhere": wrong_keys_from_everywhere,
    "wrong passwords": passwords,
    "wrong passwords from everywhere": passwords_from_everywhere,
    "100 times its share": many_requests,
    "documents without end": documents,
}


async def run(job: Job) -> Report:
    attacker = Attacker(job)
    with trio.move_on_after(job.seconds + min(5, job.seconds / 4)):
        await ATTACKS[job.name](attacker)
    return Report(tried=attacker.tried, ends=dict(attacker.ends), longest=attacker.longest, took=attacker.took)


def main() -> Any:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    report = trio.run(run, job)
    sys.stdout.buffer.write(msgspec.json.encode(report))


if __name__ == "__main__":
    main()
