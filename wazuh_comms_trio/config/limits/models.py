"""The configuration's section ``communications_api.limits``; all else as in ``config/models.py``. What follows from
``limits.agents`` is in ``in_force.py``."""

from __future__ import annotations

from typing import Any, Final

from attrs import field, frozen

from wazuh_comms_trio.config.key import key as about
from wazuh_comms_trio.config.key import seconds, size

#: A request in eleven days. What is slower is a mistake, and the time between two of them no number at last.
SLOWEST: Final = 1e-6
FASTEST: Final = 1e6


def rate(help: str) -> dict[str, Any]:
    """Requests a second; 0 limits nothing."""
    return about(help, unit="requests/s", minimum=0, maximum=FASTEST, check=a_rate)


def a_rate(value: float) -> str | None:
    """What a rate must be, in words; None when ``value`` is."""
    return f"0, or from {SLOWEST:g} to {FASTEST:g} requests a second" if 0 < value < SLOWEST else None


@frozen
class RouteLimit:
    agent_rate: float = field(default=0.0, metadata=rate("Requests of one agent."))
    agent_burst: int = field(default=0, metadata=about("How many of them may come at once.", minimum=0))
    agent_requests: int = field(default=0, metadata=about("Requests of one agent in flight.", minimum=0))
    rate: float = field(default=0.0, metadata=rate("Of all agents."))
    burst: int = field(default=0, metadata=about("How many of them may come at once.", minimum=0))
    requests: int = field(default=0, metadata=about("Requests in flight of all agents.", minimum=0))


@frozen
class RouteLimits:
    commands: RouteLimit = field(default=RouteLimit(), metadata=about("`GET /commands`."))
    stateless: RouteLimit = field(default=RouteLimit(), metadata=about("`POST /events/stateless`."))
    stateful: RouteLimit = field(default=RouteLimit(), metadata=about("`POST /events/stateful`."))
    files: RouteLimit = field(default=RouteLimit(), metadata=about("`GET /files`."))
    scan: RouteLimit = field(default=RouteLimit(), metadata=about("`POST /vulnerability/scan`."))


@frozen
class Limits:
    handshake_timeout: float = field(default=10.0, metadata=seconds("For the TLS handshake."))
    head_timeout: float = field(default=10.0, metadata=seconds("For a request's head."))
    head_bytes: int = field(default=16384, metadata=size("Of a request's head; above it 431."))
    body_bytes: int = field(default=104857600, metadata=size("Of a request's body; above it 413."))
    body_timeout: float = field(
        default=15.0,
        metadata=seconds(
            "How long a request's body may keep the daemon waiting; then 408. Bytes that arrived, not those that were "
            "announced, give time back, by `body_rate`, up to this again."
        ),
    )
    body_rate: float = field(
        default=65536.0,
        metadata=about(
            "The least rate of a body, over any `body_timeout`, and of a reply.",
            unit="bytes/s",
            minimum=1,
            maximum=1e15,
        ),
    )
    stall_timeout: float = field(
        default=30.0, metadata=seconds("How long a body may stand still, if that is less than `body_timeout`.")
    )
    send_timeout: float = field(
        default=30.0,
        metadata=seconds(
            "How long a reply may keep the daemon waiting for its peer to read. What was read gives time back, by "
            "`body_rate`, up to this again."
        ),
    )
    agents: int = field(
        default=0,
        metadata=about(
            "How many agents this node is for. The limits below and `routes` follow from it where they are 0; where it "
            "is 0 itself, those that are 0 aren't limited. `wazuh-comms config check` says what follows.",
            minimum=0,
            maximum=10_000_000,
        ),
    )
    connections: int = field(
        default=0,
        metadata=about("Open connections of a worker; more wait, or are closed before their handshake.", minimum=0),
    )
    handshakes: int = field(default=0, metadata=about("Connections of a worker without a request yet.", minimum=0))
    parked_polls: int = field(
        default=0, metadata=about("Polls that are parked at a worker; with one more the oldest is answered.", minimum=0)
    )
    agent_uploads: int = field(
        default=4,
        metadata=about(
            "Bodies above 1 MiB that one agent may be sending to a worker at a time; more are 429.", minimum=1
        ),
    )
    agent_downloads: int = field(
        default=4,
        metadata=about(
            "Files above 1 MiB that one agent may be reading from a worker at a time; more are 429.", minimum=1
        ),
    )
    routes: RouteLimits = field(
        default=RouteLimits(), metadata=about("Limits of each route, for each worker. What is too much is 429.")
    )
