"""What follows from ``limits.agents`` where other limits aren't set, as a pure function. Numbers are one worker's: any
agent may come to any of them.

An agent's three loops send a request a second each at most, and log in now and then (spec, PROTOCOL 1). So an agent is
given ten times that, and the fleet what it can send at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs
from attrs import frozen

from wazuh_comms_trio.config.limits.models import Limits, RouteLimit, RouteLimits

#: Connections of an agent: one for each of its loops, and one that its last request leaves behind.
CONNECTIONS_OF_AGENT: Final = 4
#: Connections beside the agents' own: operators, enrolment, checks of balancers.
OTHER_CONNECTIONS: Final = 256
#: Each 50 kB, mostly OpenSSL's.
CONNECTION_BYTES: Final = 50 * 1024

_AGENT_RATE: Final = 10.0
_AGENT_BURST: Final = 50
_AGENT_REQUESTS: Final = 8
#: A small fleet's limits in total are never below this.
_LEAST: Final = 100


@frozen
class Following:
    """One limit that wasn't set: its key below ``limits``, and its number."""

    key: str
    value: float


def limits_in_force(limits: Limits) -> Limits:
    """The same limits with what follows from ``agents`` in the place of zeros."""
    agents = limits.agents
    if not agents:
        return limits
    route = RouteLimit(
        agent_rate=_AGENT_RATE,
        agent_burst=_AGENT_BURST,
        agent_requests=_AGENT_REQUESTS,
        rate=float(max(_LEAST, agents)),
        burst=max(_LEAST, agents),
        requests=max(_LEAST, agents),
    )
    routes = {name: _filled(given, route) for name, given in routes_of(limits)}
    # Parked polls have a limit of their own.
    routes["commands"] = attrs.evolve(routes["commands"], requests=limits.routes.commands.requests)
    return attrs.evolve(
        limits,
        connections=limits.connections or CONNECTIONS_OF_AGENT * agents + OTHER_CONNECTIONS,
        handshakes=limits.handshakes or max(_LEAST, agents // 4),
        parked_polls=limits.parked_polls or agents + _LEAST,
        routes=RouteLimits(**routes),
    )


def routes_of(limits: Limits) -> Iterator[tuple[str, RouteLimit]]:
    """Each route's name and its limits."""
    for field in attrs.fields(RouteLimits):
        yield field.name, getattr(limits.routes, field.name)


def _filled(given: RouteLimit, following: RouteLimit) -> RouteLimit:
    names = [field.name for field in attrs.fields(RouteLimit)]
    return RouteLimit(**{name: getattr(given, name) or getattr(following, name) for name in names})


def following(limits: Limits) -> list[Following]:
    """What follows, in the models' order."""
    in_force = limits_in_force(limits)
    found = [
        Following(name, getattr(in_force, name))
        for name in ("connections", "handshakes", "parked_polls")
        if getattr(in_force, name) != getattr(limits, name)
    ]
    for (route, given), (_, used) in zip(routes_of(limits), routes_of(in_force), strict=True):
        for field in attrs.fields(RouteLimit):
            value = getattr(used, field.name)
            if value != getattr(given, field.name):
                found.append(Following(f"routes.{route}.{field.name}", value))
    return found
