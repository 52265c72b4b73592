"""What ``scripts/soak hour`` watches past its time, beside the load: the service manager's watchdog, a token's age,
when agents were seen last. What was wrong is a sentence each."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import trio
from attrs import Factory, define

from tests.e2e.processes import Files, tool
from wazuh_comms_trio.services.authentication.tokens import LIFETIME
from wazuh_comms_trio.testing import AgentClient, ExchangeFailed, Reply

#: Seconds without a sign of life after which a service manager would kill the daemon; the unit has as many.
WATCHDOG: Final = 30.0
WATCHDOG_USEC: Final = str(int(WATCHDOG * 1e6))
#: Seconds between two requests with a token that grows old, and around its end in which either answer is right.
OLD_TOKEN, EITHER = 20.0, 10.0
#: Seconds after which an agent's last sign of life is written at the latest, on a busy machine.
SEEN_WITHIN: Final = 180.0


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
        """The moment before the log-in that was taken; those that weren't are wrong."""
        while True:
            began = time.time()
            try:
                reply = await self.agent.authenticate()
            except ExchangeFailed as error:
                self.wrong.append(f"a log-in: {error}")
            else:
                if reply.status == 200:
                    return began
                self.wrong.append(f"a log-in was answered {reply.status}")
            await trio.sleep(1)


async def not_seen(files: Files, agents: Sequence[AgentClient]) -> list[str]:
    """Of agents that are at work: whose last sign of life is too old in the store."""
    now = time.time()
    seen = {row["uuid"]: row["last_seen"] for row in await tool(files, "agents", "list")}
    ages = [math.inf if (at := seen[each.uuid]) is None else now - epoch(at) for each in agents]
    late = sum(age > SEEN_WITHIN for age in ages)
    return [f"{late} agents were seen {max(ages):.0f} s ago"] if late else []


def epoch(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def not_fed(pause: float) -> list[str]:
    """``pause``: as ``Manager.fed`` says, seconds."""
    return [f"the watchdog wasn't fed for {pause:.1f} s"] if pause > WATCHDOG else []
