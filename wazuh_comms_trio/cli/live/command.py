"""``wazuh-comms top``: what the running daemon is doing right now."""

from __future__ import annotations

import os
import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from wazuh_comms_trio.cli import arguments as types
from wazuh_comms_trio.cli.command_socket import ask_daemon
from wazuh_comms_trio.cli.parser import Group
from wazuh_comms_trio.cli.program import Failure
from wazuh_comms_trio.foundation.journal import printable

#: Seconds.
ASK_TIMEOUT: Final = 5.0
#: Ctrl-D among them.
ENDING_KEYS: Final = frozenset("qQ\x04")
#: Seconds between two looks at least, or rates are noise.
SHORTEST: Final = 0.2


def add_parser(parent: Group) -> None:
    top = parent.command(
        "top",
        _top,
        help="what the running daemon is doing: live rates, latencies, queues, stores",
        description="Live rates, latencies by route and store, queues and workers of the running daemon, until q or"
        " Ctrl-C; space looks at once. Into a file, a pipe or a dumb terminal one page after the other.",
    )
    top.add_argument("--interval", metavar="TIME", type=types.duration, default=2.0, help="between two looks (2s)")
    top.add_argument("--count", metavar="N", type=types.count, help="end after so many pages")


def _top(arguments: Namespace) -> int:
    looks = Looks(arguments)
    try:
        if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
            _show_live(arguments, looks)
        else:
            _print(arguments, looks)
    except KeyboardInterrupt:
        pass
    return 0


def _print(arguments: Namespace, looks: Looks) -> None:
    shown = 0
    while arguments.count is None or shown < arguments.count:
        time.sleep(arguments.interval)
        looks.look()
        print("\n".join(looks.page(shutil.get_terminal_size((100, 1000)).columns, 1000)), end="\n\n", flush=True)
        shown += 1


def _show_live(arguments: Namespace, looks: Looks) -> None:
    """A daemon that doesn't answer any more is said, and asked on: it may be restarting. The last of ``--count`` pages
    stays when the terminal is as it was, whole."""
    from wazuh_comms_trio.cli.live.screen import GONE, Screen
    from wazuh_comms_trio.cli.output import cut

    with Screen() as screen:
        help_ = "q ends, space looks at once" if screen.has_keys else "Ctrl-C ends"
        shown, failed, said = 0, "", f"{help_}; the first look in {arguments.interval:g} s"
        next_look = time.monotonic() + arguments.interval
        while True:
            width, height = screen.size
            lines = looks.page(width, max(1, height - 1))
            if failed:  # and what is below is from before
                lines[:1] = [cut(f"! {failed}", width)]
            screen.show([*lines, *[""] * (height - 1 - len(lines)), cut(said, width - 1)][-height:])
            if shown == arguments.count:
                break
            keys = screen.wait(next_look - time.monotonic())
            if keys is not None:
                if keys == GONE or ENDING_KEYS.intersection(keys):
                    return
                if " " in keys:
                    next_look = min(next_look, looks.asked + SHORTEST)
                continue
            try:
                looks.look()
            except Failure as failure:
                failed = printable(str(failure))
                said = f"{help_}; asked again every {arguments.interval:g} s"
            else:
                failed = ""
                said = f"{help_}; every {arguments.interval:g} s"
                shown += 1
            next_look = time.monotonic() + arguments.interval
    print("\n".join(looks.page(width, 1000)), flush=True)


class Looks:
    """The last two looks at the daemon, as a page. Raises ``Failure`` where the daemon can't be asked."""

    def __init__(self, arguments: Namespace) -> None:
        from wazuh_comms_trio.cli.live.names import AgentNames

        self._arguments = arguments
        self._names = AgentNames(arguments)
        self._metrics = self._ask()
        #: When, of the monotonic clock.
        self.asked = time.monotonic()
        self._page: Callable[..., list[str]] | None = None

    def look(self) -> None:
        from wazuh_comms_trio.cli.commands.status import find_problems
        from wazuh_comms_trio.cli.live.page import AGENTS, page
        from wazuh_comms_trio.cli.live.rates import Rates
        from wazuh_comms_trio.daemon.status import read_status

        metrics, asked = self._ask(), time.monotonic()
        status = read_status(ask_daemon(self._arguments, "GET", "/api/v1/status", ASK_TIMEOUT))
        rates = Rates(self._metrics, metrics, asked - self.asked)
        names = self._names.of([agent_id for agent_id, _, _ in rates.agents[:AGENTS]])
        self._page = partial(page, rates, status, find_problems(status), names=names)
        self._metrics, self.asked = metrics, asked

    def page(self, width: int, height: int) -> list[str]:
        """Lines; none before there was a look."""
        return [] if self._page is None else self._page(width=width, height=height)

    def _ask(self) -> dict[str, Any]:
        return ask_daemon(self._arguments, "GET", "/api/v1/metrics", ASK_TIMEOUT)
