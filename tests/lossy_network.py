"""A private network whose packets are lost at random: a namespace of the kernel's, and a packet filter on its loopback.

Each packet passes the filter once, whichever its direction: at a loss of 5 % a question and its answer come through in
90 of 100 times.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Final

__all__ = ["CANNOT", "CannotLose", "in_namespace", "lose", "start_network"]

#: Exit status of a program in the namespace that can't have its network there; the reason is on stderr.
CANNOT: Final = 77
#: The programs needn't be on the path of who isn't root.
PATH: Final = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


class CannotLose(Exception):
    """The machine lets us have no namespace, or no filter."""


def in_namespace(command: Sequence[str]) -> list[str]:
    """The command line that runs ``command`` in a network of its own. It ends with status ``CANNOT`` where that can't
    be had."""
    own = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
    program = (
        f'{" ".join(own)} true 2> /dev/null || {{ echo "no network namespace here" >&2; exit {CANNOT}; }}; exec "$@"'
    )
    return ["sh", "-c", program, "sh", *own, *command]


def start_network() -> None:
    """Makes the loopback of this namespace usable. Raises ``CannotLose``."""
    run("ip", "link", "set", "lo", "up")


def lose(percent: int) -> None:
    """From now on so many of 100 packets are lost. Raises ``CannotLose``."""
    reasons = []
    for attempt in (_by_nft, _by_iptables, _by_netem):
        try:
            attempt(percent)
        except CannotLose as error:
            reasons.append(str(error))
        else:
            return
    raise CannotLose("; ".join(reasons))


def _by_nft(percent: int) -> None:
    rules = (
        "add table inet loss\n"
        "add chain inet loss input { type filter hook input priority 0; }\n"
        f"add rule inet loss input numgen random mod 100 < {percent} drop\n"
    )
    run("nft", "-f", "-", text=rules)


def _by_iptables(percent: int) -> None:
    match = ("-m", "statistic", "--mode", "random", "--probability", str(percent / 100))
    run("iptables", "-A", "INPUT", *match, "-j", "DROP")


def _by_netem(percent: int) -> None:
    run("tc", "qdisc", "add", "dev", "lo", "root", "netem", "loss", f"{percent}%")


def run(*command: str, text: str | None = None) -> None:
    program = shutil.which(command[0], path=PATH)
    if program is None:
        raise CannotLose(f"no {command[0]}")
    done = subprocess.run([program, *command[1:]], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise CannotLose(f"{command[0]}: {lines[0]}")
