"""The tool's commands as a tree of parsers; ``--config`` and ``--json`` may stand at every level."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from typing import Any

from wazuh_comms_trio.cli.program import CONFIG_HELP, Parser

#: Does a command's work and returns the exit status.
Work = Callable[[argparse.Namespace], int | Awaitable[int]]


class Group:
    """A parser whose arguments begin with the name of a command."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser
        self.commands: Any = parser.add_subparsers(title="commands", metavar="COMMAND")
        parser.set_defaults(work=self._say_which)  # a command's own takes its place

    def _say_which(self, arguments: argparse.Namespace) -> int:
        self.parser.error(f"name a command: {', '.join(self.commands.choices)}")

    def group(self, name: str, *, help: str) -> Group:
        return Group(self._parser(name, help, help))

    def command(self, name: str, work: Work, *, help: str, description: str | None = None) -> argparse.ArgumentParser:
        parser = self._parser(name, help, description or help)
        parser.set_defaults(work=work)
        return parser

    def _parser(self, name: str, help: str, description: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = self.commands.add_parser(name, help=help, description=description)
        add_common(parser, default=argparse.SUPPRESS)  # so that it doesn't undo what stood before the command
        return parser


def make_tree(name: str, description: str) -> Group:
    parser = Parser(prog=name, description=description)
    add_common(parser, default=None)
    return Group(parser)


def add_common(parser: argparse.ArgumentParser, *, default: Any) -> None:
    parser.add_argument("--config", metavar="FILE", default=default, help=CONFIG_HELP)
    json_default = False if default is None else default
    json_help = "print one JSON document (`events tail`: one a line)"
    parser.add_argument("--json", action="store_true", default=json_default, help=json_help)
