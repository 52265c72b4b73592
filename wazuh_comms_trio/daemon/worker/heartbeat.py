"""How a worker is: it measures that itself, and reports it to the supervisor in each heartbeat."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import Final

import trio

from wazuh_comms_trio.backends.local_node import LocalNode
from wazuh_comms_trio.daemon.status import BulkWriterReport, LoggedError, TokenKeysReport, WorkerReport
from wazuh_comms_trio.daemon.worker.tree import Worker
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.outage_log import LogInterval
from wazuh_comms_trio.services.authentication.tokens import TokenKeys

__all__ = ["Heartbeat", "LastError"]

logger = logging.getLogger(__name__)

#: A lag that is worth a line in the log, and how often; seconds.
LAG_LIMIT: Final = 0.1
LAG_LOG_INTERVAL: Final = 10.0
#: The lag that is reported is the worst of this many seconds.
WINDOW: Final = 10.0
#: Less than this isn't noted.
LEAST_LAG: Final = 0.002
#: From this on nobody else is to pay for it, seconds: peers have a few seconds at least for each of their steps.
STOOD_STILL: Final = 1.0


class LoopLag(trio.abc.Instrument):
    """How late the event loop is: how long it runs tasks before it looks again for what has come. Measured at every
    turn, with no timer: nothing is missed, and an idle process stays idle. Only turns that no later one was as long as
    are remembered: a few dozen. So is a wait that ends later than it should: the process was stopped, or its machine
    was. ``stood_still`` is told how long either was, when that was long, before any time limit is looked at."""

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        stood_still: Callable[[float], object] = lambda seconds: None,
    ) -> None:
        self._clock = clock
        self._stood_still = stood_still
        self._woke = self._slept = clock()
        self._turns: deque[tuple[float, float]] = deque()
        self._log_interval = LogInterval(LAG_LOG_INTERVAL, clock)
        self._context = copy_context()

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Measures the event loop that runs now while the block runs. It calls us in no task's context, so that what
        log lines carry is kept."""
        self._context = copy_context()
        trio.lowlevel.add_instrument(self)
        try:
            yield
        finally:
            trio.lowlevel.remove_instrument(self)

    @property
    def worst(self) -> float:
        """The worst delay of the last ten seconds, in seconds."""
        self._forget(self._clock())
        return max((lag for _, lag in self._turns), default=0.0)

    def after_io_wait(self, timeout: float) -> None:
        self._woke = now = self._clock()
        if (lag := now - self._slept - timeout) > STOOD_STILL:
            self._note(now, lag)

    def before_io_wait(self, timeout: float) -> None:
        self._slept = now = self._clock()
        if (lag := now - self._woke) >= LEAST_LAG:
            self._note(now, lag)

    def _note(self, now: float, lag: float) -> None:
        self._forget(now)
        # What is older and no longer can't be the worst any more.
        while self._turns and self._turns[-1][1] <= lag:
            self._turns.pop()
        self._turns.append((now, lag))
        if lag > LAG_LIMIT and self._log_interval.is_over():
            self._context.run(logger.warning, "the event loop was %.0f ms late", lag * 1000)
        if lag > STOOD_STILL:
            self._stood_still(lag)

    def _forget(self, now: float) -> None:
        while self._turns and self._turns[0][0] < now - WINDOW:
            self._turns.popleft()


class LastError(logging.Handler):
    """Remembers the last line of level ERROR or worse."""

    def __init__(self, mask: Callable[[str], str]) -> None:
        super().__init__(logging.ERROR)
        self._mask = mask
        self.text: str | None = None
        self.when: float | None = None

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Listens, while the block runs, to everything that this process logs."""
        root = logging.getLogger()
        root.addHandler(self)
        try:
            yield
        finally:
            root.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.text, self.when = self._mask(record.getMessage()), record.created


def keys_report(keys: TokenKeys) -> TokenKeysReport:
    return TokenKeysReport(signing=keys.kid, accepted=keys.kids, revoked=keys.revoked)


class Heartbeat:
    """``run`` measures until cancelled; ``report`` is a snapshot."""

    def __init__(self, worker: Worker, last_error: LastError, node: LocalNode | None = None) -> None:
        self._worker = worker
        self._node = node
        self._last_error = last_error
        self._started = trio.current_time()
        self._lag = LoopLag(stood_still=self._peers_have_longer)
        #: What is going to hurt, a sentence each.
        self.warnings: list[str] = []

    async def run(self) -> None:
        with self._lag.attached():
            await trio.sleep_forever()

    def _peers_have_longer(self, seconds: float) -> None:
        for context in self._worker.contexts:
            context.stood_still(seconds)

    @property
    def lag(self) -> float:
        """The worst delay of the event loop in the last ten seconds."""
        return self._lag.worst

    def _about_nodes(self) -> Iterator[str]:
        if self._node is not None:
            for sentences in self._node.warnings.values():
                yield from sentences.values()

    async def look(self) -> None:
        """Looks at the stores, so that the next report says how they are now, as ``GET /api/v1/ready`` does."""
        with suppress(BackendUnavailable):
            await self._worker.services.readiness.check()

    def report(self) -> WorkerReport:
        services, error = self._worker.services, self._last_error
        stateful = services.stateful.statistics()
        services.refusals.say()
        return WorkerReport(
            pid=os.getpid(),
            age=round(trio.current_time() - self._started, 1),
            lag=round(self._lag.worst, 4),
            connections=sum(context.connections for context in self._worker.contexts),
            crowded=any(context.out_of_descriptors for context in self._worker.contexts),
            parked=services.commands.parked,
            tasks=trio.lowlevel.current_statistics().tasks_living,
            backend=services.readiness.state,
            batcher=BulkWriterReport(
                waiting=stateful.waiting,
                room=stateful.room,
                batches_in_flight=stateful.batches_in_flight,
                pieces_in_flight=stateful.pieces_in_flight,
            ),
            quarantine=stateful.quarantine,
            refused=services.refusals.lines(),
            warnings=[*self.warnings, *self._about_nodes(), *services.failing.lines()],
            refused_total=services.refusals.total,
            keys=None if (keys := services.keys) is None else keys_report(keys),
            last_error=None if error.text is None else LoggedError(text=error.text, time=error.when),
        )
