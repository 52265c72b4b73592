"""``wazuh-comms``: the operator's tool. Each command has a module; what it needs is imported when it runs."""

from __future__ import annotations

import sys
from argparse import Action, ArgumentParser
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from wazuh_comms_trio.cli.parser import make_tree
from wazuh_comms_trio.cli.program import run_program

_NAME: Final = "wazuh-comms"

#: Each has a module in ``cli/commands/``, or the one that ``_ELSEWHERE`` names, with ``add_parser(group)``.
_COMMANDS: Final = (
    "agents",
    "commands",
    "events",
    "quarantine",
    "backup",
    "restore",
    "store",
    "enrollment",
    "keys",
    "config",
    "indexer",
    "status",
    "top",
    "reload",
    "drain",
    "daemon",
    "simulate-fleet",
)
_ELSEWHERE: Final = {"top": "live.command", "keys": "keys.command", "simulate-fleet": "fleet.command"}


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns its exit status: 1 for an error, 2 for misuse, 78 for a bad configuration."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return run_program(_NAME, lambda: _run(words))


def _run(words: Sequence[str]) -> int:
    parsed = make_parser(words).parse_args(words)
    outcome = parsed.work(parsed)
    if isinstance(outcome, int):
        return outcome
    import trio

    async def finish() -> int:
        return int(await outcome)

    return trio.run(finish)


def make_parser(words: Sequence[str] = ()) -> ArgumentParser:
    """The whole tree; with the words of a command line, only the branch of the command that they begin with."""
    tree = make_tree(_NAME, "The operator's tool of wazuh-comms-apid.")
    tree.parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    wanted = _command_of(words)
    for command in [wanted] if wanted in _COMMANDS else _COMMANDS:
        module = _ELSEWHERE.get(command, f"commands.{command}")
        import_module(f"wazuh_comms_trio.cli.{module}").add_parser(tree)
    return tree.parser


def _command_of(words: Sequence[str]) -> str:
    """The first word that is neither an option nor an option's value."""
    rest = iter(words)
    for word in rest:
        if word == "--config":
            next(rest, None)
        elif not word.startswith("-"):
            return word
    return ""


class _Version(Action):
    def __call__(self, parser: ArgumentParser, *_: object) -> None:
        from wazuh_comms_trio.foundation.extras import installed_version

        print(f"{_NAME} {installed_version('(not installed)')}")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
