"""``logging.file`` of several workers: moved away, reloaded, refused."""

from __future__ import annotations

import json
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.processes import Files, command_line
from tests.supervisor.nodes import ask, change, serving
from tests.supervisor.soak.starts import started

pytestmark = [pytest.mark.processes, pytest.mark.real_clock]

MakeFiles = Callable[..., Files]


def lines(file: Path) -> list[dict[str, Any]]:
    """Each is one JSON object, or this fails."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def until(file: Path, message: str) -> dict[str, Any]:
    """The line that says so, once it is there."""
    with trio.fail_after(20):
        while True:
            for line in lines(file):
                if message in line["message"]:
                    return line
            await trio.sleep(0.02)


async def test_moved_away_while_workers_write(make_files: MakeFiles) -> None:
    files = make_files()
    file, moved = files.folder / "comms.log", files.folder / "comms.log.1"
    change(files, logging={"level": "debug", "format": "json", "file": str(file)})
    async with started(files, 2) as daemon:
        await daemon.up()
        await until(file, "worker 2.")
        before = len(lines(file))
        file.rename(moved)
        daemon.process.send_signal(signal.SIGHUP)
        await until(file, "SIGHUP: reloading")
        await serving(files, 2, generation=2)
        daemon.process.kill()  # which makes each worker say something
        assert await daemon.ended() == -signal.SIGKILL
        assert daemon.log.read_text() == ""  # nothing goes to stderr as well
    assert len(lines(moved)) >= before
    assert mode(file) == mode(moved) == 0o640
    everything = lines(moved) + lines(file)
    assert {line.get("worker", "").partition(".")[0] for line in everything} == {"supervisor", "1", "2"}


async def test_a_reload_to_a_file_that_cant_be_written_is_refused(make_files: MakeFiles) -> None:
    files = make_files()
    file = files.folder / "log" / "comms.log"
    async with started(files, 2) as daemon:
        pids = await daemon.up()
        change(files, logging={"format": "json", "file": str(file)})
        outcome = (await ask(files, "POST", "/api/v1/reload")).json()
        assert outcome["reloaded"] is False
        assert outcome["problems"] == [f"logging.file can't be written: {file}: No such file or directory"]
        assert sorted(await serving(files, 2, generation=1)) == sorted(pids)
        file.parent.mkdir()
        assert (await ask(files, "POST", "/api/v1/reload")).json()["reloaded"] is True
        await until(file, "reloaded: 2 workers serve")
        daemon.term()
        assert await daemon.ended() == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_start_with_a_file_that_cant_be_written_says_so(workers: int, make_files: MakeFiles) -> None:
    files = make_files(workers=workers)
    change(files, logging={"file": str(files.folder)})
    done = await trio.run_process(command_line(files), capture_stderr=True, check=False)
    said = done.stderr.decode()
    assert done.returncode == 78
    assert f"CRITICAL wazuh_comms_trio.daemon.process: logging.file can't be written: {files.folder}: Is a dir" in said
    assert "Traceback" not in said
