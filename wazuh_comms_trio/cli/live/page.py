"""One page of `wazuh-comms top`, as wide and as high as the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isinf
from typing import TYPE_CHECKING, Final

from wazuh_comms_trio.cli.live.rates import Rates, Timing
from wazuh_comms_trio.cli.output import cut, duration, padded, text_width
from wazuh_comms_trio.foundation.journal import printable
from wazuh_comms_trio.metrics import families

if TYPE_CHECKING:
    from wazuh_comms_trio.daemon.status import DaemonStatus

__all__ = ["AGENTS", "page"]

#: Agents that are shown, of a high terminal; of a low one fewer.
AGENTS: Final = 10
_LOW: Final = 40
_LOWEST_WITH_GAPS: Final = 20
#: Characters that the columns of numbers take; and without their mean.
_NUMBERS: Final = 43
_FEWER_NUMBERS: Final = 32
_AGENT_NUMBERS: Final = 21
_UUID: Final = 36


def page(
    rates: Rates,
    status: DaemonStatus,
    problems: Sequence[str],
    *,
    width: int,
    height: int,
    names: Mapping[str, str] | None = None,
) -> list[str]:
    """Lines of at most ``width`` characters, at most ``height`` of them; what is cut is said. ``names`` of agents."""
    is_low = height < _LOW
    state, numbers = _state(rates, status, problems), list(_numbers(rates, width))
    agents = list(_agents(rates, names or {}, 3 if is_low else AGENTS, width)) if rates.agents else []
    routes, stores = list(_routes(rates, width, is_low)), list(_backends(rates, width, is_low))
    sections = [numbers, routes, agents, stores, list(_workers(status, width))]
    lines, left_out = _fit(state, [section for section in sections if section], height)
    if left_out:
        lines.append(f"… {left_out} more lines: a higher terminal shows them")
    return [cut(line, width) for line in lines]


def _fit(first: Sequence[str], sections: Sequence[list[str]], height: int) -> tuple[list[str], int]:
    """``first``, then the sections, with empty lines between them. Where that is too high, what is longest loses its
    last lines. How many lines were left out, for which a line is left free."""
    total = len(first) + sum(1 + len(section) for section in sections)
    if total <= height:
        return [*first, *(line for section in sections for line in ("", *section))], 0
    has_gaps = height >= _LOWEST_WITH_GAPS
    total -= 0 if has_gaps else len(sections)
    left_out = 0
    while total > height - 1 and len(longest := max(sections, key=len)) > 2:
        longest.pop()
        left_out, total = left_out + 1, total - 1
    has_gaps = has_gaps and total <= height - 1
    lines = [*first, *(line for section in sections for line in (*[""] * has_gaps, *section))]
    shown = lines[: max(0, height - 1)]
    return shown, left_out + len(lines) - len(shown)


def _state(rates: Rates, status: DaemonStatus, problems: Sequence[str]) -> list[str]:
    serving = sum(worker.state == "serving" for worker in status.workers)
    ready = "ready" if rates.gauge(families.READY) else "NOT READY"
    first = f"{ready}, {serving} of {status.configured_workers} workers serve, up {duration(status.up or 0)}"
    return [first, *(f"! {printable(each)}" for each in problems)]


def _numbers(rates: Rates, width: int) -> Iterator[str]:
    refused = rates.rate(families.LOGINS_REFUSED)
    taken, kept = (
        rates.rate(families.EVENTS, outcome="taken", kind="stateful"),
        rates.rate(families.EVENTS, outcome="taken", kind="stateless"),
    )
    quarantined = rates.rate(families.EVENTS, outcome="quarantined")
    items = [
        ("requests", f"{_number(rates.rate(families.REQUESTS, listener='agents'))}/s"),
        ("5xx", f"{_number(rates.rate(families.REQUESTS, listener='agents', status='5*'))}/s"),
        ("in", f"{_size(rates.rate(families.RECEIVED_BYTES, listener='agents'))}/s"),
        ("out", f"{_size(rates.rate(families.SENT_BYTES, listener='agents'))}/s"),
        ("connections", _number(rates.gauge(families.CONNECTIONS, listener="agents"))),
        ("parked polls", _number(rates.gauge(families.POLLS_PARKED))),
        ("log-ins", f"{_number(rates.rate(families.LOGINS_TAKEN))}/s"),
        ("log-ins refused", f"{_number(refused)}/s"),
        ("stateful events", f"{_number(taken)}/s"),
        ("stateless bodies", f"{_number(kept)}/s"),
        ("quarantined", f"{_number(quarantined)}/s"),
        ("commands sent", f"{_number(rates.rate(families.COMMANDS, state='sent'))}/s"),
        ("packets waiting", _number(rates.gauge(families.BATCHER_PACKETS))),
        ("bulk calls", _number(rates.gauge(families.BATCHES_IN_FLIGHT))),
        ("bodies in memory", _size(rates.gauge(families.BUDGET_USED))),
        ("fsyncs", f"{_number(rates.rate(families.SYNCS))}/s"),
    ]
    yield from _flow([f"{name} {value}" for name, value in items], width)


def _flow(items: Iterable[str], width: int) -> Iterator[str]:
    """Texts in columns, as many in a line as fit."""
    texts = list(items)
    cell = max(map(len, texts)) + 3
    columns = max(1, (width + 3) // cell)
    for start in range(0, len(texts), columns):
        yield "".join(text.ljust(cell) for text in texts[start : start + columns]).rstrip()


def _routes(rates: Rates, width: int, is_low: bool) -> Iterator[str]:
    """The routes' lines, the slowest first."""
    timings = {
        route: timing
        for (listener, route), timing in rates.timings(families.REQUEST_SECONDS).items()
        if listener == "agents"
    }
    rows = [
        (route, timing, f"{_number(rates.rate(families.REQUESTS, listener='agents', route=route, status='5*'))}")
        for route, timing in sorted(timings.items(), key=lambda item: -(item[1].p95 or 0))
    ]
    yield from _timed("ROUTE, SLOWEST FIRST", "5XX/S", rows, width, is_low)


def _backends(rates: Rates, width: int, is_low: bool) -> Iterator[str]:
    rows = []
    for (backend, call), timing in sorted(rates.timings(families.BACKEND_SECONDS).items()):
        every = rates.rate(families.BACKEND_CALLS, backend=backend, call=call)
        done = rates.rate(families.BACKEND_CALLS, backend=backend, call=call, result="done")
        rows.append((f"{backend}.{call}", timing, _number(max(0.0, every - done))))
    yield from _timed("STORE", "FAIL/S", rows, width, is_low)


def _agents(rates: Rates, names: Mapping[str, str], most: int, width: int) -> Iterator[str]:
    name = max(_name_width(width), min(_UUID + 1, width - 1 - _AGENT_NUMBERS))
    calls = max(8, _name_width(width) + 10 - name)  # in the column of the other tables, where a uuid leaves room
    yield f"{'BUSIEST AGENTS OF A MINUTE':<{name}}{'CALLS/S':>{calls}}{'IN/S':>11}"
    for agent_id, requests, received in rates.agents[:most]:
        known = printable(names.get(agent_id, agent_id))
        label = f"{known}  {agent_id}" if known != agent_id else agent_id
        if text_width(label) >= name:  # half of an id is of no use
            label = known
        yield f"{padded(cut(label, name - 1), name)}{_number(requests):>{calls}}{_size(received):>11}"


def _timed(title: str, last: str, rows: Sequence[tuple[str, Timing, str]], width: int, is_low: bool) -> Iterator[str]:
    """Lines of timings; on a low terminal without those that nothing was asked of."""
    has_mean, name = _has_mean(width), _name_width(width)
    mean_head = f"{'MEAN':>11}" if has_mean else ""
    yield f"{title:<{name}}{'CALLS/S':>10}{mean_head}{'95 %':>12}{last:>10}"
    for label, timing, failed in rows:
        if is_low and not timing.count and failed == "0":
            continue
        p95 = "-" if timing.p95 is None else _seconds(timing.p95, "above" if isinf(timing.p95) else "≤ ")
        mean = f"{'-' if timing.mean is None else _seconds(timing.mean):>11}" if has_mean else ""
        shown = label if len(label) < name else label.removeprefix("/api/v1")
        yield f"{shown[: name - 1]:<{name}}{_number(timing.count):>10}{mean}{p95:>12}{failed:>10}"


def _has_mean(width: int) -> bool:
    return width >= _NUMBERS + 25


def _name_width(width: int) -> int:
    return max(16, min(60, width - 1 - (_NUMBERS if _has_mean(width) else _FEWER_NUMBERS)))


def _workers(status: DaemonStatus, width: int) -> Iterator[str]:
    yield f"{'WORKER':<10}{'STATE':<10}{'LAG':>9}{'CONNS':>9}{'PARKED':>9}{'WAITING':>9}  BACKEND"
    for worker in status.workers:
        waiting = worker.batcher.waiting if worker.batcher is not None else 0
        lag = _seconds(worker.lag or 0)
        numbers = f"{lag:>9}{worker.connections or 0:>9}{worker.parked or 0:>9}{waiting:>9}"
        yield f"{worker.name:<10}{worker.state:<10}{numbers}  {printable(worker.backend or '')}"


def _number(value: float) -> str:
    if value >= 100_000:
        return f"{value / 1000:.0f}k"
    if value >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 0.1 else f"{value:.2f}"


def _seconds(value: float, sign: str = "") -> str:
    if isinf(value):
        return sign
    return f"{sign}{value * 1000:.0f} ms" if value >= 0.01 or value == 0 else f"{sign}{value * 1000:.1f} ms"


def _size(value: float) -> str:
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
