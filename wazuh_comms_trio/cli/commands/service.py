"""``wazuh-comms status`` and ``wazuh-comms reload``: the running daemon, asked through its command socket."""

from __future__ import annotations

import http.client
import json
import socket
import time
from argparse import Namespace
from pathlib import Path
from typing import Any, Final

from wazuh_comms_trio.cli.output import Output, pairs, table
from wazuh_comms_trio.cli.parser import Group
from wazuh_comms_trio.cli.program import Failure, config_path
from wazuh_comms_trio.daemon.status import DaemonStatus, read_status

EXIT_WELL: Final = 0
EXIT_DEGRADED: Final = 1
EXIT_NOT_RUNNING: Final = 3

#: Seconds. A reload starts workers, and they may have to open a large state.
STATUS_TIMEOUT: Final = 5.0
RELOAD_TIMEOUT: Final = 90.0
#: A worker whose event loop is that late isn't well; seconds.
WORST_LAG: Final = 1.0
#: Workers are asked every second; one that has said nothing for so many seconds hangs, and will soon be replaced.
WORST_SILENCE: Final = 3.0


def add_parser(parent: Group) -> None:
    parent.command(
        "status",
        _status,
        help="how the running daemon and its workers are",
        description=f"How the running daemon is. Exit status: {EXIT_WELL} all is well, {EXIT_DEGRADED} something isn't"
        " (fewer workers than configured, an event loop that lags or hangs, connections that have to wait for"
        " descriptors, a backend that is away),"
        f" {EXIT_NOT_RUNNING} it doesn't run.",
    )
    parent.command(
        "reload",
        _reload,
        help="have the running daemon read its configuration again",
        description="Checks the configuration and puts it in force without a failed request. When it can't be, nothing"
        " changes, the reasons are printed, and the exit status is 1. Exit status 3: the daemon doesn't run.",
    )


def _status(arguments: Namespace) -> int:
    document = _ask(arguments, "GET", "/api/v1/status", STATUS_TIMEOUT)
    try:
        status = read_status(document)
    except ValueError as error:
        raise Failure(f"the daemon's status isn't understood: {error}") from error
    problems = find_problems(status)
    serving = sum(worker.state == "serving" for worker in status.workers)
    head = {
        "up": None if status.started is None else _duration(time.time() - status.started),
        "workers": f"{serving} of {status.configured_workers} serve",
        "generation": status.generation,
        "parked polls": sum(worker.parked or 0 for worker in status.workers),
    }
    heads = ["WORKER", "PID", "STATE", "AGE", "LAG", "CONNS", "PARKED", "WAITING", "BACKEND", "LAST ERROR"]
    rows = [
        [
            worker.name,
            worker.pid,
            worker.state,
            _duration(worker.age or 0),
            f"{(worker.lag or 0) * 1000:.0f} ms",
            worker.connections,
            worker.parked,
            worker.batcher and worker.batcher.waiting,
            (worker.backend or "").partition(":")[0],  # the reason is among the problems
            worker.last_error and worker.last_error.text,
        ]
        for worker in status.workers
    ]
    text = "\n".join([pairs(head), "", table(heads, rows), *(["", *problems] if problems else [])])
    Output(as_json=arguments.json).document({**document, "problems": problems}, text)
    return EXIT_DEGRADED if problems else EXIT_WELL


def find_problems(status: DaemonStatus) -> list[str]:
    """What a monitor should know of, a sentence each."""
    current = [worker for worker in status.workers if worker.generation == status.generation]
    serving = [worker for worker in current if worker.state == "serving"]
    problems = []
    if len(serving) < status.configured_workers:
        problems.append(f"{len(serving)} of {status.configured_workers} workers serve")
    for worker in serving:
        if worker.heard > WORST_SILENCE:
            problems.append(f"worker {worker.name} hangs: nothing was heard of it for {worker.heard:.0f} s")
        if worker.lag is not None and worker.lag > WORST_LAG:
            problems.append(f"worker {worker.name}: its event loop was {worker.lag:.1f} s late")
        if worker.crowded:
            problems.append(f"worker {worker.name}: connections have to wait, too many files are open")
        if worker.backend not in (None, "ready"):
            problems.append(f"worker {worker.name}: {worker.backend}")
    return problems


def _reload(arguments: Namespace) -> int:
    try:
        outcome = _ask(arguments, "POST", "/api/v1/reload", RELOAD_TIMEOUT)
    except Failure as error:
        if error.status != EXIT_NOT_RUNNING:
            raise
        raise Failure(f"{error}; where `command_socket` was changed, that needs a restart", error.status) from error
    output = Output(as_json=arguments.json)
    for warning in outcome["warnings"]:
        output.note(f"warning: {warning}")
    for name in outcome["needs_restart"]:
        output.note(f"{name} has changed; that needs a restart, and stays as it was until then")
    if outcome["reloaded"]:
        output.document(outcome, "The configuration is in force.")
        return EXIT_WELL
    if arguments.json:
        output.document(outcome, "")
        return EXIT_DEGRADED
    raise Failure("\n".join(f"not reloaded: {problem}" for problem in outcome["problems"]))


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def find_command_socket(file: Path) -> Path:
    """As the file names it, also when the rest of it can't be used: the running daemon was started with a better one,
    and what is wrong with the new one is its word to say. Raises ``ConfigError`` when there is no reading it at all."""
    import attrs

    from wazuh_comms_trio.config.load import load_config
    from wazuh_comms_trio.config.models import CommunicationsApi
    from wazuh_comms_trio.config.problems import ConfigError
    from wazuh_comms_trio.config.source import parse

    try:
        return load_config(file, check_files=False).config.communications_api.command_socket
    except ConfigError:
        try:
            section = parse(file.read_text(), ("communications_api",)).data.get("communications_api")
        except (OSError, ValueError):
            section = None
        if not isinstance(section, dict):
            raise
        named = section.get("command_socket", attrs.fields(CommunicationsApi).command_socket.default)
        if not isinstance(named, str | Path):
            raise
        return file.absolute().parent / named


def _ask(arguments: Namespace, method: str, path: str, seconds: float) -> dict[str, Any]:
    command_socket = find_command_socket(Path(config_path(arguments.config)))
    connection = _Connection(command_socket, seconds)
    try:
        connection.request(method, path)
        reply = connection.getresponse()
        body = reply.read()
    except PermissionError as error:
        raise Failure(f"{command_socket}: not permitted") from error
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise Failure(f"the daemon doesn't run: nobody serves {command_socket}", EXIT_NOT_RUNNING) from error
    except TimeoutError as error:
        raise Failure(f"the daemon doesn't answer on {command_socket} within {seconds:.0f} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise Failure(f"{command_socket}: {error}") from error
    finally:
        connection.close()
    try:
        answer = json.loads(body)
    except ValueError as error:
        raise Failure(f"{command_socket} doesn't answer as the daemon does") from error
    if reply.status != 200 or not isinstance(answer, dict):
        message = answer.get("message", "") if isinstance(answer, dict) else ""
        raise Failure(f"the daemon refuses: {message or reply.status}")
    return answer


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"
