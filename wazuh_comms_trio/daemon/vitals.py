"""How a worker is: measured by itself, told to the supervisor in each beat and to operators by ``status``."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import trio

from wazuh_comms_trio.daemon.worker import Worker
from wazuh_comms_trio.services.seams import WallClock

__all__ = ["LastError", "Vitals"]

logger = logging.getLogger(__name__)

#: How often the event loop's lag is measured, seconds; what is worth a line in the log, and how often.
INTERVAL: Final = 0.2
LAG_LIMIT: Final = 0.1
LAG_LOG_INTERVAL: Final = 10.0
#: The lag that is told is the worst of so many seconds.
WINDOW: Final = 10.0


class LastError(logging.Handler):
    """Remembers the last line of level ERROR or worse."""

    def __init__(self, mask: Callable[[str], str]) -> None:
        super().__init__(logging.ERROR)
        self._mask = mask
        self.text: str | None = None
        self.when: float | None = None

    @contextmanager
    def attached(self) -> Iterator[None]:
        """To everything that this process logs."""
        root = logging.getLogger()
        root.addHandler(self)
        try:
            yield
        finally:
            root.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.text, self.when = self._mask(record.getMessage()), record.created


class Vitals:
    """``run`` measures until cancelled; ``report`` is a snapshot as JSON has it: seconds, counts."""

    def __init__(self, worker: Worker, last_error: LastError, *, wall_clock: WallClock) -> None:
        self._worker = worker
        self._last_error = last_error
        self._wall_clock = wall_clock
        self._started = wall_clock()
        self._lags: list[tuple[float, float]] = []
        self._logged = -LAG_LOG_INTERVAL

    @property
    def lag(self) -> float:
        """How late the event loop was at worst, in the last ten seconds."""
        return max((lag for _, lag in self._lags), default=0.0)

    async def run(self) -> None:
        while True:
            due = trio.current_time() + INTERVAL
            await trio.sleep_until(due)
            self._note(trio.current_time(), trio.current_time() - due)

    def _note(self, now: float, lag: float) -> None:
        self._lags.append((now, lag))
        while self._lags[0][0] < now - WINDOW:
            self._lags.pop(0)
        if lag > LAG_LIMIT and now - self._logged >= LAG_LOG_INTERVAL:
            self._logged = now
            logger.warning("the event loop was %.0f ms late", lag * 1000)

    def report(self) -> dict[str, Any]:
        services = self._worker.services
        stateful = services.stateful.statistics()
        return {
            "pid": os.getpid(),
            "age": round(self._wall_clock() - self._started, 1),
            "lag": round(self.lag, 4),
            "connections": sum(edge.connections for edge in self._worker.edges),
            "parked": services.commands.parked,
            "backend": services.readiness.state,
            "batcher": {
                "waiting": stateful.waiting,
                "room": stateful.room,
                "batches_in_flight": stateful.batches_in_flight,
                "pieces_in_flight": stateful.pieces_in_flight,
            },
            "last_error": None
            if self._last_error.text is None
            else {"text": self._last_error.text, "time": self._last_error.when},
        }
