"""``scripts/soak polls``: polls that are parked for minutes while packets are lost; each ends with its own 408."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import trio

from tests.e2e.processes import Files, start_daemon
from tests.lossy_network import lose, start_network
from tests.supervisor.nodes import add_logged_in, parked, serving
from wazuh_comms_trio.testing import AgentClient, ExchangeFailed

MakeFiles = Callable[..., Files]

WORKERS = 2
#: A poll's limit is ± 10 %.
SPREAD = 0.1
#: Seconds beyond that: for what is lost of the answer, and a busy machine.
SPARE = 10.0
HANDSHAKES = 50


async def polls(make_files: MakeFiles, count: int, seconds: float, loss: int, say: Callable[[str], None]) -> None:
    """Each is parked for at least ``seconds``. Raises ``AssertionError`` unless each ended with a 408 at its time,
    ``CannotLose`` where no packets can be lost."""
    start_network()
    limit = seconds / (1 - SPREAD)
    files = make_files(workers=WORKERS, logging={"level": "info"}, timeouts={"commands": limit})
    ends: Counter[str] = Counter()
    lives: list[float] = []

    async def poll(agent: AgentClient) -> None:
        began = time.monotonic()
        try:
            reply = await agent.poll()
        except ExchangeFailed as error:
            ends[f"{error} after {time.monotonic() - began:.0f} s"] += 1
            return
        lives.append(time.monotonic() - began)
        ends[f"{reply.status}"] += 1

    async with start_daemon(files, limit=float("inf")) as daemon:
        await serving(files, WORKERS)
        agents = await add_logged_in(daemon, count)
        async with trio.open_nursery() as nursery:
            for number, agent in enumerate(agents, 1):
                nursery.start_soon(poll, agent)
                if number % HANDSHAKES == 0:
                    await parked(files, number)
            await parked(files, count)
            lose(loss)
            say(f"{count} polls are parked for {seconds:.0f} s or more; from now on {loss} % of all packets are lost")
    say(", ".join(f"{times} ended with {end}" for end, times in ends.most_common()))
    assert ends == {"408": count}, "not every poll ended with its own 408"
    say(f"after {min(lives):.0f} to {max(lives):.0f} s; the limit is {limit:.0f} s, more or less a tenth")
    assert min(lives) >= seconds
    assert max(lives) <= limit * (1 + SPREAD) + SPARE
