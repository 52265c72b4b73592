"""A minimal Debian 12 with a real systemd as its first process: booted by systemd-nspawn on a root that is kept in
.cache/machine, with all that is written going to memory. Made by ``tests/systemd/real/setup``."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from attrs import frozen

from tests.child_processes import children

ROOT = Path(__file__).parents[3]
CACHE = ROOT / ".cache/machine"
#: Where the checkout and the wheels are in the machine.
CHECKOUT, WHEELS = "/src", "/wheels"
ENTER_CGROUP = str(Path(__file__).with_name("enter_cgroup"))
BOOT_LIMIT = 60.0


def missing() -> str | None:
    """Why no machine can be booted here, in a line."""
    if (CACHE / "missing").exists():
        return (CACHE / "missing").read_text().strip()
    if not (CACHE / "packages").exists() or not (CACHE / "wheels/stamp").exists():
        return "tests/systemd/real/setup wasn't run"
    if os.geteuid() != 0 or shutil.which("systemd-nspawn") is None:
        return "only root can boot a systemd, with systemd-nspawn"
    return None


@frozen
class Machine:
    """``pid``: of its systemd, as this host sees it."""

    pid: int

    def run(
        self, *command: str, check: bool = True, input: str | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """As the machine's root. A status other than 0 fails the test, unless ``check`` is false."""
        done = subprocess.run(
            [*self._entering(), *command], input=input, capture_output=True, text=True, timeout=timeout, check=False
        )
        if check and done.returncode != 0:
            pytest.fail(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Beside the test, which waits for its end."""
        return subprocess.Popen(
            [*self._entering(), *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def _entering(self) -> Sequence[str]:
        namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd"]
        environment = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]
        return ["nsenter", f"--target={self.pid}", *namespaces, "--", *environment, "LC_ALL=C.UTF-8"]

    def shell(self, script: str, *, check: bool = True, timeout: float = 120) -> str:
        """What it prints on stdout and stderr."""
        done = self.run("sh", "-euc", f"exec 2>&1\n{script}", check=check, timeout=timeout)
        return done.stdout

    def write(self, path: str, text: str, mode: str = "644", owner: str = "root:root") -> None:
        """With its folders."""
        script = 'mkdir -p "$(dirname "$1")" && cat > "$1" && chown "$3" "$1" && chmod "$2" "$1"'
        self.run("sh", "-euc", script, "sh", path, mode, owner, input=text)

    def property(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", f"--property={name}", "--value", unit).stdout.strip()

    def state(self, unit: str) -> str:
        """``active``, ``failed`` ..."""
        return self.run("systemctl", "is-active", unit, check=False).stdout.strip()

    def wait(self, script: str, limit: float = 30) -> None:
        """Until it succeeds: what happens in another system can only be looked at."""
        until = time.monotonic() + limit
        while self.run("sh", "-c", script, check=False).returncode != 0:
            if time.monotonic() > until:
                journal = self.shell("journalctl --no-pager -n 60", check=False)
                pytest.fail(f"not within {limit:.0f} s: {script}\n{journal}")
            time.sleep(0.05)

    def journal(self, *options: str, unit: str = "wazuh-comms-apid.service") -> str:
        self.run("journalctl", "--sync")
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}", *options).stdout


@contextmanager
def boot(name: str, log: Path, binds: Sequence[str] = (), writable: Sequence[str] = ()) -> Iterator[Machine]:
    """Booted while this is entered. ``binds`` (``here:there``) can be read in it, ``writable`` changed."""
    name = f"{name}-{os.getpid()}"
    leader = None
    with log.open("wb") as output:
        readable = [f"{ROOT}:{CHECKOUT}", f"{CACHE / 'wheels'}:{WHEELS}", *binds]
        process = _start(name, output, readable, writable)
        try:
            leader = _leader(process, log)
            machine = Machine(leader)
            machine.wait("systemctl is-system-running --wait | grep -qE 'running|degraded'", BOOT_LIMIT)
            yield machine
        finally:
            if leader is not None:
                os.kill(leader, signal.SIGKILL)  # and with it everybody in its namespace
            process.kill()
            process.wait()
            subprocess.run([ENTER_CGROUP, "--remove", name], timeout=30, check=False)


def _start(name: str, output: IO[bytes], readable: Sequence[str], writable: Sequence[str]) -> subprocess.Popen[bytes]:
    # This host may have no service manager that could be told of it.
    alone = ["--quiet", "--register=no", "--keep-unit", f"--machine={name}", "--private-network", "--console=pipe"]
    places = [f"--directory={CACHE / 'root'}", "--volatile=overlay"]
    places += [f"--bind-ro={bind}" for bind in readable] + [f"--bind={bind}" for bind in writable]
    command = [ENTER_CGROUP, name, "setpriv", "--pdeathsig=TERM", "systemd-nspawn", *alone, *places, "--boot"]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)


def _leader(process: subprocess.Popen[bytes], log: Path) -> int:
    until = time.monotonic() + BOOT_LIMIT
    while process.poll() is None and time.monotonic() < until:
        for child, name in children(process.pid, "comm").items():
            if name.strip() == "systemd":
                return child
        time.sleep(0.02)
    pytest.fail(f"no systemd was started: {log.read_text()[-2000:]}")
