"""Polls that are parked on the product's listener while packets are lost; a program for a network namespace of its own.

Prints how many ended without the answer they were due. Ends with status ``CANNOT`` where no packets can be lost.
"""

from __future__ import annotations

import argparse
import sys
from itertools import cycle
from typing import Any
from unittest.mock import patch

import trio

from tests.lossy_network import CANNOT, CannotLose, lose, start_network
from wazuh_comms_trio.api.problems import describe
from wazuh_comms_trio.config.models import Limits
from wazuh_comms_trio.http.server.accept_loop import serve_listeners
from wazuh_comms_trio.http.server.listener_context import ListenerContext
from wazuh_comms_trio.http.server.streams import keepalive, socket_stream
from wazuh_comms_trio.testing.agent.http import ExchangeFailed, exchange, request_head

#: Seconds for the answers to come through.
TIMEOUT = 8.0


async def park(count: int, seconds: float, loss: int) -> int:
    """How many ended early, or without an answer."""
    parked, all_parked, end = 0, trio.Event(), trio.Event()
    answered = 0

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal parked
        await receive()
        parked += 1
        if parked == count:
            all_parked.set()
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await receive()  # the peer has left, or the kernel has given it up
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await end.wait()
            await send({"type": "http.response.start", "status": 408, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            nursery.cancel_scope.cancel()

    async def poll(address: tuple[str, int]) -> None:
        nonlocal answered
        stream = await trio.open_tcp_stream(*address)
        try:
            head = request_head("GET", "/", [("Host", "h")])
            reply = await exchange(stream, head, read_timeout=seconds + TIMEOUT)
            answered += reply.status == 408
        except ExchangeFailed:
            pass
        finally:
            await trio.aclose_forcefully(stream)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=count)
    stop = trio.Event()
    context = ListenerContext(application, Limits(), describe)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve_listeners(context, [listener], stop=stop, grace=TIMEOUT))
        async with trio.open_nursery() as polls:
            for _ in range(count):
                polls.start_soon(poll, listener.socket.getsockname())
            await all_parked.wait()
            lose(loss)
            await trio.sleep(seconds)
            end.set()
        stop.set()
    return count - answered


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("polls", "seconds", "loss", "interval", "probes", "user-timeout"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--idle", required=True, help="seconds, the shortest and the longest: 3-6")
    options = parser.parse_args()
    shortest, longest = map(int, options.idle.split("-"))
    values = {
        "LONGEST_IDLE_S": longest,
        "INTERVAL_S": options.interval,
        "PROBES": options.probes,
        "USER_TIMEOUT_MS": 1000 * options.user_timeout,
    }
    status = 0
    try:
        start_network()
        with (
            patch.multiple(keepalive, **values),
            patch.object(socket_stream, "idle_times", lambda: cycle(range(shortest, longest + 1))),
        ):
            print(trio.run(park, options.polls, options.seconds, options.loss))
    except* CannotLose as error:
        print(f"no packets can be lost here: {error.exceptions[0]}", file=sys.stderr)
        status = CANNOT
    return status


if __name__ == "__main__":
    sys.exit(main())
