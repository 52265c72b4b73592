"""What the programs do with the service manager before and beside their log: priorities of first lines, the socket
unit, the log file's mode, a restore under way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wazuh_comms_trio.backends.embedded.state_lock import hold_state, is_being_restored
from wazuh_comms_trio.daemon.logging.output import LogFileHandler, LogFileUnusable
from wazuh_comms_trio.daemon.systemd import enabled_socket_unit

SERVICE = {"INVOCATION_ID": "0123456789abcdef"}


def run(module: str, *arguments: str, journal: Path | None) -> tuple[int, str]:
    """The program with stderr in a file, which it takes for the journal when ``journal`` is that file."""
    command = [sys.executable, "-m", f"wazuh_comms_trio.cli.{module}", *arguments]
    with (journal or Path(os.devnull)).open("w") as stream:
        status = os.fstat(stream.fileno())
        environment = {**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        if journal is None:
            done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
            return done.returncode, done.stderr
        done = subprocess.run(command, env=environment, stderr=stream, text=True, timeout=60, check=False)
    return done.returncode, journal.read_text()


@pytest.mark.processes
@pytest.mark.parametrize(("module", "arguments"), [("apid", ["--config"]), ("tool", ["--config"])])
def test_the_reason_for_78_has_its_priority(module: str, arguments: list[str], tmp_path: Path) -> None:
    file = tmp_path / "wazuh-server.yml"
    file.write_text("communications_api: {backend: embedded, port: many, workers: none}\n")
    words = [*arguments, str(file), *(["agents", "list"] if module == "tool" else [])]
    status, said = run(module, *words, journal=tmp_path / "journal")
    lines = said.splitlines()
    assert status == 78
    assert len(lines) >= 2
    assert all(line.startswith("<3>wazuh-comms") for line in lines)
    status, said = run(module, *words, journal=None)
    assert status == 78
    assert "<3>" not in said


def wanted(folder: Path, unit: str) -> None:
    (folder / "sockets.target.wants").mkdir(parents=True)
    (folder / "sockets.target.wants" / unit).symlink_to(f"/usr/lib/systemd/system/{unit}")


@pytest.mark.parametrize(
    "group", ["0::/system.slice/comms.service\n", "2:pids:/\n1:name=systemd:/system.slice/comms.service\n"]
)
def test_the_socket_unit_of_the_service_that_this_is(group: str, tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text(group)
    places = {"cgroups": tmp_path / "cgroup", "folders": [tmp_path / "etc", tmp_path / "usr"]}
    assert enabled_socket_unit(SERVICE, **places) is None
    wanted(tmp_path / "etc", "another.socket")
    assert enabled_socket_unit(SERVICE, **places) is None
    wanted(tmp_path / "usr", "comms.socket")
    assert enabled_socket_unit(SERVICE, **places) == "comms.socket"
    assert enabled_socket_unit({}, **places) is None  # not started by a service manager
    assert enabled_socket_unit(SERVICE, cgroups=tmp_path / "none", folders=places["folders"]) is None
    (tmp_path / "cgroup").write_text("0::/user.slice/session-1.scope\n")
    assert enabled_socket_unit(SERVICE, **places) is None


def test_a_new_log_file_is_the_groups_to_read_whatever_the_mask(tmp_path: Path) -> None:
    mask = os.umask(0o077)
    try:
        file = tmp_path / "comms.log"
        LogFileHandler(file).close()
        assert file.stat().st_mode & 0o777 == 0o640
        file.chmod(0o600)
        LogFileHandler(file).close()
        assert file.stat().st_mode & 0o777 == 0o600  # somebody has chosen it
    finally:
        os.umask(mask)


def test_what_is_wrong_with_a_log_file_may_pass_or_not(tmp_path: Path) -> None:
    with pytest.raises(LogFileUnusable) as refused:
        LogFileHandler(tmp_path / "none" / "comms.log")
    assert not refused.value.may_pass
    with pytest.raises(LogFileUnusable) as refused:
        LogFileHandler(tmp_path)
    assert not refused.value.may_pass
    assert LogFileUnusable(28, "No space left on device", "comms.log").may_pass


def test_a_restore_is_seen_and_nothing_is_made_for_it(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    assert not is_being_restored(folder)
    assert not folder.exists()
    with hold_state(folder):
        assert not is_being_restored(folder)
    with hold_state(folder, alone=True):
        assert is_being_restored(folder)
    assert not is_being_restored(folder)
