"""``wazuh-comms simulate-fleet``: how a node does under so many agents."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from pathlib import Path

from wazuh_comms_trio.cli import arguments as types
from wazuh_comms_trio.cli.fleet.defaults import LOG_INS, PASSWORD_VARIABLE
from wazuh_comms_trio.cli.parser import Group


def add_parser(parent: Group) -> None:
    fleet = parent.command(
        "simulate-fleet",
        _simulate,
        help="how a node does under many agents: rates, latencies, errors",
        description="Enrols agents, or takes those of --agents-file, and does what they do, at the moments that they"
        " would: log-ins, events, files, a parked poll each, a new TLS connection for each request. Latencies count"
        " from the planned moment. Ctrl-C ends it with its report. Exit status 1: a request failed. The agents stay"
        " enrolled; their names begin with fleet-.",
    )
    fleet.add_argument("--agents", metavar="N", type=types.count, required=True, help="how many")
    fleet.add_argument("--url", metavar="URL", required=True, help="the agents' API: https://HOST:27000")
    fleet.add_argument("--enroll-url", metavar="URL", help="where agents enrol (the same host, port 55000)")
    fleet.add_argument(
        "--user", metavar="USER", help=f"who enrols them; the password is asked for, or in ${PASSWORD_VARIABLE}"
    )
    fleet.add_argument("--token", metavar="T", type=_token, help="a token to enrol them with, in place of --user")
    fleet.add_argument(
        "--agents-file",
        metavar="FILE",
        type=Path,
        help="agents of before, a JSON object each line (uuid, name, key); those that are enrolled are added to it",
    )
    fleet.add_argument("--mix", metavar="FILE", type=Path, help="what they do, and what goes wrong (docs/testing.md)")
    fleet.add_argument("--duration", metavar="TIME", type=types.duration, help="at rest (until Ctrl-C)")
    fleet.add_argument("--ramp", metavar="TIME", type=_ramp, help=f"for the first log-ins ({LOG_INS} agents a second)")
    fleet.add_argument("--ca", metavar="FILE", help="check the node's certificate (agents don't, by default)")
    fleet.add_argument("--cert", metavar="FILE", help="the agents' own certificate")
    fleet.add_argument("--cert-key", metavar="FILE", help="its key")
    fleet.add_argument("--plot", metavar="FILE", type=Path, help="a picture of the run, SVG")
    fleet.add_argument("--seed", metavar="N", type=types.count, help="the same plan of moments again")
    fleet.add_argument(
        "--yes-this-is-mine", action="store_true", help="for a node that isn't on this machine: it is yours to load"
    )


def _token(word: str) -> str:
    if not word or not word.isascii() or not word.isprintable() or " " in word:
        raise ArgumentTypeError("isn't a token")
    return word


def _ramp(word: str) -> float:
    return 0.0 if word == "0" else types.duration(word)


async def _simulate(arguments: Namespace) -> int:
    from wazuh_comms_trio.cli.fleet.simulate import simulate

    return await simulate(arguments)
