"""``wazuh-comms status``: how the running daemon and its workers are."""

from __future__ import annotations

import re
import time
from argparse import Namespace
from typing import TYPE_CHECKING, Final

from wazuh_comms_trio.cli.command_socket import EXIT_NOT_RUNNING, ask_daemon
from wazuh_comms_trio.cli.output import Output, duration, lines, pairs, table
from wazuh_comms_trio.cli.parser import Group
from wazuh_comms_trio.cli.program import Failure

if TYPE_CHECKING:
    from wazuh_comms_trio.daemon.status import DaemonStatus

EXIT_WELL: Final = 0
EXIT_DEGRADED: Final = 1

#: Seconds.
STATUS_TIMEOUT: Final = 5.0
#: Seconds. A worker whose event loop is later than that isn't well.
WORST_LAG: Final = 1.0
#: Seconds. Workers are asked every second and a half; a worker that was silent for longer hangs, and is soon replaced.
WORST_SILENCE: Final = 3.0


def add_parser(parent: Group) -> None:
    parent.command(
        "status",
        _status,
        help="how the running daemon and its workers are",
        description=f"How the running daemon is. Exit status: {EXIT_WELL} all is well, {EXIT_DEGRADED} something isn't"
        " (fewer workers than configured, a drained node, an event loop that lags or hangs, connections that have to"
        " wait for descriptors, a backend that is away, a quarantine without room),"
        f" {EXIT_NOT_RUNNING} it doesn't run.",
    )


#: Of each store that fails there is its name, and why.
_STORE: Final = re.compile(r"(?:^|; )(\w+): ")
#: Columns that a narrow terminal does without.
_SPARE: Final = ("PID", "WAITING", "CONNS", "AGE", "PARKED", "BACKEND", "LAG")


def _status(arguments: Namespace) -> int:
    from wazuh_comms_trio.daemon.status import read_status

    document = ask_daemon(arguments, "GET", "/api/v1/status", STATUS_TIMEOUT)
    try:
        status = read_status(document)
    except ValueError as error:
        raise Failure(f"the daemon's status isn't understood: {error}") from error
    problems = find_problems(status)
    serving = sum(worker.state == "serving" for worker in status.workers)
    up = status.up
    if up is None and status.started is not None:  # an older daemon: by a clock that may have been set since
        up = time.time() - status.started
    head = {
        "up": None if up is None else duration(up),
        "workers": f"{serving} of {status.configured_workers} serve",
        "generation": status.generation,
        "parked polls": sum(worker.parked or 0 for worker in status.workers),
        **({} if status.drained is None else {"drained": f"for {duration(status.drained)}"}),
    }
    heads = ["WORKER", "PID", "STATE", "AGE", "LAG", "CONNS", "PARKED", "WAITING", "BACKEND", "LAST ERROR"]
    rows = [
        [
            worker.name,
            worker.pid,
            worker.state,
            duration(worker.age or 0),
            f"{(worker.lag or 0) * 1000:.0f} ms",
            worker.connections,
            worker.parked,
            worker.batcher and worker.batcher.waiting,
            failing_stores(worker.backend or ""),  # the reasons are among the problems
            worker.last_error and worker.last_error.text,
        ]
        for worker in status.workers
    ]
    text = "\n".join([pairs(head), "", table(heads, rows, _SPARE), *(["", lines(problems)] if problems else [])])
    Output(as_json=arguments.json).document({**document, "problems": problems}, text)
    return EXIT_DEGRADED if problems else EXIT_WELL


def failing_stores(backend: str) -> str:
    """The names alone; ``ready`` and the like as they are."""
    return ", ".join(_STORE.findall(backend)) or backend


def find_problems(status: DaemonStatus) -> list[str]:
    """What a monitor should know of, a sentence each."""
    current = [worker for worker in status.workers if worker.generation == status.generation]
    serving = [worker for worker in current if worker.state == "serving"]
    problems = list(status.warnings)
    if status.drained is not None:
        problems.append("the node is drained: balancers leave it out, until `wazuh-comms drain --undo`")
    if len(serving) < status.configured_workers:
        problems.append(f"{len(serving)} of {status.configured_workers} workers serve")
    for worker in serving:
        if worker.heard > WORST_SILENCE:
            problems.append(f"worker {worker.name} hangs: nothing was heard of it for {worker.heard:.0f} s")
        if worker.lag is not None and worker.lag > WORST_LAG:
            problems.append(f"worker {worker.name}: its event loop was {worker.lag:.1f} s late")
        if worker.crowded:
            problems.append(f"worker {worker.name}: connections have to wait, too many are open")
        if worker.backend not in (None, "ready"):
            problems.append(f"worker {worker.name}: {worker.backend}")
        if worker.quarantine is not None:
            problems.append(f"worker {worker.name}: {worker.quarantine}")
        problems += [f"worker {worker.name}: {sentence}" for sentence in worker.refused]
    # Workers of one node warn of the same: each sentence once.
    problems += dict.fromkeys(warning for worker in serving for warning in worker.warnings)
    return problems
