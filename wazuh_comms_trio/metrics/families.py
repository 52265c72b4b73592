"""The table of metrics: every name, its meaning, its labels. docs/metrics.md is made from it.

Names follow Prometheus' conventions: base units, ``_total`` for counters. A label's values are bounded, and never an
agent's: what would need more than ``MAX_SERIES`` of them is counted as ``other``.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Final, Literal

from attrs import frozen

__all__ = ["FAMILIES", "Family"]

Kind = Literal["counter", "gauge", "histogram"]
#: How the values of several workers become the node's.
Combine = Literal["sum", "max", "min"]

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
#: Long polls take minutes.
_REQUEST_SECONDS: Final = (*_SECONDS, 60.0, 120.0, 330.0)
_DELIVERY_SECONDS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_EVENTS: Final = (1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1000.0, 10000.0)


@frozen(eq=False)
class Family:
    """One metric of the table; ``combine``: of gauges; counters and histograms are added. ``buckets``: of histograms,
    without infinity. ``begins``: labels' values of a counter that are there from the start, as 0: the first of what is
    counted is an increase to Prometheus only if there was a value before it."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    combine: Combine = "sum"
    buckets: tuple[float, ...] = ()
    begins: tuple[tuple[str, ...], ...] = ()


FAMILIES: Final[dict[str, Family]] = {}


def _add(
    kind: Kind,
    name: str,
    help: str,
    *labels: str,
    combine: Combine = "sum",
    buckets: tuple[float, ...] = (),
    begins: Iterable[tuple[str, ...]] = (),
) -> Family:
    if kind == "counter" and not labels:
        begins = [()]
    family = Family(f"wazuh_comms_{name}", kind, help, labels, combine, buckets, tuple(begins))
    FAMILIES[family.name] = family
    return family


# --- requests and connections

REQUESTS = _add(
    "counter",
    "http_requests_total",
    "Requests that were answered, by the listener, the route and the reply's status.",
    "listener",
    "route",
    "status",
)
REQUEST_SECONDS = _add(
    "histogram",
    "http_request_duration_seconds",
    "From a request's head to the end of its reply; of a long poll the time that it was parked, too.",
    "listener",
    "route",
    buckets=_REQUEST_SECONDS,
)
RECEIVED_BYTES = _add("counter", "http_received_bytes_total", "Bytes of requests' bodies.", "listener")
SENT_BYTES = _add("counter", "http_sent_bytes_total", "Bytes of replies, heads included.", "listener")
ACCEPTED = _add("counter", "connections_accepted_total", "Connections that were accepted.", "listener")
CONNECTIONS = _add(
    "gauge",
    "connections",
    "Open connections: `idle` wait for a handshake, a head or their peer's end, `body` for a body,"
    " `request` for the rest.",
    "listener",
    "state",
)
CROWDED = _add("gauge", "listeners_out_of_descriptors", "Listeners that accept nothing, since no descriptor is left.")
HANDSHAKES_FAILED = _add(
    "counter", "tls_handshakes_failed_total", "TLS handshakes that failed, by cause.", "listener", "cause"
)
CERTIFICATE_END = _add(
    "gauge",
    "tls_certificate_not_after_timestamp_seconds",
    "When the agents' listeners' certificate ends.",
    combine="min",
)

# --- who is calling

LOGINS_TAKEN = _add("counter", "logins_taken_total", "Log-ins of agents that got a token.")
LOGINS_REFUSED = _add(
    "counter",
    "logins_refused_total",
    "Log-ins of agents that were refused: `unknown_agent`, `wrong_key`, `foreign_certificate`, `malformed`,"
    " `unavailable`.",
    "cause",
)
TOKENS_REFUSED = _add(
    "counter",
    "tokens_refused_total",
    "Requests whose token was refused: `missing`, `malformed`, `unknown_key`, `bad_signature`, `wrong_claims`,"
    " `expired`, `from_the_future`, `agent_removed`, `agent_rekeyed`, `foreign_certificate`.",
    "cause",
)
ENROLMENTS = _add(
    "counter",
    "enrolments_total",
    "Enrolments: `taken`, `refused`; and log-ins of users who may enrol: `login_taken`, `login_refused`.",
    "outcome",
    begins=product(("taken", "refused", "login_taken", "login_refused")),
)

AGENTS = _add(
    "gauge",
    "agents",
    "Agents by status, about a minute old: `active` were heard within `presence.disconnected_after`, `disconnected`"
    " weren't, `never` never were. Nodes of one indexer each say it of all.",
    "status",
    combine="max",
)
AGENTS_SHARED = _add(
    "gauge",
    "agents_shared",
    "1 where `agents` are those of all nodes of an indexer, 0 where they are the node's own (embedded).",
    combine="max",
)

# --- commands

POLLS_PARKED = _add("gauge", "polls_parked", "Long polls that wait for commands.")
COMMANDS = _add(
    "counter",
    "commands_total",
    "Commands by what became of them: `sent` to their agent, `released` since no agent confirmed them, and as agents"
    " reported them `success`, `failed`, `in_progress`.",
    "state",
    begins=product(("sent", "released", "success", "failed", "in_progress")),
)
DELIVERY_SECONDS = _add(
    "histogram",
    "command_delivery_seconds",
    "From a command's making to its delivery.",
    buckets=_DELIVERY_SECONDS,
)

# --- events

EVENTS = _add(
    "counter",
    "events_total",
    "Stateful events, and bodies of stateless ones: `taken`, `quarantined`, or `refused` with their whole request.",
    "kind",
    "outcome",
    begins=product(("stateful", "stateless"), ("taken", "quarantined", "refused")),
)
BATCH_EVENTS = _add("histogram", "batch_operations", "Operations of a bulk call.", buckets=_EVENTS)
BATCH_WAIT = _add(
    "histogram",
    "batch_wait_seconds",
    "From a batch's first packet to its bulk call.",
    buckets=_SECONDS,
)
BATCHER_PACKETS = _add("gauge", "batcher_packets", "Packets of stateful events that aren't settled yet.")
BATCHER_LIMIT = _add("gauge", "batcher_packets_limit", "Room for those that wait.")
BATCHES_IN_FLIGHT = _add("gauge", "batches_in_flight", "Bulk calls under way.")
BUDGET_USED = _add("gauge", "body_budget_used_bytes", "Memory of bodies that are being collected.", "listener")
BUDGET_LIMIT = _add("gauge", "body_budget_limit_bytes", "What it may be.", "listener")

# --- stores

BACKEND_CALLS = _add(
    "counter",
    "backend_calls_total",
    "Calls of stores, the indexer and the engine: `done`, `refused`, `unavailable`, `cancelled`, `error`.",
    "backend",
    "call",
    "result",
)
BACKEND_SECONDS = _add(
    "histogram",
    "backend_call_duration_seconds",
    "What such calls took.",
    "backend",
    "call",
    buckets=_SECONDS,
)
SYNCS = _add("counter", "disk_syncs_total", "Calls of fsync and fdatasync, those of the SQLite files apart.")
STORE_USED = _add("gauge", "store_used_bytes", "What a store with a limit takes.", "store", combine="max")
STORE_LIMIT = _add("gauge", "store_limit_bytes", "What it may take.", "store", combine="max")
QUARANTINE_ENTRIES = _add("gauge", "quarantine_entries", "Events in quarantine.", combine="max")

# --- the program

LOOP_LAG = _add(
    "gauge", "event_loop_lag_seconds", "The worst delay of an event loop in the last ten seconds.", combine="max"
)
TASKS = _add("gauge", "tasks", "Tasks of the event loops.")
RESIDENT = _add("gauge", "resident_memory_bytes", "Memory of the workers' processes.")
OPEN_FILES = _add("gauge", "open_files", "Open descriptors of the worker that has most.", combine="max")
MAX_FILES = _add("gauge", "open_files_limit", "How many one worker may have.", combine="min")
READY = _add("gauge", "ready", "1 when every worker can take events now.", combine="min")
WORKERS = _add("gauge", "workers", "Workers by state: `starting`, `serving`, `stopping`.", "state")
WORKERS_CONFIGURED = _add("gauge", "workers_configured", "`communications_api.workers`.")
RESTARTS = _add("counter", "worker_restarts_total", "Workers that ended and weren't told to.")
LEADERS = _add("gauge", "leaders", "Workers that search the shared store for all: 1, or 0 while there is none.")
GENERATION = _add("gauge", "configuration_generation", "1, and one more with each reload.", combine="max")
STARTED = _add("gauge", "start_time_seconds", "When the daemon was started, in epoch seconds.", combine="min")
BUILD = _add("gauge", "build_info", "1, with the program's version.", "version", combine="max")
WARNINGS = _add(
    "gauge",
    "warnings",
    "1 for each kind of what is going to hurt: `quota`, `certificate`, `descriptors`, `memory`, `disk`, `missing`,"
    " `calls` (of stores, the indexer or the engine, that go on failing);"
    " with an indexer `keys`, `revoked`, `files`, `clock`, `indexer_disk`;"
    " `wazuh-comms status` has the sentences.",
    "kind",
    combine="max",
)
SHED = _add("counter", "refused_beyond_limits_total", "Requests and connections that were beyond a limit of `limits`.")
SHED_BY_CAUSE = _add(
    "counter",
    "shed_total",
    "The same by what it was: a route, `uploads`, `downloads`, `connections` and `connections_that_waited_too_long`"
    " (both closed before their handshake, of the listener's queue and of a crowd), `bodies_without_room`,"
    " `packets_that_waited_too_long`; and what was ended since room was short: `silent_connections` (nothing came),"
    " `connections_without_a_complete_head`, `connections_that_were_answered` (the rest of a body was taken in),"
    " `slow_bodies` and `slow_readers` (below `limits.body_rate`, or the slowest where others waited for their room),"
    " `bodies_that_waited_for_others` (whole ones of an agent with more than a tenth, likewise), `parked_polls`.",
    "what",
)
