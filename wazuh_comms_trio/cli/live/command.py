"""``wazuh-comms top``: what the running daemon is doing right now."""

from __future__ import annotations

import shutil
import sys
import time
from argparse import Namespace
from typing import TYPE_CHECKING, Any, Final

from wazuh_comms_trio.cli import arguments as types
from wazuh_comms_trio.cli.command_socket import ask_daemon
from wazuh_comms_trio.cli.parser import Group

if TYPE_CHECKING:
    from wazuh_comms_trio.cli.live.names import AgentNames

#: Seconds.
ASK_TIMEOUT: Final = 5.0
#: A terminal's: another screen without a cursor, and back.
_ENTER: Final = "\x1b[?1049h\x1b[?25l"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
_CLEAR_LINE: Final = "\x1b[K"
_CLEAR_REST: Final = "\x1b[J"


def add_parser(parent: Group) -> None:
    top = parent.command(
        "top",
        _top,
        help="what the running daemon is doing: live rates, latencies, queues, stores",
        description="Live rates, latencies by route and store, queues and workers of the running daemon, until Ctrl-C."
        " Into a file or a pipe one page after the other.",
    )
    top.add_argument("--interval", metavar="TIME", type=types.duration, default=2.0, help="between two looks (2s)")
    top.add_argument("--count", metavar="N", type=types.count, help="end after so many pages")


def _top(arguments: Namespace) -> int:
    from wazuh_comms_trio.cli.live.names import AgentNames

    live = sys.stdout.isatty()
    before, asked = _metrics(arguments), time.monotonic()
    if live:
        sys.stdout.write(_ENTER)
    shown, names = 0, AgentNames(arguments)
    try:
        while arguments.count is None or shown < arguments.count:
            time.sleep(arguments.interval)
            after, now = _metrics(arguments), time.monotonic()
            _show(arguments, before, after, now - asked, live, names)
            before, asked = after, now
            shown += 1
    except KeyboardInterrupt:
        pass
    finally:
        if live:
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()
    return 0


def _metrics(arguments: Namespace) -> dict[str, Any]:
    return ask_daemon(arguments, "GET", "/api/v1/metrics", ASK_TIMEOUT)


def _show(
    arguments: Namespace,
    before: dict[str, Any],
    after: dict[str, Any],
    seconds: float,
    live: bool,
    names: AgentNames,
) -> None:
    from wazuh_comms_trio.cli.commands.status import find_problems
    from wazuh_comms_trio.cli.live.page import AGENTS, page
    from wazuh_comms_trio.cli.live.rates import Rates
    from wazuh_comms_trio.daemon.status import read_status

    status = read_status(ask_daemon(arguments, "GET", "/api/v1/status", ASK_TIMEOUT))
    size = shutil.get_terminal_size((100, 1000))
    height = size.lines if live else 1000
    rates, problems = Rates(before, after, seconds), find_problems(status)
    known = names.of([agent_id for agent_id, _, _ in rates.agents[:AGENTS]])
    lines = page(rates, status, problems, width=size.columns, height=height, names=known)
    if live:
        text = f"{_HOME}" + f"{_CLEAR_LINE}\r\n".join(lines) + f"{_CLEAR_LINE}{_CLEAR_REST}"
    else:
        text = "\n".join(lines) + "\n\n"
    sys.stdout.write(text)
    sys.stdout.flush()
