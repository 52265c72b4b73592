"""What a node's workers heard of agents is stored about once a minute, by the leader for all of them.

No request waits for it: each worker's journal says which agents it heard, the leader asks for that, and writes some of
them a call. A store that fails costs a line in the log; what wasn't written is written later, unless more than
``MOST`` agents wait.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

import trio

from wazuh_comms_trio.backends.leadership import Finding, Leadership
from wazuh_comms_trio.backends.presence import Heard, PresenceStore, Status
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.aligned_timer import sleep_until_next_tick
from wazuh_comms_trio.foundation.environment import WallClock
from wazuh_comms_trio.foundation.outage_log import OutageLog
from wazuh_comms_trio.metrics import families
from wazuh_comms_trio.metrics.counting import Reading
from wazuh_comms_trio.services.agent_journal import AgentJournal, joined_news

__all__ = ["GATHER", "INTERVAL", "PresenceRecorder"]

logger = logging.getLogger(__name__)

#: Seconds between two writes; what the other workers hand over takes ``GATHER`` more, and all is less than a minute.
INTERVAL: Final = 55.0
GATHER: Final = 1.0
#: Agents in one call, and in one message of a worker.
PART: Final = 200
#: Agents that wait to be written, at most: some 100 bytes each, with what other nodes may read a kilobyte.
MOST: Final = 100_000
_TOPIC: Final = "heard"


class PresenceRecorder:
    """Records what agents did, as one worker heard of it. ``after``: seconds of silence after which an agent is
    ``disconnected``."""

    def __init__(
        self,
        journal: AgentJournal,
        store: PresenceStore,
        leadership: Leadership,
        *,
        after: float,
        wall_clock: WallClock,
    ) -> None:
        self._journal = journal
        self._store = store
        self._leadership = leadership
        self._after = after
        self._now = wall_clock
        self._waiting: dict[str, Heard] = {}
        self._asked = trio.Event()
        self._counts: Mapping[Status, int] = {}
        self._outage = OutageLog(logger, "when agents were heard last", clock=trio.current_time)
        leadership.register(_TOPIC, on_finding=self._ask, on_request=self._take_over, on_change=self._forget_counts)

    def read(self) -> Iterator[Reading]:
        """The agents by status, as the leader counted them last; nothing in another worker."""
        for status, number in self._counts.items():
            yield families.AGENTS, (status,), number

    @property
    def failing(self) -> bool:
        """Whether the last write failed: agents that are there may look silent then."""
        return self._outage.failing

    async def run(self) -> None:
        """Writes about once a minute, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hand_over)
            while True:
                await sleep_until_next_tick(INTERVAL)
                if not self._leadership.is_leader:
                    continue
                try:
                    self._leadership.publish(_TOPIC, {})
                    await trio.sleep(GATHER)
                    await self._collect()
                    await self.write()
                except Exception:
                    logger.exception("when agents were heard last can't be kept: an error of ours")

    async def write(self) -> None:
        """Writes everything that waits, and counts agents then. What fails is in the log, and waits on."""
        left, self._waiting = self._waiting, {}
        part: list[Heard] = []
        try:
            while left:
                part = list(islice(left.values(), PART))
                await self._store.record(part)
                for each in part:
                    del left[each.agent_id]
            self._counts = await self._store.counts(self._now() - self._after)
            self._outage.worked()
        except BackendUnavailable as exc:
            self._counts = {}
            self._outage.failed(f"{exc.message}; agents are served as ever", kind="can't be kept")
            self._put_back(left)
        except Exception:  # an error of ours: what it concerns would fail again
            for each in part:
                left.pop(each.agent_id, None)
            self._put_back(left)
            raise

    def _put_back(self, left: Mapping[str, Heard]) -> None:
        later, self._waiting = self._waiting, {}
        for heard in [*left.values(), *later.values()]:
            self._add(heard)

    async def _collect(self) -> None:
        """Takes what this worker heard. It takes turns with requests."""
        since, heard = self._journal.take()
        keeps_news = self._store.keeps_news
        for number, (agent_id, (seen, sent)) in enumerate(heard.items()):
            news = self._journal.news(agent_id, since) if keeps_news else {}
            self._add(Heard(agent_id, seen, sent, news))
            if number % PART == PART - 1:
                await trio.lowlevel.checkpoint()

    def _add(self, heard: Heard) -> None:
        known = self._waiting.pop(heard.agent_id, None)
        self._waiting[heard.agent_id] = heard if known is None else _joined(known, heard)
        if len(self._waiting) > MOST:
            del self._waiting[next(iter(self._waiting))]

    # --- with other workers

    def _ask(self, _: Finding) -> None:
        self._asked.set()

    async def _hand_over(self) -> None:
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            try:
                await self._collect()
                await self._hand_over_waiting()
            except Exception:
                logger.exception("when agents were heard last can't be handed over: an error of ours")

    async def _hand_over_waiting(self) -> None:
        while self._waiting and not self._leadership.is_leader:
            part = list(islice(self._waiting.values(), PART))
            rows = [[each.agent_id, each.seen, each.sent, dict(each.news)] for each in part]
            self._leadership.ask_leader(_TOPIC, {"agents": rows})
            for each in part:
                del self._waiting[each.agent_id]
            await trio.lowlevel.checkpoint()

    def _take_over(self, request: Finding) -> None:
        rows: list[Any] = request["agents"]
        for agent_id, seen, sent, news in rows:
            self._add(Heard(agent_id, seen, sent, news))

    def _forget_counts(self) -> None:
        self._counts = {}


def _joined(one: Heard, other: Heard) -> Heard:
    return Heard(
        one.agent_id,
        _later(one.seen, other.seen),
        _later(one.sent, other.sent),
        joined_news(one.news, other.news) if one.news and other.news else one.news or other.news,
    )


def _later(one: float | None, other: float | None) -> float | None:
    return max((moment for moment in (one, other) if moment is not None), default=None)
