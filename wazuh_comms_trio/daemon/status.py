"""How the daemon is: the status document, as the command socket answers it and the operator's tool reads it.

A worker says how it is (``WorkerReport``), the supervisor adds what it knows of the worker and of the daemon. Reports
travel as JSON objects, and the supervisor passes them on whole, so that what a later version's worker says besides
reaches a later version's tool. Moments are epoch seconds, durations seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import msgspec

__all__ = [
    "BulkWriterReport",
    "DaemonStatus",
    "LoggedError",
    "TokenKeysReport",
    "WorkerReport",
    "WorkerState",
    "WorkerStatus",
    "read_status",
    "readiness",
    "report_document",
    "status_document",
    "worker_document",
]

WorkerState: TypeAlias = Literal["starting", "serving", "stopping"]


class BulkWriterReport(msgspec.Struct, frozen=True, kw_only=True):
    """The load of the stateful events: packets that wait and that there is room for, calls that are under way."""

    waiting: int = 0
    room: int = 0
    batches_in_flight: int = 0
    pieces_in_flight: int = 0


class LoggedError(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the log, without secrets."""

    text: str
    time: float | None = None


class TokenKeysReport(msgspec.Struct, frozen=True, kw_only=True):
    """Ids (``kid``) of the key that signs tokens, of all keys whose tokens are good, and of those that were revoked."""

    signing: str
    accepted: list[str] = []
    revoked: list[str] = []


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says of itself; ``lag``: the worst delay of the event loop, of late. ``crowded``: connections wait
    until fewer files are open. ``parked``: long polls. ``tasks``: of the event loop. ``backend``: ``ready``, or why it
    isn't. ``quarantine``: a sentence when events that can't be taken find no room there. ``refused``: a sentence for
    each of what was beyond a limit within the last minute; ``refused_total``: requests and connections since the start.
    ``warnings``: sentences about what is going to hurt. A worker that hasn't reported yet: None."""

    pid: int | None = None
    age: float | None = None
    lag: float | None = None
    connections: int | None = None
    crowded: bool | None = None
    parked: int | None = None
    tasks: int | None = None
    backend: str | None = None
    batcher: BulkWriterReport | None = None
    last_error: LoggedError | None = None
    quarantine: str | None = None
    refused: list[str] = []
    refused_total: int | None = None
    warnings: list[str] = []
    keys: TokenKeysReport | None = None


class WorkerStatus(WorkerReport, frozen=True, kw_only=True):
    """One worker of the status document; ``state`` is a ``WorkerState``, or a later version's. ``heard``: how long ago
    the last message came from the worker."""

    name: str
    generation: int
    state: str
    heard: float


class DaemonStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The status document; ``generation``: of the configuration that is in force. ``reload``: the daemon can be
    reloaded. ``up``: for how long it runs, whatever became of the clock since ``started``. ``warnings``: sentences for
    the operator. ``drained``: for how long the node is; None, and missing: it isn't."""

    generation: int
    configured_workers: int
    workers: list[WorkerStatus]
    started: float | None = None
    up: float | None = None
    warnings: list[str] = []
    reload: bool = False
    drained: float | None = None


def report_document(report: WorkerReport) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(report)
    return document


def worker_document(
    name: str, *, generation: int, state: WorkerState, heard: float, report: dict[str, Any]
) -> dict[str, Any]:
    """One worker's part of the status document; ``report`` is a worker's as it came, empty before the first."""
    return {"name": name, "generation": generation, "state": state, "heard": round(heard, 1), **report}


def status_document(
    *,
    started: float,
    up: float,
    warnings: Sequence[str],
    generation: int,
    configured_workers: int,
    reload: bool,
    workers: Sequence[dict[str, Any]],
    drained: float | None = None,
) -> dict[str, Any]:
    return {
        "started": started,
        "up": round(up, 1),
        "warnings": list(warnings),
        "generation": generation,
        "configured_workers": configured_workers,
        "reload": reload,
        "workers": list(workers),
        **({} if drained is None else {"drained": round(drained, 1)}),
    }


def readiness(status: dict[str, Any]) -> dict[str, Any]:
    """``{"ready", "reasons"}`` of a status document: whether the node can take events now, and if not why, a sentence
    each. A worker that can't is a reason though others can: agents are spread over all of them."""
    serving = [worker for worker in status["workers"] if worker["state"] == "serving"]
    reasons = [] if serving else ["no worker serves"]
    if status.get("drained") is not None:
        reasons.append("drained")
    for worker in serving:
        backend = worker.get("backend")
        if backend not in (None, "ready"):
            reasons.append(f"worker {worker['name']}: {backend}")
        if worker.get("crowded"):
            reasons.append(f"worker {worker['name']}: connections have to wait, too many files are open")
    return {"ready": not reasons, "reasons": reasons}


def read_status(document: object) -> DaemonStatus:
    """Reads a status document; ignores what a later version says besides. Raises ``ValueError`` for what isn't a
    status."""
    return msgspec.convert(document, DaemonStatus)
