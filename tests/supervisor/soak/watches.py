"""What ``scripts/soak hour`` watches past its time, beside the load: the service manager's watchdog, a token's age, a
log that was moved away, when agents were seen last. Each says what was wrong, a sentence each."""

from __future__ import annotations

import math
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import trio
from attrs import Factory, define

from tests.e2e.processes import Files, tool
from wazuh_comms_trio.services.authentication.tokens import LIFETIME
from wazuh_comms_trio.testing import AgentClient, ExchangeFailed, Reply

#: Seconds without a sign of life after which a service manager would kill the daemon; the unit has as many.
WATCHDOG: Final = 30.0
#: Seconds between two requests with a token that grows old, and around its end in which either answer is right.
OLD_TOKEN, EITHER = 20.0, 10.0
#: Seconds after which an agent's last sign of life is written at the latest, on a busy machine.
SEEN_WITHIN: Final = 180.0


@define
class Watchdog:
    """The service manager's end of ``NOTIFY_SOCKET``: the longest time between two signs of life."""

    signs: int = 0
    longest: float = 0.0
    _last: float = math.nan

    def heard(self, now: float) -> None:
        if self.signs:
            self.longest = max(self.longest, now - self._last)
        self.signs, self._last = self.signs + 1, now

    def wrong(self, now: float) -> list[str]:
        if not self.signs:
            return ["the watchdog was never fed"]
        longest = max(self.longest, now - self._last)
        return [f"the watchdog wasn't fed for {longest:.1f} s"] if longest > WATCHDOG else []


@asynccontextmanager
async def service_manager(path: Path) -> AsyncIterator[tuple[Watchdog, dict[str, str]]]:
    """Listens while the block runs. With what the daemon's environment has to say of it."""
    watchdog = Watchdog()

    async def listen(sock: trio.socket.SocketType) -> None:
        while True:
            message = await sock.recv(4096)
            if b"WATCHDOG=1" in message.split(b"\n"):
                watchdog.heard(trio.current_time())

    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        await sock.bind(str(path))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen, sock)
            yield watchdog, {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(int(WATCHDOG * 1e6))}
            nursery.cancel_scope.cancel()


@define
class OldToken:
    """An agent that uses its token until it is refused, and only then logs in again."""

    agent: AgentClient
    answers: Counter[int] = Factory(Counter)
    renewed: int = 0
    wrong: list[str] = Factory(list)

    async def run(self) -> None:
        began = await self._log_in()
        while True:
            await trio.sleep(OLD_TOKEN)
            try:
                reply = await self.agent.get_file("default.conf")
            except ExchangeFailed as error:
                self.wrong.append(f"a request with an old token: {error}")
                continue
            self.judge(reply, time.time() - began)
            if reply.status != 200:
                began = await self._log_in()
                self.renewed += 1

    def judge(self, reply: Reply, age: float) -> None:
        self.answers[reply.status] += 1
        good = {200} if age < LIFETIME - EITHER else {403} if age > LIFETIME + EITHER else {200, 403}
        if reply.status not in good:
            self.wrong.append(f"a token of {age:.0f} s was answered {reply.status}")

    async def _log_in(self) -> float:
        began = time.time()
        reply = await self.agent.authenticate()
        assert reply.status == 200, reply
        return began


async def not_seen(files: Files, agents: Sequence[AgentClient]) -> list[str]:
    """Of agents that are at work: whose last sign of life is too old in the store."""
    now = time.time()
    seen = {row["uuid"]: row["last_seen"] for row in await tool(files, "agents", "list")}
    ages = [math.inf if (at := seen[each.uuid]) is None else now - epoch(at) for each in agents]
    late = sum(age > SEEN_WITHIN for age in ages)
    return [f"{late} agents were seen {max(ages):.0f} s ago"] if late else []


def epoch(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
