"""SIGHUP: a reload, unless the terminal is gone."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
from collections.abc import Callable

import pytest
import trio

from tests.e2e.processes import Files, command_line

pytestmark = [pytest.mark.processes, pytest.mark.real_clock]

MakeFiles = Callable[..., Files]


class Log:
    def __init__(self, process: trio.Process) -> None:
        assert process.stderr is not None
        self._stream = process.stderr
        self.text = ""

    async def until(self, pattern: str) -> None:
        while not re.search(pattern, self.text):
            data = await self._stream.receive_some()
            assert data, f"{pattern} wasn't logged:\n{self.text}"
            self.text += data.decode()


@pytest.mark.parametrize(("workers", "asked"), [(1, "SIGHUP: .*restart it"), (2, "reloaded: 2 workers")])
async def test_it_stops_when_its_terminal_is_gone(workers: int, asked: str, make_files: MakeFiles) -> None:
    files = make_files(workers=workers)
    controller, terminal = pty.openpty()
    process = await trio.lowlevel.open_process(command_line(files), stdin=terminal, stderr=subprocess.PIPE)
    os.close(terminal)
    try:
        with trio.fail_after(30):
            log = Log(process)
            await log.until("commands are taken on")
            process.send_signal(signal.SIGHUP)
            await log.until(asked)
            os.close(controller)
            process.send_signal(signal.SIGHUP)
            await log.until("SIGHUP: stopping")
            assert await process.wait() == 0
    finally:
        process.kill()


@pytest.mark.parametrize("workers", [1, 2])
async def test_it_needs_no_stdin(workers: int, make_files: MakeFiles) -> None:
    files = make_files(workers=workers)
    command = ["sh", "-c", 'exec "$@" <&-', "sh", *command_line(files)]
    process = await trio.lowlevel.open_process(command, stderr=subprocess.PIPE)
    try:
        with trio.fail_after(30):
            log = Log(process)
            await log.until("commands are taken on")
            process.send_signal(signal.SIGHUP)
            await log.until("reloaded: |restart it")
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        process.kill()
