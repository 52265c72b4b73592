"""``wazuh-comms config``: is the configuration sound, and what is in force?"""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from wazuh_comms_trio.cli.parser import Group
from wazuh_comms_trio.cli.program import EXIT_BAD_CONFIGURATION, config_path, way_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wazuh_comms_trio.config.problems import Problem


_LIMITS = "communications_api.limits"


def add_parser(parent: Group) -> None:
    config = parent.group("config", help="check or show the configuration")
    check = config.command(
        "check", _check, help="report all problems of the file, keys and certificates included; 78 if there are any"
    )
    check.add_argument(
        "--online",
        action="store_true",
        help="also ports, folders, engine, indexer and its rights, as the service's user; 1 if something is wrong",
    )
    config.command("show", _show, help="what is in force, defaults included, with secrets masked")


def _check(arguments: Namespace) -> Any:
    return _check_online(arguments) if arguments.online else _check_file(arguments)


async def _check_online(arguments: Namespace) -> int:
    """Checks the file first, then what it needs of this machine and of others: what is wrong with the file is wrong
    with all of it."""
    from pathlib import Path

    from wazuh_comms_trio.cli.command_socket import EXIT_NOT_RUNNING, ask_daemon
    from wazuh_comms_trio.cli.online_check import look, prepare
    from wazuh_comms_trio.cli.output import Output
    from wazuh_comms_trio.cli.owner import acting_as_owner
    from wazuh_comms_trio.cli.program import EXIT_FAILED, Failure
    from wazuh_comms_trio.config.load import load_config
    from wazuh_comms_trio.foundation.journal import printable

    file = config_path(arguments.config)
    if not arguments.json and (status := _check_file(arguments)):
        return status
    config = load_config(file).config
    try:
        ask_daemon(arguments, "GET", "/api/v1/status", 5)
        running = True
    except Failure as failure:
        running = failure.status != EXIT_NOT_RUNNING
    findings = []
    prepare(config)
    with acting_as_owner(config.communications_api.embedded.path, Path(file), make=False):
        async for finding in look(config, running=running):
            findings.append(finding)
            if not arguments.json:
                print(printable(f"{finding.level:7}  {finding.what}: {finding.text}"), flush=True)
    sound = all(finding.level != "problem" for finding in findings)
    checks = [{"level": found.level, "what": found.what, "text": found.text} for found in findings]
    Output(as_json=arguments.json).document({"file": file, "ok": sound, "checks": checks}, "")
    return 0 if sound else EXIT_FAILED


def _check_file(arguments: Namespace) -> int:
    from attrs import evolve

    from wazuh_comms_trio.cli.output import Output
    from wazuh_comms_trio.cli.owner import unreadable_for_service
    from wazuh_comms_trio.config.capacity import judge_here
    from wazuh_comms_trio.config.load import load_config
    from wazuh_comms_trio.config.problems import ConfigError, Problem

    file = config_path(arguments.config)
    problems: Sequence[Problem] = ()
    verdict, way = f"{file} can be used", ""
    follows: Sequence[str] = ()
    try:
        loaded = load_config(file)
        warnings: list[Problem] = list(loaded.warnings)
        capacity = judge_here(loaded.config.communications_api)
        follows = capacity.follows
        warnings += [Problem(_LIMITS, None, text) for text in capacity.misfits]
        problems = [Problem(_LIMITS, None, capacity.problem)] if capacity.problem else ()
        if refused := unreadable_for_service(loaded.file, loaded.config.communications_api.embedded.path):
            name, unreadable = refused
            warnings += [evolve(problem, text=f"as {name}: {problem.text}") for problem in unreadable]
            verdict += f" by root, but not by {name}, unless the service gets that by LoadCredential="
    except ConfigError as error:
        problems, warnings, way = error.problems, list(error.warnings), way_out(error)
    if not arguments.json:
        for problem in problems:
            print(f"wazuh-comms: {problem.render(file)}{way}", file=sys.stderr)
        for warning in warnings:
            print(f"wazuh-comms: warning: {warning.render(file)}", file=sys.stderr)
    document = {
        "file": file,
        "ok": not problems,
        "problems": [_data(problem) for problem in problems],
        "warnings": [_data(warning) for warning in warnings],
        "follows": list(follows),
    }
    text = "\n".join([verdict, *(["what follows from limits.agents, for each worker:"] if follows else []), *follows])
    Output(as_json=arguments.json).document(document, "" if problems else text)
    return EXIT_BAD_CONFIGURATION if problems else 0


def _data(problem: Problem) -> dict[str, Any]:
    return {"path": problem.path, "line": problem.line, "text": problem.text}


def _show(arguments: Namespace) -> int:
    from wazuh_comms_trio.cli.output import Output
    from wazuh_comms_trio.config.load import load_config
    from wazuh_comms_trio.config.show import as_data, as_yaml

    config = load_config(config_path(arguments.config), check_files=False).config
    Output(as_json=arguments.json).document(as_data(config), as_yaml(config).rstrip("\n"))
    return 0
