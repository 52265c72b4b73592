"""A question before something large."""

from __future__ import annotations

import sys

from wazuh_comms_trio.cli.program import EXIT_MISUSE, Failure
from wazuh_comms_trio.foundation.journal import printable


def confirm(what: str, *, yes: bool) -> None:
    """Asks at the terminal, unless ``yes`` was said before. Raises ``Failure`` where the answer is no, and where nobody
    can be asked."""
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty() or not sys.stderr.isatty():
        raise Failure(f"{what}: say --yes if that is meant; nothing was done", EXIT_MISUSE)
    print(printable(f"{what}. Go on? [y/N] "), end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Failure("nothing was done")
