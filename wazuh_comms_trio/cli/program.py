"""What every program of ours does alike: exit statuses, errors as sentences on stderr, never a traceback."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from io import TextIOWrapper
from typing import Final, NoReturn

from wazuh_comms_trio.foundation.extras import how_to_install
from wazuh_comms_trio.foundation.journal import ERROR, is_journal, printable, with_priority

EXIT_FAILED: Final = 1
EXIT_MISUSE: Final = 2
EXIT_BAD_CONFIGURATION: Final = 78
EXIT_INTERRUPTED: Final = 130
EXIT_BROKEN_PIPE: Final = 141

#: Set to anything, an unforeseen error is shown with its traceback.
TRACEBACK_VARIABLE: Final = "WAZUH_COMMS_TRACEBACK"

CONFIG_VARIABLE: Final = "WAZUH_COMMS_CONFIG"
DEFAULT_CONFIG: Final = "/etc/wazuh-server/wazuh-server.yml"
CONFIG_HELP: Final = f"the configuration (default: ${CONFIG_VARIABLE}, else {DEFAULT_CONFIG})"


class Failure(Exception):
    """Raised to end the program: ``str()`` is the sentence for stderr (none: what was said is enough), ``status`` the
    exit's."""

    def __init__(self, text: str = "", status: int = EXIT_FAILED) -> None:
        super().__init__(text)
        self.status = status


class Parser(argparse.ArgumentParser):
    """argparse's parser without shortened options: a later option must not change what an earlier script meant."""

    def __init__(self, *args: object, **options: object) -> None:
        options.setdefault("allow_abbrev", False)
        super().__init__(*args, **options)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        complain(self.prog, message)
        self.exit(EXIT_MISUSE)


def config_path(given: str | None) -> str:
    return given or os.environ.get(CONFIG_VARIABLE) or DEFAULT_CONFIG


def way_out(error: BaseException) -> str:
    """What to do about a configuration that can't be read."""
    if isinstance(error.__cause__, PermissionError):
        return "; run this as root, or as the user whose it is"
    if isinstance(error.__cause__, FileNotFoundError) and str(getattr(error, "file", "")) == DEFAULT_CONFIG:
        return f"; name another one by --config FILE or ${CONFIG_VARIABLE}"
    return ""


def complain(name: str, line: str, priority: int = ERROR) -> None:
    """Prints a line on stderr; for the journal, if that is what reads it, with its priority."""
    text = f"{name}: {printable(line)}"
    print(with_priority(priority, text) if is_journal(sys.stderr) else text, file=sys.stderr)


def run_program(name: str, main: Callable[[], int]) -> int:
    """Calls ``main`` and returns the exit status, whatever it raises (``SystemExit`` goes through: argparse's)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = main()
        if sys.stdout is not None:  # closed by the caller
            sys.stdout.flush()
    except SystemExit:
        raise
    except BaseException as error:
        return _report(name, error)
    return status


def _report(name: str, error: BaseException) -> int:
    """Prints an error, a line a reason. What has a name of its own needs no more than its sentence."""
    from wazuh_comms_trio.foundation.nurseries import exceptions_of

    reasons = list(exceptions_of(error))
    _give_up_output()
    if any(isinstance(reason, KeyboardInterrupt) for reason in reasons):
        return EXIT_INTERRUPTED
    if any(isinstance(reason, BrokenPipeError) for reason in reasons):
        return EXIT_BROKEN_PIPE  # the reader of our output has left
    status = EXIT_FAILED
    for reason in reasons:
        if isinstance(reason, Failure):
            status = reason.status
        elif type(reason).__name__ == "ConfigError":  # by name: not everybody imports the configuration
            status = EXIT_BAD_CONFIGURATION
        for line in _sentence(reason).splitlines():
            complain(name, line)
    if os.environ.get(TRACEBACK_VARIABLE):
        import traceback

        traceback.print_exception(error)
    return status


def _give_up_output() -> None:
    """What can't be written now can't be at the exit either, where Python would complain of it once more."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (OSError, ValueError, AttributeError):
            return  # there is none


def _sentence(reason: BaseException) -> str:
    if isinstance(reason, Failure):
        return str(reason)
    if type(reason).__name__ == "ConfigError":
        return f"{reason}{way_out(reason)}"
    if isinstance(reason, OSError):
        what = f"{reason.filename}: " if reason.filename is not None else ""
        return f"{what}{reason.strerror or reason}"
    if hasattr(reason, "detail"):  # the indexer's client: what it saw is for the operator, `message` for agents
        return str(reason.detail)
    if hasattr(reason, "message") and hasattr(reason, "code"):  # one of errors.py
        return str(reason.message) or f"error {reason.code}"
    if isinstance(reason, ModuleNotFoundError) and reason.name and not reason.name.startswith("wazuh_comms_trio"):
        if "pip install" in str(reason):
            return str(reason)
        return f"{reason}; this needs the daemon's packages: {how_to_install('daemon')}"
    if type(reason).__name__ == "StartError":
        return str(reason)
    return f"unexpected error: {reason!r} (with {TRACEBACK_VARIABLE}=1 it is shown in full)"
