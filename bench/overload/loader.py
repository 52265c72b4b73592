"""An open loop: each request at its planned moment, whatever became of those before. One process.

    python -m bench.overload.loader < job.json > result.json

The job: ``{"port", "requests": [[head, body], ...] (base64), "rate", "seconds", "tail", "probe"}``, the latter a head
that is asked for ten times a second, with ALPN as checks have it. The result: ``{"requests": [[planned, latency,
status], ...], "probes": [the same], "late": the loop's own worst lateness, "cpu"}``; seconds, from the beginning and
from the planned moment. A status of 0: closed without a reply, -1: open still ``tail`` seconds after the last request.
"""

from __future__ import annotations

import base64
import json
import select
import socket
import ssl
import sys
import time
from itertools import cycle
from math import inf
from typing import Any

from bench.client import Request, Steps, tls_context
from wazuh_comms_trio.foundation.resources import raise_descriptor_limit

#: Each has its own ports: with one alone they would be used up by connections that have ended.
SOURCES = [f"127.0.1.{number}" for number in range(1, 101)]
PROBES_A_SECOND = 10
IP_BIND_ADDRESS_NO_PORT = 24


class Planned(Request):
    """``planned`` is its moment on ``time.perf_counter``; latency counts from there."""

    def __init__(self, port: int, context: ssl.SSLContext, payload: tuple[bytes, bytes], planned: float, source: str):
        super().__init__(port, context, *payload, hold=False)
        self.raw.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        self.raw.bind((source, 0))
        self.began = planned


def tls(*, check: bool) -> ssl.SSLContext:
    context = tls_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if check:
        context.set_alpn_protocols(["http/1.1"])
    return context


class Loader:
    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.running: dict[int, tuple[Planned, Steps, int]] = {}
        self.ended: list[Planned] = []

    def step(self, request: Planned, steps: Steps, interest: int) -> None:
        fd = request.raw.fileno() if request.sock is None else request.sock.fileno()
        try:
            wanted = next(steps)
        except (StopIteration, OSError) as error:
            if interest:
                self.running.pop(fd, None)
            if isinstance(error, OSError):
                request.status = 0
                request.latency = time.perf_counter() - request.began
                request.close()
            self.ended.append(request)
            return
        if not interest:
            self.epoll.register(fd, wanted)
        elif wanted != interest:
            self.epoll.modify(fd, wanted)
        self.running[fd] = (request, steps, wanted)


def run(job: dict[str, Any]) -> dict[str, Any]:
    raise_descriptor_limit()
    payloads = cycle([(base64.b64decode(head), base64.b64decode(body)) for head, body in job["requests"]])
    probe = (base64.b64decode(job["probe"]), b"")
    loader, sources = Loader(), cycle(SOURCES)
    agents, checks = tls(check=False), tls(check=True)
    asked: list[tuple[bool, Planned]] = []
    late = 0.0
    began, cpu = time.perf_counter(), time.process_time()
    end = began + job["seconds"]
    plans = {True: began, False: began if job["rate"] else inf}
    pauses = {True: 1 / PROBES_A_SECOND, False: 1 / job["rate"] if job["rate"] else inf}
    while (now := time.perf_counter()) < end or (loader.running and now < end + job["tail"]):
        for is_probe, planned in plans.items():
            if planned <= now and planned < end:
                late = max(late, now - planned)
                payload = probe if is_probe else next(payloads)
                context = checks if is_probe else agents
                request = Planned(job["port"], context, payload, planned, next(sources))
                asked.append((is_probe, request))
                loader.step(request, request.run(), 0)
                plans[is_probe] = planned + pauses[is_probe]
        next_plan = min(plans.values())
        wait = next_plan - time.perf_counter() if next_plan < end else 0.1
        for fd, _ in loader.epoll.poll(max(0.0, wait), 64):
            if fd in loader.running:
                loader.step(*loader.running[fd])
    for request, _, _ in list(loader.running.values()):
        request.status, request.latency = -1, time.perf_counter() - request.began
        request.close()
    found: dict[bool, list[list[float]]] = {True: [], False: []}
    for is_probe, request in asked:
        found[is_probe].append([request.began - began, request.latency, request.status])
    return {
        "requests": found[False],
        "probes": found[True],
        "late": late,
        "cpu": (time.process_time() - cpu) / (time.perf_counter() - began),
    }


def main() -> None:
    print(json.dumps(run(json.loads(sys.stdin.readline()))), flush=True)


if __name__ == "__main__":
    main()
