"""``wazuh-comms-apid``: the daemon, in the foreground, with its log on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wazuh_comms_trio.cli.program import CONFIG_HELP, EXIT_BAD_CONFIGURATION, Parser, complain, config_path, run_program
from wazuh_comms_trio.foundation.journal import WARNING

if TYPE_CHECKING:
    from wazuh_comms_trio.config.problems import Problem

_NAME = "wazuh-comms-apid"


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns its exit status; 78 for a configuration that can't be used."""
    parsed = make_parser().parse_args(arguments)
    return run_program(_NAME, lambda: _run(parsed.config, check=parsed.check, version=parsed.version))


def make_parser() -> Parser:
    parser = Parser(
        prog=_NAME, description="The agents' API of a Wazuh server, in the foreground; its log is on stderr."
    )
    parser.add_argument("--config", metavar="FILE", help=CONFIG_HELP)
    parser.add_argument(
        "--check", action="store_true", help="only check the configuration, keys and certificates included"
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    return parser


def _run(config: str | None, *, check: bool, version: bool) -> int:
    if version:
        from wazuh_comms_trio.foundation.extras import installed_version

        print(f"{_NAME} {installed_version('(not installed)')}")
        return 0
    from wazuh_comms_trio.config.load import load_config
    from wazuh_comms_trio.config.problems import ConfigError

    try:
        loaded = load_config(config_path(config))
    except ConfigError as error:
        _print_warnings(error.warnings, error.file)
        raise
    if check:
        from wazuh_comms_trio.cli.owner import unreadable_for_service
        from wazuh_comms_trio.config.capacity import judge_here

        _print_warnings(loaded.warnings, loaded.file)
        capacity = judge_here(loaded.config.communications_api)
        for text in capacity.misfits:
            complain(_NAME, f"warning: {text}", WARNING)
        if capacity.problem:
            complain(_NAME, capacity.problem)
            return EXIT_BAD_CONFIGURATION
        if refused := unreadable_for_service(loaded.file, loaded.config.communications_api.embedded.path):
            name, problems = refused
            for problem in problems:
                complain(_NAME, f"warning: as {name}: {problem.render(loaded.file)}", WARNING)
            print(
                f"{loaded.file} can be used by root, but not by {name}, unless the service gets that by LoadCredential="
            )
            return 0
        print(f"{loaded.file} can be used")
        return 0
    from wazuh_comms_trio.daemon.process import run_daemon

    warnings = [warning.render(loaded.file) for warning in loaded.warnings]
    return run_daemon(loaded.config, warnings=warnings, loaded=loaded)


def _print_warnings(warnings: Iterable[Problem], file: Path) -> None:
    for warning in warnings:
        complain(_NAME, f"warning: {warning.render(file)}", WARNING)


if __name__ == "__main__":
    sys.exit(main())
