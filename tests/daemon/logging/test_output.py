"""A log that several processes write: no line is torn, none is lost, whatever becomes of the file."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wazuh_comms_trio.daemon.logging.output import DescriptorHandler, LogFileHandler, check_log_file

pytestmark = pytest.mark.real_clock

WRITERS, LINES = 3, 400
#: Longer than any buffer between.
LONGEST = 40_000

WRITER = """
import logging, random, sys
from pathlib import Path
from wazuh_comms_trio.config.models import Logging
from wazuh_comms_trio.daemon.logging.formats import set_up_logs

name, format, file, count, longest = sys.argv[1:]
set_up_logs(Logging(level="info", format=format, file=Path(file) if file else None))
rng = random.Random(name)
sys.stdin.readline()
for number in range(int(count)):
    logging.getLogger("writer").info("<%s %d %s>", name, number, "x" * rng.randrange(int(longest)))
"""


@contextmanager
def writers(format: str, file: Path | None, stderr: int | None = None) -> Iterator[list[subprocess.Popen[bytes]]]:
    """They begin together, at the start of the block, and are done at its end."""
    rest = (format, "" if file is None else str(file), str(LINES), str(LONGEST))
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(number), *rest], stdin=subprocess.PIPE, stderr=stderr)
        for number in range(WRITERS)
    ]
    try:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.close()
        yield processes
        assert [process.wait(60) for process in processes] == [0] * WRITERS
    finally:
        for process in processes:
            process.kill()
            process.wait()


def messages(lines: list[bytes], format: str) -> set[tuple[str, str]]:
    """Who wrote which. Fails for a line that is not whole."""
    found = set()
    for line in lines:
        text = json.loads(line)["message"] if format == "json" else line.decode().partition(": ")[2]
        assert text[0] == "<"
        assert text[-1] == ">"
        name, number, filling = text[1:-1].split(" ")
        assert set(filling) <= {"x"}
        found.add((name, number))
    assert len(found) == len(lines)
    return found


ALL = {(str(name), str(number)) for name in range(WRITERS) for number in range(LINES)}


@pytest.mark.processes
@pytest.mark.parametrize("format", ["plain", "json"])
def test_lines_of_several_processes_while_the_file_is_moved_away(format: str, tmp_path: Path) -> None:
    file = tmp_path / "comms.log"
    moved: list[Path] = []
    with writers(format, file) as processes:
        while any(process.poll() is None for process in processes):
            if file.exists() and file.stat().st_size > 1_000_000:
                moved.append(tmp_path / f"comms.log.{len(moved)}")
                file.rename(moved[-1])
    assert len(moved) > 3
    lines = [line for path in (file, *moved) if path.exists() for line in path.read_bytes().splitlines()]
    assert messages(lines, format) == ALL


@pytest.mark.processes
def test_lines_of_several_processes_on_one_stderr(tmp_path: Path) -> None:
    """Which is a file here; a pipe takes short ones at once, and long ones as its reader lets it."""
    file = tmp_path / "stderr"
    with file.open("ab") as stderr, writers("plain", None, stderr.fileno()):
        pass
    assert messages(file.read_bytes().splitlines(), "plain") == ALL


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("t", logging.INFO, "file.py", 1, message, (), None)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir()
    return tmp_path / "log" / "comms.log"


@pytest.fixture
def handler(file: Path) -> Iterator[LogFileHandler]:
    made = LogFileHandler(file)
    yield made
    made.close()
    made.close()  # once more does nothing


def test_a_file_that_is_cut_goes_on_from_its_beginning(file: Path, handler: LogFileHandler) -> None:
    """As with logrotate's copytruncate."""
    handler.emit(record("before"))
    os.truncate(file, 0)
    handler.emit(record("after"))
    assert file.read_text() == "after\n"


def test_a_new_file_is_the_groups_to_read_whatever_the_mask(file: Path, handler: LogFileHandler) -> None:
    file.unlink()
    before = os.umask(0)
    try:
        handler.emit(record("new"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert file.read_text() == "new\n"


def test_one_that_is_put_in_its_place_is_taken(file: Path, handler: LogFileHandler) -> None:
    """As with logrotate's `create`."""
    file.rename(file.with_suffix(".1"))
    file.touch(mode=0o600)
    handler.emit(record("new"))
    assert file.read_text() == "new\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_as_long_as_there_can_be_no_new_file_the_old_one_has_to_do(file: Path, handler: LogFileHandler) -> None:
    away = file.parent.with_name("away")
    file.parent.rename(away)
    handler.emit(record("without a folder"))
    file.parent.touch()  # not even one
    handler.emit(record("with a file for a folder"))
    assert (away / file.name).read_text() == "without a folder\nwith a file for a folder\n"
    file.parent.unlink()
    file.parent.mkdir()
    handler.emit(record("with a folder"))
    assert file.read_text() == "with a folder\n"


def test_a_full_disk_costs_lines_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler = LogFileHandler(Path("/dev/full"))
    handler.emit(record("lost"))
    handler.close()


def test_what_a_full_disk_cut_off_ends_its_line(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler = LogFileHandler(file)
    real, room = os.write, [4]

    def write(descriptor: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        written = real(descriptor, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", write)
    handler.emit(record("cut off"))
    handler.emit(record("lost"))
    monkeypatch.setattr(os, "write", real)
    handler.emit(record("whole"))
    assert file.read_text().splitlines() == ["cut ", "whole"]
    handler.close()


def test_a_pipe_that_wouldnt_block_is_waited_for() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    got = bytearray()

    def read() -> None:
        while data := os.read(reading, 4096):
            got.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    text = "x" * 1_000_000
    DescriptorHandler(writing).emit(record(text))
    os.close(writing)
    reader.join()
    os.close(reading)
    assert got.decode() == text + "\n"


def test_a_file_can_be_tried_beforehand(tmp_path: Path) -> None:
    check_log_file(None)
    check_log_file(tmp_path / "a.log")
    with pytest.raises(OSError, match=r"logging\.file can't be written: .*: Is a directory"):
        check_log_file(tmp_path)
