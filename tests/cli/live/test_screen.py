"""``wazuh-comms top`` in a terminal: its keys, and that it leaves the terminal as it was, however it ends."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import tty
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cli.live.test_top import two
from wazuh_comms_trio.cli.live.screen import Screen
from wazuh_comms_trio.metrics.counting import Metrics

pytestmark = pytest.mark.processes

#: Seconds until a test fails, of a machine that is busy.
TIMEOUT = 60
LEAVES = "\x1b[?1049l"


class Daemon:
    """Its command socket, as far as `top` asks. ``metrics`` is what it says next, None: nothing that can be read."""

    def __init__(self, path: Path) -> None:
        self.metrics: dict[str, Any] | None = two()[0]
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        status = {"generation": 1, "configured_workers": 1, "up": 60, "workers": []}
        while True:
            connection, _ = self._listener.accept()
            with connection, connection.makefile("rb") as requests:
                words = requests.readline().split()
                if not words:
                    return
                while requests.readline().strip():
                    pass
                body = json.dumps(status if words[1].endswith(b"/status") else self.metrics).encode()
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    def stop(self) -> None:
        with self._listener, socket.socket(socket.AF_UNIX) as last:
            last.connect(self._listener.getsockname())
            last.shutdown(socket.SHUT_WR)
            self._thread.join()


def default_signals() -> None:
    """What a shell in the background ignores is ignored by all that it starts."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM, signal.SIGTSTP):
        signal.signal(number, signal.SIG_DFL)


class Terminal:
    """One of 24 lines of 80 characters, in which `top` runs as a shell would start it: in a group of its own.
    ``orphaned``: as `ssh -t` would, in a session of its own."""

    def __init__(self, *options: str, orphaned: bool = False, environment: Mapping[str, str] | None = None) -> None:
        self.controller, self.tty = pty.openpty()
        self.resize(24, 80)
        self.before = termios.tcgetattr(self.tty)
        self.seen = ""
        command = [sys.executable, "-m", "wazuh_comms_trio.cli.tool", "top", "--interval", "600s", *options]
        self.process = subprocess.Popen(
            command,
            stdin=self.tty,
            stdout=self.tty,
            stderr=self.tty,
            process_group=None if orphaned else 0,
            start_new_session=orphaned,
            env={**os.environ, "TERM": "xterm", **(environment or {})},
            preexec_fn=default_signals,
        )

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.tty, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    @property
    def is_as_it_was(self) -> bool:
        return termios.tcgetattr(self.tty) == self.before

    def press(self, keys: str) -> None:
        os.write(self.controller, keys.encode())

    def read(self) -> None:
        readable, _, _ = select.select([self.controller], [], [], TIMEOUT)
        assert readable, f"nothing comes after {self.seen!r}"
        self.seen += os.read(self.controller, 65536).decode(errors="replace")

    def read_until(self, text: str) -> str:
        """What came until it, with it."""
        while text not in self.seen:
            self.read()
        found, _, self.seen = self.seen.partition(text)
        return found + text

    def wait(self) -> int:
        """The exit status, once the terminal was left."""
        self.read_until(LEAVES)
        return self.process.wait()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.controller)
        os.close(self.tty)


@pytest.fixture
def daemon(config_file: Path, tmp_path: Path) -> Iterator[Daemon]:
    server = Daemon(tmp_path / "api.sock")
    yield server
    server.stop()


@pytest.fixture
def terminal(daemon: Daemon) -> Iterator[Terminal]:
    terminal = Terminal()
    terminal.read_until("the first look in 600 s")
    assert not terminal.is_as_it_was
    yield terminal
    terminal.close()


@pytest.mark.parametrize("key", ["q", "Q", "\x04"])
def test_a_key_ends_it(terminal: Terminal, key: str) -> None:
    terminal.press(key)
    assert terminal.wait() == 0
    assert terminal.is_as_it_was


def test_space_looks_at_once_and_other_keys_do_nothing(daemon: Daemon, terminal: Terminal) -> None:
    daemon.metrics = two()[1]
    terminal.press("x\x1b[A")
    terminal.press(" ")
    assert "parked polls 12345" in terminal.read_until("every 600 s")
    terminal.resize(10, 80)
    terminal.process.send_signal(signal.SIGWINCH)  # the kernel sends it to who has the terminal as its own
    terminal.read_until("more lines: a higher terminal shows them")
    terminal.press("q")
    assert terminal.wait() == 0


@pytest.mark.usefixtures("daemon")
def test_the_last_page_that_was_asked_for_stays() -> None:
    terminal = Terminal("--count", "1")
    try:
        terminal.read_until("the first look in 600 s")
        terminal.press(" ")
        terminal.read_until(LEAVES)
        terminal.read_until("parked polls")
        assert terminal.process.wait() == 0
        assert terminal.is_as_it_was
    finally:
        terminal.close()


def test_a_daemon_that_cant_be_asked_is_said_and_asked_again(daemon: Daemon, terminal: Terminal) -> None:
    daemon.metrics = None
    terminal.press(" ")
    assert "! the daemon refuses" in terminal.read_until("asked again every 600 s")
    daemon.metrics = Metrics().snapshot()
    terminal.press(" ")
    terminal.read_until("NOT READY")
    terminal.press("q")
    assert terminal.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_it(terminal: Terminal, number: signal.Signals) -> None:
    terminal.process.send_signal(number)
    assert terminal.wait() == -number
    assert terminal.is_as_it_was


def test_it_is_interrupted(terminal: Terminal) -> None:
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.wait() == 0
    assert terminal.is_as_it_was


def test_it_fails(daemon: Daemon, terminal: Terminal) -> None:
    daemon.metrics = {"values": [["wazuh_comms_ready"]]}
    terminal.press(" ")
    assert terminal.wait() == 1
    terminal.read_until("unexpected error")
    assert terminal.is_as_it_was


@pytest.mark.parametrize("number", [signal.SIGTSTP, signal.SIGSTOP])
def test_it_is_stopped_and_goes_on(terminal: Terminal, number: signal.Signals) -> None:
    terminal.process.send_signal(number)
    assert os.waitid(os.P_PID, terminal.process.pid, os.WSTOPPED | os.WEXITED).si_code == os.CLD_STOPPED
    if number == signal.SIGTSTP:
        terminal.read_until(LEAVES)
        assert terminal.is_as_it_was
    termios.tcsetattr(terminal.tty, termios.TCSANOW, terminal.before)  # a shell does
    terminal.process.send_signal(signal.SIGCONT)
    terminal.read_until("the first look in 600 s")
    assert not terminal.is_as_it_was
    terminal.press("q")
    assert terminal.wait() == 0
    assert terminal.is_as_it_was


@pytest.mark.usefixtures("daemon")
def test_where_nobody_could_let_it_go_on_it_isnt_stopped() -> None:
    """The kernel doesn't stop a group that no shell of the same session looks after."""
    terminal = Terminal(orphaned=True)
    try:
        terminal.read_until("the first look in 600 s")
        terminal.process.send_signal(signal.SIGTSTP)
        terminal.read_until(LEAVES)
        terminal.read_until("the first look in 600 s")
        assert not terminal.is_as_it_was
        terminal.press("q")
        assert terminal.wait() == 0
        assert terminal.is_as_it_was
    finally:
        terminal.close()


def test_it_is_interrupted_while_it_takes_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(descriptor: int, when: int) -> None:
        setcbreak(descriptor, when)
        raise KeyboardInterrupt

    setcbreak = tty.setcbreak
    monkeypatch.setattr(tty, "setcbreak", interrupted)
    controller, end = pty.openpty()
    before, handlers = termios.tcgetattr(end), [signal.getsignal(number) for number in signal.valid_signals()]
    with os.fdopen(controller, "rb"), os.fdopen(end, "r+b", buffering=0) as raw, io.TextIOWrapper(raw) as both:
        monkeypatch.setattr(sys, "stdin", both)
        monkeypatch.setattr(sys, "stdout", both)
        with pytest.raises(KeyboardInterrupt), Screen():
            pytest.fail("it wasn't")
        assert termios.tcgetattr(both) == before
    assert [signal.getsignal(number) for number in signal.valid_signals()] == handlers


@pytest.mark.usefixtures("daemon")
def test_a_terminal_that_knows_no_screen_gets_one_page_after_the_other() -> None:
    terminal = Terminal("--interval", "1s", "--count", "1", environment={"TERM": "dumb"})
    try:
        page = terminal.read_until("parked polls")
        assert terminal.process.wait() == 0
        assert "\x1b" not in page
        assert terminal.is_as_it_was
    finally:
        terminal.close()
