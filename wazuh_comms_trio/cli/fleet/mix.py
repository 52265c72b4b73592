"""What a fleet does: how often each agent asks for what, and what goes wrong with some of them. Read from a YAML file.

The defaults are what agents really do: a batch of stateless events every 10 s, stateful ones every minute, a file every
ten minutes, a poll that is always parked, and half a minute before a failed request is made again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import Factory, field, frozen

from wazuh_comms_trio.config.key import LONGEST, key
from wazuh_comms_trio.config.load import read_file
from wazuh_comms_trio.config.problems import ConfigError, near
from wazuh_comms_trio.config.reader import Reader
from wazuh_comms_trio.config.source import parse

__all__ = ["Mix", "read_mix"]

_SECTION = "fleet"


def _every(default: float, what: str) -> Any:
    help = f"Between two {what} of an agent; 0: none"
    return field(default=default, metadata=key(help, unit="s", minimum=0, maximum=LONGEST))


def _share(of: str) -> Any:
    return field(default=0.0, metadata=key(f"Which part of the agents {of}", minimum=0, maximum=1))


def _file_name(name: str) -> str | None:
    return None if name.isascii() and name.isprintable() and " " not in name else "a name without blanks, in ASCII"


@frozen
class Stateless:
    every: float = _every(10.0, "bodies of stateless events")
    bytes: int = field(default=2000, metadata=key("The size of a body", unit="bytes", minimum=1, maximum=10**8))


@frozen
class Stateful:
    every: float = _every(60.0, "bodies of stateful events")
    events: int = field(default=20, metadata=key("In a body", minimum=1, maximum=100_000))
    documents: int = field(default=200, metadata=key("Of an agent: they change in turn", minimum=1, maximum=10**6))


@frozen
class Files:
    every: float = _every(600.0, "requests for a file")
    name: str = field(default="default.yml", metadata=key("The file that is asked for", check=_file_name))


@frozen
class Flapping:
    """Agents that come and go: each is there for about ``up``, gets cut off, and comes back after about ``down``."""

    share: float = _share("are cut off again and again")
    up: float = field(default=120.0, metadata=key("How long it is there, about", unit="s", above=0, maximum=LONGEST))
    down: float = field(default=30.0, metadata=key("How long it is away, about", unit="s", above=0, maximum=LONGEST))


@frozen
class Cloned:
    share: float = _share("run on two hosts, with one uuid and key")


@frozen
class SlowLinks:
    share: float = _share("send slowly")
    bytes_per_second: int = field(default=2000, metadata=key("What such an agent sends", minimum=1, maximum=10**9))


@frozen
class Herd:
    every: float = field(
        default=0.0,
        metadata=key(
            "Between two outages of the whole fleet; after each all come back at once",
            unit="s",
            minimum=0,
            maximum=LONGEST,
        ),
    )
    down: float = field(default=60.0, metadata=key("How long an outage lasts", unit="s", minimum=0, maximum=LONGEST))


@frozen
class Faults:
    flapping: Flapping = Factory(Flapping)
    cloned: Cloned = Factory(Cloned)
    slow_links: SlowLinks = Factory(SlowLinks)
    herd: Herd = Factory(Herd)


@frozen
class Mix:
    stateless: Stateless = Factory(Stateless)
    stateful: Stateful = Factory(Stateful)
    files: Files = Factory(Files)
    polls: bool = field(default=True, metadata=key("Whether each agent has a poll parked"))
    retry: float = field(
        default=30.0, metadata=key("Until a failed request is made again", unit="s", above=0, maximum=LONGEST)
    )
    faults: Faults = Factory(Faults)


@frozen
class _MixFile:
    fleet: Mix = Factory(Mix)


def read_mix(path: Path) -> Mix:
    """Reads a mix file. Raises ``ConfigError`` with every problem of the file."""
    source = parse(read_file(path), (_SECTION,), needed=f"a mix has one section, `{_SECTION}`")
    reader = Reader(source)
    mix = reader.read(_MixFile).fleet
    for place in source.lines:
        if len(place) == 1 and place[0] != _SECTION:
            hint = near(str(place[0]), [_SECTION]) or f"; a mix has one section, `{_SECTION}`"
            reader.problem(f"unknown section{hint}", place[0])
    if not reader.problems and not reader.is_set(_SECTION):
        reader.problem("is missing: what the fleet does", _SECTION)
    if reader.problems:
        raise ConfigError(path, sorted(reader.problems, key=lambda problem: (problem.line or 0, problem.path)))
    return mix
