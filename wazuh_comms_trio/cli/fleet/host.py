"""One agent of a fleet, as it runs on one machine: what it knows between its requests. No I/O."""

from __future__ import annotations

import random
from collections.abc import Sequence

import trio
from attrs import define, field, frozen

from wazuh_comms_trio.cli.fleet.mix import Mix
from wazuh_comms_trio.cli.fleet.requests import metadata_line

__all__ = ["Host", "Member", "make_hosts"]


@frozen
class Member:
    """An enrolled agent."""

    uuid: str
    name: str
    key: str


@define(eq=False)
class Host:
    """One agent at run time; ``life`` grows whenever it is cut off: what was planned before is void. ``requests`` are
    those under way. ``to_report``: commands that it got, ``reporting`` of which a report is under way for.
    ``log_in_planned``: on trio's clock, in the past while the log-in is under way."""

    member: Member
    metadata: bytes
    is_slow: bool = False
    is_flapping: bool = False
    token: str = ""
    logged_in: bool = False
    life: int = 0
    events_sent: int = 0
    requests: set[trio.CancelScope] = field(factory=set)
    parked: bool = False
    has_loops: bool = False
    log_in_planned: float = 0.0
    to_report: list[str] = field(factory=list)
    reporting: int = 0

    def cut_off(self) -> None:
        """The agent's connections end in the middle, as those of a machine without network; it has no token any
        more."""
        self.life += 1
        self.token = ""
        self.has_loops = False
        self.to_report = []
        for scope in self.requests:
            scope.cancel()


def make_hosts(members: Sequence[Member], mix: Mix, rng: random.Random) -> list[Host]:
    """A host for each agent, and a second one for each that is cloned."""
    faults = mix.faults

    def some(share: float) -> set[int]:
        return set(rng.sample(range(len(members)), round(share * len(members))))

    slow, flapping, cloned = some(faults.slow_links.share), some(faults.flapping.share), some(faults.cloned.share)
    hosts = []
    for number, member in enumerate(members):
        for copy in range(2 if number in cloned else 1):
            hostname = f"{member.name}-copy" if copy else member.name
            metadata = metadata_line(member.uuid, member.name, hostname)
            hosts.append(Host(member, metadata, number in slow, number in flapping))
    return hosts
