"""What ``scripts/soak`` runs: the tests' situations, many times."""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tests.backup.every_byte import KINDS as FILE_KINDS
from tests.backup.every_byte import every_byte
from tests.e2e.processes import Files, start_daemon, write_files
from tests.hostile.soak import hostile
from tests.indexer.cluster import nodes as indexer_nodes
from tests.indexer.three_daemons import Scale, three_nodes
from tests.lossy_network import CannotLose, in_namespace
from tests.supervisor.nodes import add_logged_in, ask, kill, parked, post, serving, under_load
from tests.supervisor.soak.hour import WORKERS as HOUR_WORKERS
from tests.supervisor.soak.hour import hour
from tests.supervisor.soak.leases import leases
from tests.supervisor.soak.polls import polls
from tests.supervisor.soak.starts import KINDS, prepare
from wazuh_comms_trio.testing import AgentClient, ExchangeFailed, throwaway_certificate

POST_SIZE = 200


def files_in(folder: Path, workers: int, **changes: Any) -> Files:
    certificate = throwaway_certificate()
    changes = {"logging": {"level": "info"}, **changes}
    return write_files(folder, certificate.cert, certificate.key, workers=workers, **changes)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


# --- starts

#: Most nodes have two or more; each costs half a second of a core.
WORKERS = (1, 1, 2, 2, 2, 4)


async def starts(files: Files, count: int) -> None:
    """Of every kind, in a random order that is the same each time."""
    place = await prepare(files)
    rng = random.Random(1)
    done: Counter[str] = Counter()
    began = time.monotonic()
    for number in range(1, count + 1):
        name, workers = rng.choice(list(KINDS)), rng.choice(WORKERS)
        await place.start_and_stop(name, workers, rng)
        done[name] += 1
        if number % 50 == 0 or number == count:
            say(f"{number} starts and stops, {(time.monotonic() - began) / number:.2f} s each")
    say(", ".join(f"{name} {times}" for name, times in sorted(done.items())))


# --- delivery


async def delivery(files: Files, workers: int, agents_count: int, commands_count: int, *, killing: bool) -> None:
    async with start_daemon(files, expect_errors=killing, limit=math.inf) as daemon:
        pids = await serving(files, workers)
        agents = await add_logged_in(daemon, agents_count)
        say(f"{agents_count} agents are enrolled")
        wanted: dict[str, set[str]] = {agent.uuid: set() for agent in agents}
        commands = [(f"{number}", agents[number % agents_count].uuid) for number in range(commands_count)]
        for name, uuid in commands:
            wanted[uuid].add(name)
        got: Counter[str] = Counter()
        connecting = trio.CapacityLimiter(100)  # as many handshakes at a time

        async def work(agent: AgentClient) -> None:
            mine: set[str] = set()
            while mine != wanted[agent.uuid]:
                try:
                    async with connecting:
                        await trio.lowlevel.checkpoint()
                    reply = await agent.poll()
                except ExchangeFailed:
                    await trio.sleep(0.1)
                    continue
                for command in reply.json().get("commands", []):
                    mine.add(command["document_id"])
                    got[command["document_id"]] += 1

        async with trio.open_nursery() as nursery:
            for agent in agents:
                nursery.start_soon(work, agent)
            await parked(files, agents_count)
            say("all are parked")
            began = trio.current_time()

            async def post_some(some: list[tuple[str, str]]) -> None:
                """As a poster: a 503 says that nothing is certain, so the same again; ids keep it from being twice."""
                while True:
                    with suppress(AssertionError):
                        await post(files, some)
                        return
                    await trio.sleep(0.5)

            async with trio.open_nursery() as posting:
                for begin in range(0, commands_count, POST_SIZE):
                    posting.start_soon(post_some, commands[begin : begin + POST_SIZE])
                if killing:
                    while sum(got.values()) < commands_count / 4:  # noqa: ASYNC110
                        await trio.sleep(0.01)
                    kill(pids[0])
        twice = sum(count - 1 for count in got.values())
        say(f"{len(got)} commands in {trio.current_time() - began:.1f} s, {twice} of them twice")
        assert len(got) == commands_count
        assert killing or twice == 0


# --- reload


async def reload(files: Files, minutes: float) -> None:
    async with start_daemon(files, limit=math.inf) as daemon:
        await serving(files, 2)
        until = trio.current_time() + 60 * minutes
        turns = 0
        async with under_load(daemon) as load:
            while trio.current_time() < until:
                reply = (await ask(files, "POST", "/api/v1/reload")).json()
                assert reply["reloaded"], reply
                turns += 1
                await serving(files, 2, generation=turns + 1)
                assert load.failed == [], load.failed
        say(f"{turns} reloads, {load.requests} requests")


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak")
    kinds = parser.add_subparsers(dest="kind", required=True)
    kinds.add_parser("starts").add_argument("count", type=int, nargs="?", default=1000)
    kinds.add_parser("reload").add_argument("minutes", type=float, nargs="?", default=10)
    of_delivery = kinds.add_parser("delivery")
    of_delivery.add_argument("--workers", type=int, default=4)
    of_delivery.add_argument("--agents", type=int, default=5000)
    of_delivery.add_argument("--commands", type=int, default=10_000)
    of_delivery.add_argument("--kill", action="store_true")
    kinds.add_parser("hour").add_argument("--minutes", type=float, default=60)
    kinds.add_parser("leases")
    flips = kinds.add_parser("bytes")
    flips.add_argument("--step", type=int, default=1)
    flips.add_argument("--only", action="append", choices=FILE_KINDS)
    kinds.add_parser("hostile").add_argument("--only", metavar="ATTACK", help="those with this in their name")
    of_nodes = kinds.add_parser("nodes")
    of_nodes.add_argument("--agents", type=int, default=1000)
    of_nodes.add_argument("--period", type=float, default=60.0, metavar="SECONDS", help="between an agent's events")
    of_polls = kinds.add_parser("polls")
    of_polls.add_argument("--polls", type=int, default=1000)
    of_polls.add_argument("--seconds", type=float, default=400)
    of_polls.add_argument("--loss", type=int, default=5, metavar="PERCENT")
    of_polls.add_argument("--in-namespace", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kind == "polls" and not options.in_namespace:
        command = in_namespace([sys.executable, "-m", __spec__.name, *sys.argv[1:], "--in-namespace"])
        os.execvp(command[0], command)
    with tempfile.TemporaryDirectory(prefix="wazuh-comms-soak-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if options.kind == "starts":
            trio.run(starts, files_in(folder, 2), options.count)
        elif options.kind == "reload":
            trio.run(reload, files_in(folder, 2), options.minutes)
        elif options.kind == "hour":
            wrong = trio.run(hour, files_in(folder, HOUR_WORKERS), options.minutes, say)
            for sentence in wrong:
                say(f"WRONG: {sentence}")
            return int(bool(wrong))
        elif options.kind == "leases":
            trio.run(leases, folder, say)
        elif options.kind == "bytes":
            sys.exit(every_byte(folder, step=options.step, only=options.only))
        elif options.kind == "hostile":
            trio.run(partial(hostile, folder, say, only=options.only))
        elif options.kind == "nodes":
            with indexer_nodes(1, heap="1g") as (node,):
                certificate = throwaway_certificate()
                scale = Scale(options.agents, period=options.period)
                _, wrong = trio.run(three_nodes, folder, certificate, node.port, scale, say)
            for sentence in wrong:
                say(f"WRONG: {sentence}")
            return int(bool(wrong))
        elif options.kind == "polls":
            try:
                make_files = partial(files_in, folder)
                trio.run(polls, make_files, options.polls, options.seconds, options.loss, say)
            except* CannotLose as error:
                say(f"skipped: no packets can be lost here: {error.exceptions[0]}")
        else:

            async def run() -> None:
                await delivery(
                    files_in(folder, options.workers),
                    options.workers,
                    options.agents,
                    options.commands,
                    killing=options.kill,
                )

            trio.run(run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
