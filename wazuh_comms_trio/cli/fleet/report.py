"""What a run came to: a page for people, one JSON document for programs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from wazuh_comms_trio.cli.fleet.run import Result, Stage
from wazuh_comms_trio.cli.fleet.tally import Histogram, Kind, Outcomes, Tally

__all__ = ["problems", "progress_line", "report_document", "report_lines"]

_SHARES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
#: Seconds of its own lateness (p99), and share of a core, from which the client tells more of itself than of the node.
_LATE: Final = 0.02
_BUSY: Final = 0.9
#: Seconds; a poll that brings nothing takes five minutes, unless the node says otherwise.
_SHORT_POLL: Final = 60.0
_ORDER: Final = (Kind.FIRST_LOG_IN, Kind.LOG_IN, Kind.STATELESS, Kind.STATEFUL, Kind.FILE, Kind.REPORT, Kind.POLL)


def report_document(result: Result, agents: int) -> dict[str, Any]:
    late = result.rest.late if result.rest.late.count else result.start.late
    return {
        "agents": agents,
        "logged_in": result.logged_in,
        "start": _stretch(result.start, result.start_seconds),
        "rest": _stretch(result.rest, result.rest_seconds),
        "polls_parked": result.parked,
        "unanswered": {"requests": result.unanswered[0], "oldest_seconds": round(result.unanswered[1], 3)},
        "client": {"late_ms": _percentiles(late), "cpu_share": round(_busy(result), 3)},
        "problems": problems(result),
    }


def report_lines(result: Result, agents: int) -> Iterator[str]:
    start, rest = result.start, result.rest
    who = f"{agents} agents" if agents > 1 else "1 agent"
    yield f"{who}: {result.start_seconds:.0f} s to start, {result.rest_seconds:.0f} s at rest"
    for title, tally, seconds in (("START", start, result.start_seconds), ("AT REST", rest, result.rest_seconds)):
        if tally.requests:
            yield ""
            yield from _table(title, tally, seconds)
    yield ""
    ended = rest.kinds[Kind.POLL].latencies.count if Kind.POLL in rest.kinds else 0
    yield f"{result.parked} polls parked at the end; {ended} ended at rest, {rest.commands} commands came with them."
    late = rest.late if rest.late.count else start.late
    shown = ", ".join(f"{name} {_ms(late.quantile(_SHARES[name]))}" for name in ("p50", "p99"))
    yield f"This client was late by {shown}, at most {_ms(late.longest)} ms; it used {_busy(result):.0%} of a core."
    for title, tally in (("at the start", start), ("at rest", rest)):
        for kind, outcomes in sorted(tally.kinds.items()):
            for cause, number in outcomes.errors.most_common():
                yield f"{number} x {kind} {title}: {cause}"
    found = problems(result)
    if found:
        yield ""
        yield from (f"! {each}" for each in found)


def problems(result: Result) -> list[str]:
    """Reasons why the figures aren't those of a node that serves a fleet well."""
    found = []
    if result.rest.errors:
        found.append(f"{result.rest.errors} of {result.rest.requests} requests failed at rest")
    if result.start.errors:
        found.append(f"{result.start.errors} of {result.start.requests} requests failed at the start")
    number, oldest = result.unanswered
    if oldest > 1:
        found.append(f"{number} requests were still unanswered at the end, the oldest for {oldest:.0f} s")
    late = result.rest.late if result.rest.late.count else result.start.late
    if (late.quantile(0.99) or 0) > _LATE or _busy(result) > _BUSY:
        found.append("this client was late or busy itself: the latencies are partly its own")
    statuses = result.start.statuses + result.rest.statuses
    missing = sum(number for (_, status), number in statuses.items() if status == 404)
    if missing:
        found.append(f"the node doesn't have the file that was asked for: {missing} x 404")
    found += _ended_polls(result)
    if result.outstanding:
        found.append(f"the mix's {' and '.join(result.outstanding)} didn't come: it needs a longer --duration")
    return found


def _ended_polls(result: Result) -> Iterator[str]:
    """That polls with nothing to bring were ended early, which is no failure, but what a fleet above a limit sees."""
    ended = result.rest.statuses[Kind.POLL, 408]
    median = result.rest.kinds[Kind.POLL].latencies.quantile(0.5) if ended else None
    if median is not None and median < _SHORT_POLL and ended > result.logged_in / 2:
        yield (
            f"{ended} polls were ended by the node, half of them within {median:.0f} s: its `limits` are for fewer"
            " agents, its `timeouts.commands` is short, it was reloaded, or agents are cloned"
        )


def progress_line(stage: Stage, width: int) -> str:
    """The run so far on one line, as much of it as fits into ``width``, the most important first."""
    quick = stage.tally.latencies()
    share = 1.0 if not stage.whole else min(1.0, stage.seconds / stage.whole)
    bar = "#" * round(12 * share)
    of = f"/{_clock(stage.whole)}" if stage.whole else ""
    head = f"[{bar:<12}] " if stage.whole else ""
    parts = [
        f"{head}{'' if stage.at_rest else 'start '}{_clock(stage.seconds)}{of}",
        f"{stage.last.requests / max(stage.last.length, 0.001):.0f}/s",
        f"{stage.tally.errors} errors",
        f"p50 {_ms(quick.quantile(0.5))} p99 {_ms(quick.quantile(0.99))} ms",
        f"{stage.last.parked} parked",
        f"late {_ms(stage.last.late)} ms",
        f"{stage.logged_in} of {stage.agents} logged in",
    ]
    line = parts[0]
    for part in parts[1:]:
        if len(line) + 2 + len(part) >= width:
            break
        line += f"  {part}"
    return line[: max(1, width - 1)]


def _stretch(tally: Tally, seconds: float) -> dict[str, Any]:
    kinds = {kind: _outcomes(outcomes, seconds) for kind, outcomes in _in_order(tally)}
    everything = tally.latencies()
    return {
        "seconds": round(seconds, 1),
        "requests": tally.requests,
        "errors": tally.errors,
        "requests_per_second": round(tally.requests / seconds, 2) if seconds else 0.0,
        "commands": tally.commands,
        "latency_ms": _percentiles(everything),
        "kinds": kinds,
        "statuses": {f"{kind}: {status}": number for (kind, status), number in sorted(tally.statuses.items())},
    }


def _outcomes(outcomes: Outcomes, seconds: float) -> dict[str, Any]:
    served = outcomes.latencies.count
    return {
        "served": served,
        "per_second": round(served / seconds, 3) if seconds else 0.0,
        "errors": dict(outcomes.errors),
        "latency_ms": _percentiles(outcomes.latencies),
    }


def _percentiles(latencies: Histogram) -> Mapping[str, float | None]:
    found = {name: latencies.quantile(share) for name, share in _SHARES.items()}
    found["max"] = latencies.longest if latencies.count else None
    return {name: None if value is None else round(1000 * value, 2) for name, value in found.items()}


def _table(title: str, tally: Tally, seconds: float) -> Iterator[str]:
    yield f"{title:<22}{'SERVED':>9}{'PER S':>8}{'ERRORS':>8}{'P50':>9}{'P95':>8}{'P99':>8}  MS"
    rows: list[tuple[str, Outcomes | None, Histogram]] = [
        (kind, outcomes, outcomes.latencies) for kind, outcomes in _in_order(tally)
    ]
    rows.append(("all but polls", None, tally.latencies()))
    for kind, outcomes, latencies in rows:
        errors = tally.errors if outcomes is None else outcomes.failed
        figures = [_ms(latencies.quantile(_SHARES[name])) for name in ("p50", "p95", "p99")]
        if kind == Kind.POLL:
            figures = ["-"] * 3
        yield (
            f"{kind:<22}{latencies.count:>9}{latencies.count / max(seconds, 0.001):>8.1f}{errors:>8}"
            f"{figures[0]:>9}{figures[1]:>8}{figures[2]:>8}"
        )


def _in_order(tally: Tally) -> Sequence[tuple[str, Outcomes]]:
    def place(kind: str) -> tuple[int, str]:
        return next((number for number, known in enumerate(_ORDER) if kind.startswith(known)), len(_ORDER)), kind

    return sorted(tally.kinds.items(), key=lambda item: place(item[0]))


def _busy(result: Result) -> float:
    return result.cpu / max(result.start_seconds + result.rest_seconds, 0.001)


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{1000 * seconds:.1f}" if seconds < 0.1 else f"{1000 * seconds:.0f}"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
