"""The terminal that `wazuh-comms top` shows its pages on: a screen of its own and keys as they are pressed, until the
program ends in whatever way, or is stopped by Ctrl-Z."""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Sequence
from types import FrameType
from typing import Any, Final

from wazuh_comms_trio.foundation.file_writes import write_all, write_part

#: Another screen without a cursor, and back.
_ENTER: Final = "\x1b[?1049h\x1b[?25l"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
_CLEAR_LINE: Final = "\x1b[K"
_CLEAR_REST: Final = "\x1b[J"
#: Whose default ends the program.
_ENDS: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
#: What arrows and the like send.
_SEQUENCE: Final = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|O.|.)?", re.DOTALL)
#: What ``wait`` returns beside keys.
RESIZED: Final = "\x1bresized"
GONE: Final = "\x1bgone"


class Screen:
    """Standard output, which is a terminal, as a context manager, in the main thread. ``has_keys``: standard input is
    one, too; then it is in cbreak mode. Signals that end the program put the terminal back first; SIGTSTP does, and
    SIGCONT takes it again."""

    def __init__(self) -> None:
        self._output = sys.stdout.fileno()
        self._encoding = sys.stdout.encoding
        self.has_keys = sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()
        self._input = sys.stdin.fileno() if self.has_keys else None
        self._before: list[Any] | None = None
        self._is_taken = False
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Screen:
        self._news, self._tell = os.pipe()
        for end in (self._news, self._tell):
            os.set_blocking(end, False)
        try:
            for number in _ENDS:
                self._handle(number, self._end)
            self._handle(signal.SIGTSTP, self._stop)
            self._handle(signal.SIGCONT, self._go_on)
            self._handle(signal.SIGWINCH, self._wake)
            self._take()
        except BaseException:  # Ctrl-C among them
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._news)
        os.close(self._tell)

    @property
    def size(self) -> os.terminal_size:
        """As it is now; ``COLUMNS`` and ``LINES`` of the environment are what it was. 80 x 24 where it doesn't know."""
        size = os.get_terminal_size(self._output)
        return size if all(size) else os.terminal_size((80, 24))

    def show(self, lines: Sequence[str]) -> None:
        """A page in the place of the one before. Raises ``OSError`` when the terminal is gone."""
        text = _HOME + f"{_CLEAR_LINE}\r\n".join(lines) + f"{_CLEAR_LINE}{_CLEAR_REST}"
        self._write(text)

    def wait(self, seconds: float) -> str | None:
        """Blocks. The keys that were pressed, of those that are characters; ``RESIZED`` (or taken again), ``GONE`` with
        the terminal; None: nothing of it within ``seconds``."""
        sources = [self._news] if self._input is None else [self._news, self._input]
        # Or a signal that comes just before the call would be acted upon after it. Not for longer: trio wants it, too.
        before = signal.set_wakeup_fd(self._tell, warn_on_full_buffer=False)
        try:
            readable, _, _ = select.select(sources, [], [], max(0.0, seconds))
        finally:
            signal.set_wakeup_fd(before)
        if self._news in readable:
            os.read(self._news, 4096)
            return RESIZED
        if not readable or self._input is None:
            return None
        try:
            keys = os.read(self._input, 64)
        except OSError:
            return GONE
        return _SEQUENCE.sub("", keys.decode("latin-1")) if keys else GONE

    def _handle(self, number: signal.Signals, handler: Any) -> None:
        """A signal that whoever started the program ignores (``nohup``) stays so."""
        if signal.getsignal(number) is not signal.SIG_IGN:
            self._handlers[number] = signal.signal(number, handler)

    def _take(self) -> None:
        while not self._is_taken:
            try:
                if self._input is not None:
                    self._before = termios.tcgetattr(self._input)
                    tty.setcbreak(self._input, termios.TCSANOW)
            except termios.error as error:
                if error.args[0] != errno.EINTR:  # in the background it was stopped here
                    raise
            else:
                self._is_taken = True
                self._write(_ENTER)

    def _give_back(self) -> None:
        """As far as there is a terminal still."""
        before, self._before = self._before, None
        self._is_taken = False
        try:
            self._write(_LEAVE)
            if before is not None and self._input is not None:
                termios.tcsetattr(self._input, termios.TCSADRAIN, before)
        except (OSError, termios.error):
            return

    def _write(self, text: str) -> None:
        """Past ``sys.stdout``, whose buffer a signal's handler can't write to while it is written to."""
        write_all(self._output, text.encode(self._encoding, errors="backslashreplace"))

    def _wake(self, *_: object) -> None:
        try:
            write_part(self._tell, b"w")
        except BlockingIOError:
            return  # it is awake

    def _end(self, number: int, _: FrameType | None) -> None:
        self._give_back()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _stop(self, *_: object) -> None:
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # here it is stopped, or not, where no shell could let it go on
        signal.signal(signal.SIGTSTP, self._stop)
        self._take()
        self._wake()

    def _go_on(self, *_: object) -> None:
        """Another program may have had the terminal meanwhile, also after a SIGSTOP, of which nothing was heard."""
        if self._is_taken and self._input is not None:
            tty.setcbreak(self._input, termios.TCSANOW)
            self._write(_ENTER)
        self._take()
        self._wake()
