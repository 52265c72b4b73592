"""``scripts/install``, into a folder of the test's own: what it puts where, and what it leaves."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
PREFIX = "/opt/comms"
#: It makes a virtual environment and installs what the lock file lists.
LIMIT = 300


def install(stage: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "scripts/install"), *arguments],
        env={**os.environ, "DESTDIR": str(stage)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_put_in_place_kept_up_to_date_and_taken_away(tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    before = {path.name for path in ROOT.iterdir()}
    done = install(stage, "--prefix", PREFIX)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in ROOT.iterdir()} == before  # nothing is built in the checkout

    home = stage / "opt/comms/lib/wazuh-comms"
    config = stage / "etc/wazuh-server/wazuh-server.yml"
    state = stage / "var/lib/wazuh-comms"
    assert mode(config) == 0o640
    assert mode(state) == 0o700
    assert mode(stage / "etc/wazuh-server") == 0o750
    units = stage / "opt/comms/lib/systemd/system"
    service = (units / "wazuh-comms-apid.service").read_text()
    assert "ExecStart=/opt/comms/bin/wazuh-comms-apid --config /etc/wazuh-server/wazuh-server.yml\n" in service
    assert "/usr/local/bin" not in service
    # systemd doesn't look into this prefix.
    linked = stage / "etc/systemd/system/wazuh-comms-apid.socket"
    assert os.readlink(linked) == f"{PREFIX}/lib/systemd/system/wazuh-comms-apid.socket"
    for program in ("wazuh-comms", "wazuh-comms-apid"):
        assert os.readlink(stage / "opt/comms/bin" / program) == f"{PREFIX}/lib/wazuh-comms/bin/{program}"
        first = (home / "bin" / program).read_text().splitlines()[0]
        assert first.startswith(f"#!{PREFIX}/lib/wazuh-comms/bin/python")
        # It works where it is.
        shown = subprocess.run(
            [str(home / "bin/python"), str(home / "bin" / program), "--version"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        assert shown.stdout.startswith(program)
        assert shown.stderr == ""
    # Compiled, and nothing names the folder that it was staged in; what installs packages isn't part of it.
    assert len(list(home.rglob("supervisor.*.pyc"))) >= 1
    assert [path for path in home.rglob("*") if path.is_file() and str(stage).encode() in path.read_bytes()] == []
    packages = {path.name for path in home.glob("lib/python3*/site-packages/*")}
    programs = {path.name for path in (home / "bin").iterdir() if not path.name.startswith("python")}
    assert programs == {"wazuh-comms", "wazuh-comms-apid"}
    assert not packages & {"pip", "setuptools", "pkg_resources", "_distutils_hack"}
    assert (stage / "opt/comms/share/man/man1/wazuh-comms.1").exists()

    # Again, over a configuration and state that are in use.
    config.write_text("# mine\n")
    config.chmod(0o600)
    (state / "state.db").write_text("precious")
    left = home / "left-over"
    left.write_text("")
    done = install(stage, f"--prefix={PREFIX}/")
    assert done.returncode == 0, done.stderr
    assert "(yours, unchanged)" in done.stdout
    assert (config.read_text(), mode(config)) == ("# mine\n", 0o600)
    assert not left.exists()
    assert sorted(path.name for path in home.parent.iterdir()) == ["systemd", "wazuh-comms"]

    done = install(stage, "--prefix", PREFIX, "--uninstall")
    assert done.returncode == 0, done.stderr
    assert sorted(path.relative_to(stage).as_posix() for path in stage.rglob("*") if not path.is_dir()) == [
        "etc/wazuh-server/wazuh-server.yml",
        "var/lib/wazuh-comms/state.db",
    ]
    assert install(stage, "--prefix", PREFIX, "--uninstall").returncode == 0  # there is nothing left to do


def test_purging_takes_what_was_made_here_and_no_more(tmp_path: Path) -> None:
    assert install(tmp_path).returncode == 0
    config = tmp_path / "etc/wazuh-server/wazuh-server.yml"
    config.write_text(config.read_text() + "\n# mine\n")
    for path in ("var/lib/wazuh-comms/state.db", "var/log/wazuh-comms/apid.log"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    drop_in = tmp_path / "etc/systemd/system/wazuh-comms-apid.service.d/keys.conf"
    drop_in.parent.mkdir(parents=True)
    drop_in.touch()
    done = install(tmp_path, "--uninstall")
    for left in (
        "/etc/wazuh-server/wazuh-server.yml",
        "/var/lib/wazuh-comms",
        "/var/log/wazuh-comms",
        "apid.service.d",
    ):
        assert left in done.stdout
    assert install(tmp_path, "--uninstall", "--purge").returncode == 0
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []

    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("# another program's\n")
    assert "wazuh-server.yml" in install(tmp_path, "--uninstall", "--purge").stdout
    assert config.exists()


def test_what_is_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    program = tmp_path / "usr/local/bin/wazuh-comms"
    program.parent.mkdir(parents=True)
    program.write_text("another program")
    done = install(tmp_path)
    assert done.returncode == 1
    assert "isn't a link of ours" in done.stderr
    assert install(tmp_path, "--uninstall").returncode == 0
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["wazuh-comms"]
    assert program.read_text() == "another program"


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--prefix", "relative"], 2, "has to begin with /"),
        (["--prefix"], 2, "needs a folder"),
        (["--prefix", "/opt/with space"], 2, "letters, digits"),
        (["--purge"], 2, "goes with --uninstall"),
        (["--nonsense"], 2, "unknown argument: --nonsense"),
        (["--prefix", "/root/x"], 1, "ProtectHome"),
    ],
)
def test_misuse_is_said_and_changes_nothing(arguments: list[str], status: int, says: str, tmp_path: Path) -> None:
    done = install(tmp_path, *arguments)
    assert (done.returncode, says in done.stderr) == (status, True), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help(tmp_path: Path) -> None:
    done = install(tmp_path, "--help")
    assert done.returncode == 0
    assert "scripts/install [--prefix DIR] [--uninstall [--purge]]" in done.stdout
    assert "set -eu" not in done.stdout
