"""The real daemon and the real tool as processes, for tests."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import trio
import yaml
from attrs import field, frozen

from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key
from wazuh_comms_trio.testing import AgentClient, Connect, connect_tcp

#: The programs as they are installed, beside the interpreter that runs the tests.
PROGRAMS = Path(sys.executable).parent
KEY = "k" * 32
START_LIMIT = 30.0
STOP_LIMIT = 20.0
#: Of everything that is done with one daemon.
WHOLE_LIMIT = 120.0


@frozen
class Files:
    """One daemon's configuration and state, for as many starts as a test likes."""

    folder: Path
    config: Path
    socket: Path
    state: Path
    groups: Path


def write_files(folder: Path, cert: Path, key: Path, **changes: Any) -> Files:
    """A configuration on free ports, ``changes`` being more of ``communications_api``'s keys."""
    files = Files(folder, folder / "wazuh-server.yml", folder / "c.sock", folder / "state", folder / "groups")
    files.groups.mkdir()
    api = {
        "host": "127.0.0.1",
        "port": 0,
        "workers": 1,
        "backend": "embedded",
        "embedded": {"path": str(files.state)},
        "files": {"path": str(files.groups)},
        "command_socket": str(files.socket),
        "ssl": {"key": str(key), "cert": str(cert)},
        **changes,
    }
    files.config.write_text(yaml.safe_dump({"communications_api": api}))
    return files


@frozen
class Running:
    """A daemon that serves."""

    files: Files
    process: trio.Process
    log: list[str]
    port: int
    enrollment_port: int | None
    idle_sockets: int
    changed: list[trio.Event] = field(factory=lambda: [trio.Event()])

    @property
    def connect(self) -> Connect:
        return connect_tcp("127.0.0.1", self.port)

    def client(self, uuid: str, key: str, **options: Any) -> AgentClient:
        return AgentClient(self.connect, uuid=uuid, key=key, **options)

    async def add_agent(self, name: str = "a", *more: str, **options: Any) -> AgentClient:
        """By the operator's tool."""
        agent = await tool(self.files, "agents", "add", name, *more)
        return self.client(agent["uuid"], agent["key"], **options)

    async def add_agents(self, count: int, **options: Any) -> list[AgentClient]:
        """Straight into the registry, beside the daemon: a tool's start for each would take a second."""
        agents = [Agent(str(uuid4()), f"a{number}", hash_key(KEY)) for number in range(count)]
        async with open_backends(load_config(self.files.config).config) as backends:
            for agent in agents:
                await backends.agents.add(agent)
        return [self.client(agent.id, KEY, **options) for agent in agents]

    async def connections(self, count: int) -> None:
        """Returns once the daemon has so many. Nothing tells from outside, so it is looked at."""
        while count_sockets(self.process.pid) - self.idle_sockets != count:  # noqa: ASYNC110
            await trio.sleep(0.01)

    async def wait_for_line(self, pattern: str) -> str:
        while True:
            for line in self.log:
                if re.search(pattern, line):
                    return line
            await self.changed[0].wait()


def count_sockets(pid: int) -> int:
    """How many sockets a process has open."""
    links = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile
            links.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return sum(link.startswith("socket:") for link in links)


async def tool(files: Files, *arguments: str) -> Any:
    """``wazuh-comms --json ...``: its document, None where it prints nothing. Raises when it fails."""
    command = [str(PROGRAMS / "wazuh-comms"), "--config", str(files.config), "--json", *arguments]
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout) if done.stdout.strip() else None


@asynccontextmanager
async def start_daemon(
    files: Files,
    *,
    environment: Mapping[str, str] | None = None,
    expect_errors: bool = False,
    limit: float = WHOLE_LIMIT,
    open_files: int | None = None,
) -> AsyncIterator[Running]:
    """Runs while the block does, then is stopped by SIGTERM, unless the test has ended it. It must end with status 0,
    and have logged nothing at ERROR and no traceback (``expect_errors``: it may). ``limit``: seconds for all of it.
    ``open_files``: how many it may have.
    """
    log: list[str] = []
    served: dict[str, int] = {}
    ready = trio.Event()
    changed = [trio.Event()]
    failure: Exception | None = None

    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + limit
        process: trio.Process = await nursery.start(_run, command_line(files, open_files), environment)

        async def read_log() -> None:
            assert process.stderr is not None
            rest = b""
            async for data in process.stderr:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    text = line.decode()
                    log.append(text)
                    if match := re.search(r"agents (are served|can join) on https://127\.0\.0\.1:(\d+)", text):
                        served[match[1]] = int(match[2])
                    if "commands are taken on" in text:
                        ready.set()
                changed[0].set()
                changed[0] = trio.Event()
            ready.set()

        nursery.start_soon(read_log)
        try:
            with trio.move_on_after(START_LIMIT):
                await ready.wait()
            assert "are served" in served, "it didn't start:\n" + "\n".join(log)
            idle = count_sockets(process.pid)
            yield Running(files, process, log, served["are served"], served.get("can join"), idle, changed)
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                with trio.fail_after(STOP_LIMIT):
                    assert await process.wait() == 0
            if not expect_errors:
                bad = [line for line in log if re.search(r" (ERROR|CRITICAL) |^Traceback", line)]
                assert bad == []
        except Exception as error:
            failure = error
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    assert not nursery.cancel_scope.cancelled_caught, "it took too long:\n" + "\n".join(log[-50:])


def command_line(files: Files, open_files: int | None = None) -> Sequence[str]:
    command = [str(PROGRAMS / "wazuh-comms-apid"), "--config", str(files.config)]
    return command if open_files is None else ["sh", "-c", f'ulimit -n {open_files}; exec "$@"', "sh", *command]


async def _run(
    command: Sequence[str],
    environment: Mapping[str, str] | None,
    *,
    task_status: trio.TaskStatus[trio.Process] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Killed when cancelled: nothing a test starts outlives it."""
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **(environment or {})}
    )
    try:
        task_status.started(process)
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                await process.wait()
