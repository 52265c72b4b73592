"""A worker whose supervisor is gone must end, too: also one whose event loop doesn't turn any more.

The link's end tells a worker, and it leaves in order. Beside that, a thread of its own waits for the same: it makes
sure that the worker is gone when its time is over, or at once when its event loop answers no more. It blocks in poll(2)
until then, and costs nothing. (Code that never gives the interpreter's lock back keeps this thread from its work, too.)

A process that is stopped (SIGSTOP) can do nothing at all: the kernel wakes it when its supervisor dies.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
import time
from contextlib import suppress
from typing import Final

import trio

__all__ = ["ParentWatchdog", "wake_when_parent_dies"]

logger = logging.getLogger(__name__)

#: prctl(2)
PR_SET_PDEATHSIG: Final = 1
#: After the grace period: draining, closing stores, and leaving; seconds.
MARGIN: Final = 8.0
#: An event loop that takes longer to answer hangs; as long as the supervisor would wait for a heartbeat.
HUNG_AFTER: Final = 5.0
ASK_INTERVAL: Final = 0.5
#: For the last line in the log, which may not get out of a process that hangs.
LAST_LINE: Final = 0.5


def wake_when_parent_dies() -> None:
    """The kernel sends SIGCONT when the supervisor dies. Its main thread has to be what has started this process."""
    with suppress(OSError, AttributeError, ImportError, MemoryError):
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGCONT), 0, 0, 0)


class ParentWatchdog:
    """Ends the worker after its supervisor; ``grace``: seconds that the worker may take to end its requests, once its
    supervisor is gone."""

    def __init__(self) -> None:
        self.grace = 0.0

    def start(self, link: int) -> None:
        """Watches from now on, until the process ends. ``link``: the descriptor of the link, which may be closed later.
        Called within trio."""
        own = os.dup(link)
        threading.Thread(
            target=self._run, args=(own, trio.lowlevel.current_trio_token()), name="parent watchdog", daemon=True
        ).start()

    def _run(self, link: int, token: trio.lowlevel.TrioToken) -> None:
        end = select.poll()
        end.register(link, 0)  # nothing but its end
        end.poll()
        until = time.monotonic() + self.grace + MARGIN
        while (left := until - time.monotonic()) > 0:
            if not _answers(token, min(left, HUNG_AFTER)) and left > HUNG_AFTER:
                return _end("the supervisor is gone, and the event loop doesn't answer; killed")
            time.sleep(ASK_INTERVAL)
        return _end("the supervisor is gone, and this worker's time is over; killed")


def _answers(token: trio.lowlevel.TrioToken, timeout: float) -> bool:
    """Whether the event loop turns. One that has ended does no harm."""
    turned = threading.Event()
    try:
        token.run_sync_soon(turned.set)
    except trio.RunFinishedError:
        return True
    return turned.wait(timeout)


def _end(why: str) -> None:
    # In a thread: the hanging event loop may hold the log's lock, or the log's reader hangs.
    threading.Thread(target=logger.critical, args=(why,), daemon=True).start()
    time.sleep(LAST_LINE)
    os.kill(os.getpid(), signal.SIGKILL)
