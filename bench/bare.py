"""The bare HTTP client: makes given calls and nothing else, over connections of the daemon's own kind.

    python -m bench.bare < job > result

The job: JSON, ``{"address": port or path of a Unix socket, "calls": [...], "repeat": n, "connections": n}``; the
result: ``{"cpu_ms", "seconds", "calls", "documents"}``, of the calls alone. Documents that a bulk call creates get new
ids, as the daemon's have, before the clock starts; bodies that were compressed are compressed again, before as well.
"""

from __future__ import annotations

import gzip
import re
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import msgspec
import trio

from bench.relay import Call, is_compressed
from wazuh_comms_trio.http.client.connection import HttpConnection

_CREATED = re.compile(rb'(\{"create":\{"_index":"[^"]*","_id":"[^"]*_)[0-9a-f]{40}"')


class Job(msgspec.Struct):
    address: int | str
    calls: list[Call]
    repeat: int = 1
    connections: int = 1


class Result(msgspec.Struct):
    cpu_ms: float
    seconds: float
    calls: int
    documents: int


def renew(call: Call, ids: Iterator[int]) -> tuple[Call, int]:
    """The same with new ids, and how many documents it creates."""
    if call.body is None or not call.target.startswith("/_bulk"):
        return call, 0
    packed = is_compressed(call)
    body = gzip.decompress(call.body) if packed else call.body
    body, documents = _CREATED.subn(lambda match: b'%b%040x"' % (match[1], next(ids)), body)
    return Call(call.method, call.target, call.headers, gzip.compress(body, 1, mtime=0) if packed else body), documents


async def connect(address: int | str) -> HttpConnection:
    stream: trio.abc.Stream
    if isinstance(address, int):
        stream = await trio.open_tcp_stream("127.0.0.1", address)
    else:
        stream = await trio.open_unix_socket(address)
    return HttpConnection(stream, host="localhost", write_timeout=30.0, read_timeout=60.0)


async def make_calls(connection: HttpConnection, calls: Iterator[Call]) -> None:
    for call in calls:
        reply = await connection.exchange(call.method, call.target, call.headers, call.body)
        if not (reply.status < 300 or reply.status == 404):
            raise SystemExit(f"{call.method} {call.target}: {reply.status} {reply.body[:500]!r}")
        if call.target.startswith("/_bulk") and b'"error"' in reply.body:
            raise SystemExit(f"{call.method} {call.target}: {reply.body[:500]!r}")


async def run(job: Job) -> Result:
    # Ever higher ones, as the daemon's are: the indexer finds out sooner of others that they are new. A microsecond is
    # more than a document takes.
    ids = count(time.time_ns() // 1000)
    renewed = [renew(call, ids) for _ in range(job.repeat) for call in job.calls]
    calls: Sequence[Call] = [call for call, _ in renewed]
    connections = [await connect(job.address) for _ in range(job.connections)]
    remaining = iter(calls)
    began, cpu = time.perf_counter(), time.process_time()
    async with trio.open_nursery() as nursery:
        for connection in connections:
            nursery.start_soon(make_calls, connection, remaining)
    cpu, seconds = time.process_time() - cpu, time.perf_counter() - began
    for connection in connections:
        await connection.aclose()
    return Result(1000 * cpu, seconds, len(calls), sum(documents for _, documents in renewed))


def main() -> None:
    job: Any = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    sys.stdout.buffer.write(msgspec.json.encode(trio.run(run, job)) + b"\n")


if __name__ == "__main__":
    main()
