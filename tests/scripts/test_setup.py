"""``scripts/lib/setup.sh`` in a checkout that can't be written to: one that is set up needs nothing, and the reason is
said otherwise."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts.tree import copy_tree, lend_environment

ROOT = Path(__file__).parents[2]
SETUP = ROOT / "scripts/lib/setup.sh"

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system"),
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/python").symlink_to(sys.executable)
    (folder / "requirements.lock").write_text("# nothing\n")
    (folder / "pyproject.toml").write_text("# nothing\n")
    shutil.copy(SETUP, folder / "setup.sh")
    return folder


def set_up(checkout: Path, before: str) -> subprocess.CompletedProcess[str]:
    """In a mount namespace of its own."""
    script = f"set -eu; {before}; cd {checkout}; . ./setup.sh; set_up requirements.lock; echo done"
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )


def read_only(checkout: Path) -> str:
    return f"mount --bind {checkout} {checkout}; mount -o remount,ro,bind {checkout}"


def test_a_checkout_that_is_set_up_may_be_read_only(checkout: Path) -> None:
    text = (checkout / "requirements.lock").read_bytes() + (checkout / "pyproject.toml").read_bytes()
    want = subprocess.run(["cksum"], input=text, capture_output=True, check=True).stdout
    (checkout / ".venv/.installed-requirements.lock").write_bytes(want)
    (checkout / ".venv/.made-in").write_text(f"{checkout}\n")
    done = set_up(checkout, read_only(checkout))
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.parametrize("made", [(), (".cache",)], ids=["at all", "for this"])
def test_one_that_isnt_says_that_it_cannot_be_written_to(made: tuple[str, ...], checkout: Path) -> None:
    for name in made:
        (checkout / name).mkdir()
    done = set_up(checkout, read_only(checkout))
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"sh: can't write to {checkout}: it is read-only, or isn't yours"]


def test_a_full_disk_is_named(checkout: Path) -> None:
    full = f"mount -t tmpfs -o size=64k none {checkout}; cp {SETUP} {checkout}; : > {checkout}/requirements.lock"
    full += f"; : > {checkout}/pyproject.toml; dd if=/dev/zero of={checkout}/filler 2> /dev/null || true"
    done = set_up(checkout, full)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"sh: can't write to {checkout}: the disk is full"]


def test_a_missing_curl_is_named_and_stops_nothing(tmp_path: Path) -> None:
    copy_tree(tmp_path / "tree")
    lend_environment(tmp_path / "tree")
    programs = tmp_path / "bin"
    programs.mkdir()
    for folder in os.environ["PATH"].split(":"):
        for program in Path(folder).glob("*"):
            if program.name != "curl" and not (programs / program.name).is_symlink():
                (programs / program.name).symlink_to(program)
    said = []
    for more in ("", f":{tmp_path / 'with'}"):
        (tmp_path / "with").mkdir(exist_ok=True)
        curl = tmp_path / "with/curl"
        curl.touch(mode=0o755)
        done = subprocess.run(
            [tmp_path / "tree/scripts/run", "--help"],
            env={**os.environ, "PATH": f"{programs}{more}"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, "--enrollment-port" in done.stdout) == (0, True), done.stderr
        said.append(done.stderr.strip())
    assert said == [
        f"{tmp_path}/tree/scripts/run: curl isn't here; what is suggested below needs it"
        " (Debian and Ubuntu: apt install curl)",
        "",
    ]
