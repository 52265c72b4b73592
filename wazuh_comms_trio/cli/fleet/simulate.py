"""What ``wazuh-comms simulate-fleet`` does, from its options to its report."""

from __future__ import annotations

import gc
import os
import random
import secrets
import shutil
import signal
import sys
import time
from argparse import Namespace
from collections.abc import AsyncIterable

import trio

from wazuh_comms_trio.cli.commands.agents import new_uuid
from wazuh_comms_trio.cli.commands.enrollment import read_password
from wazuh_comms_trio.cli.fleet.connection import Node, find_node, tls_context
from wazuh_comms_trio.cli.fleet.defaults import LOG_INS, PASSWORD_VARIABLE
from wazuh_comms_trio.cli.fleet.enrolling import Session, append_members, enrol, read_members
from wazuh_comms_trio.cli.fleet.fleet import Fleet, Pace
from wazuh_comms_trio.cli.fleet.host import Member, make_hosts
from wazuh_comms_trio.cli.fleet.mix import Mix, read_mix
from wazuh_comms_trio.cli.fleet.plot import draw
from wazuh_comms_trio.cli.fleet.report import progress_line, report_document, report_lines
from wazuh_comms_trio.cli.fleet.run import Result, Stage, need_descriptors, run_fleet
from wazuh_comms_trio.cli.following import Progress
from wazuh_comms_trio.cli.output import Output, lines
from wazuh_comms_trio.cli.program import EXIT_FAILED, EXIT_MISUSE, Failure
from wazuh_comms_trio.services.authentication.secret_hashes import new_key

__all__ = ["simulate"]


async def simulate(arguments: Namespace) -> int:
    """Returns the exit status: 1 when a request failed. Raises ``Failure``, ``ConfigError``, ``OSError``."""
    output = Output(as_json=arguments.json)
    mix = read_mix(arguments.mix) if arguments.mix else Mix()
    node, enrolling = _nodes(arguments)
    if arguments.plot is not None and not arguments.plot.absolute().parent.is_dir():
        raise Failure(f"{arguments.plot}: there is no folder for it", EXIT_MISUSE)
    need_descriptors(arguments.agents)
    members = await _members(arguments, enrolling)
    node = node.where_it_listens()
    rng = random.Random(arguments.seed)
    hosts = make_hosts(members, mix, rng)
    need_descriptors(len(hosts))
    ramp = arguments.ramp if arguments.ramp is not None else len(hosts) / LOG_INS
    fleet = Fleet(node, hosts, mix, Pace(ramp), rng=rng)
    result = await _run(fleet, ramp, arguments.duration)
    if arguments.plot is not None:
        day = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        title = f"{len(members)} agents on {arguments.url}, {day} UTC"
        arguments.plot.write_text(draw(result.slices, title, result.start_seconds), "utf-8")
    output.document(report_document(result, len(members)), lines(report_lines(result, len(members))))
    return EXIT_FAILED if result.start.errors or result.rest.errors else 0


def _nodes(arguments: Namespace) -> tuple[Node, Node]:
    """Where requests go, and where agents enrol. Raises ``Failure``."""
    if (arguments.cert is None) != (arguments.cert_key is None):
        raise Failure("--cert and --cert-key go together", EXIT_MISUSE)
    own = (arguments.cert, arguments.cert_key) if arguments.cert is not None else None
    try:
        context = tls_context(arguments.ca, own)
    except OSError as error:  # which doesn't say of which file
        files = ", ".join(each for each in (arguments.ca, *(own or ())) if each)
        raise Failure(f"{files}: {error.strerror or error}") from None
    node = find_node(arguments.url, context)
    host = f"[{node.host}]" if ":" in node.host else node.host
    enrolling = find_node(arguments.enroll_url or f"https://{host}:55000", context)
    for each in (node, enrolling):
        if not each.is_loopback and not arguments.yes_this_is_mine:
            where = f"{each.host} ({', '.join(each.addresses)}) isn't loopback"
            raise Failure(f"{where}, and a fleet is a load: --yes-this-is-mine says that it is yours", EXIT_MISUSE)
    return node, enrolling


async def _members(arguments: Namespace, node: Node) -> list[Member]:
    """The agents of the file, and as many new ones as are missing. Raises ``Failure``, ``OSError``."""
    file = arguments.agents_file
    members = read_members(file)[: arguments.agents] if file else []
    missing = arguments.agents - len(members)
    if not missing:
        return members
    if arguments.token is None and arguments.user is None:
        has = f"{file} has {len(members)}" if file else "there is no --agents-file"
        raise Failure(f"{arguments.agents} agents are needed, and {has}: --user or --token enrols them", EXIT_MISUSE)
    node = node.where_it_listens()
    if arguments.token is not None:
        session = Session(node, arguments.token)
    else:
        password = os.environ.get(PASSWORD_VARIABLE) or read_password(twice=False)
        session = Session(node, user=arguments.user, password=password)
    prefix = f"fleet-{secrets.token_hex(2)}"
    fresh = [Member(new_uuid(), f"{prefix}-{number:05}", new_key()) for number in range(1, missing + 1)]

    def done(member: Member) -> None:
        members.append(member)
        if file:
            append_members(file, [member])

    def show(text: str) -> None:
        if sys.stderr.isatty():
            progress.show(text)

    with Progress() as progress:
        await enrol(session, fresh, done=done, show=show)
    return members


async def _run(fleet: Fleet, ramp: float, duration: float | None) -> Result:
    """Runs the fleet; ends by itself, or at the first SIGINT or SIGTERM."""
    stop = trio.Event()

    async def watch(signals: AsyncIterable[int]) -> None:
        async for _ in signals:
            stop.set()
            return

    def show(stage: Stage) -> None:
        if sys.stderr.isatty():
            progress.show(progress_line(stage, shutil.get_terminal_size((80, 24)).columns))

    # To look through all that thousands of tasks hold makes requests late: what is there now isn't looked at again.
    gc.collect()
    gc.freeze()
    try:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals, Progress() as progress:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch, signals)
                result = await run_fleet(fleet, ramp=ramp, duration=duration, stop=stop, show=show)
                nursery.cancel_scope.cancel()
    finally:
        gc.unfreeze()
    return result
