"""A run of a fleet from its start to its report: the ramp, the time at rest, and what is shown meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import trio
from attrs import frozen

from wazuh_comms_trio.cli.fleet.fleet import Fleet
from wazuh_comms_trio.cli.fleet.tally import Slice, Tally
from wazuh_comms_trio.cli.program import Failure
from wazuh_comms_trio.foundation.resources import raise_descriptor_limit

__all__ = ["Result", "Stage", "need_descriptors", "run_fleet"]

#: Seconds beyond the ramp that agents have for their first log-in, before the rest begins without them.
_LOGIN_TIMEOUT: Final = 60.0
#: Seconds between the first log-in of the last agent and the rest: so that its first requests are part of the start.
_SETTLE: Final = 2.0
#: Descriptors beside those of connections: files, what trio needs, and short requests under way.
_SPARE: Final = 300


@frozen
class Stage:
    """What a run shows at one moment: ``seconds`` of ``whole`` of the ramp or, ``at_rest``, of the rest (None: until
    ended)."""

    at_rest: bool
    seconds: float
    whole: float | None
    last: Slice
    tally: Tally
    agents: int
    logged_in: int


@frozen
class Result:
    """What a run came to; ``cpu``: of this process, seconds. ``unanswered``: requests under way at the end, and the age
    of the oldest; ``outstanding``: faults of the mix that it ended before."""

    start: Tally
    rest: Tally
    start_seconds: float
    rest_seconds: float
    cpu: float
    unanswered: tuple[int, float]
    parked: int
    logged_in: int
    slices: tuple[Slice, ...]
    outstanding: tuple[str, ...] = ()


def need_descriptors(hosts: int) -> None:
    """Raises the limit of descriptors as far as that goes. Raises ``Failure`` when it isn't enough."""
    needed = 2 * hosts + _SPARE
    limit = raise_descriptor_limit()
    if limit is not None and limit < needed:
        raise Failure(f"{hosts} agents need {needed} descriptors, and this user may have {limit} (ulimit -Hn)")


async def run_fleet(
    fleet: Fleet,
    *,
    ramp: float,
    duration: float | None,
    stop: trio.Event,
    show: Callable[[Stage], None],
    interval: float = 1.0,
) -> Result:
    """Runs a fleet for ``duration`` seconds at rest, or until ``stop`` is set, which ends the start, too. ``show`` is
    called every ``interval``."""
    began, cpu = trio.current_time(), time.process_time()
    start: Tally | None = None
    rest_began = began
    all_there: float | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fleet.run)
        last = began
        while True:
            with trio.move_on_at(last + interval):
                await stop.wait()
            now = trio.current_time()
            closed = fleet.timeline.close_slice(last - began, now - last, fleet.parked)
            last = now
            ended = stop.is_set()
            if start is None:
                if all_there is None and fleet.logged_in == len(fleet.hosts):
                    all_there = now
                gone = now - began
                if ended or (gone >= ramp and (
                    gone >= ramp + _LOGIN_TIMEOUT or (all_there is not None and now >= all_there + _SETTLE)
                )):  # fmt: skip
                    start, rest_began = fleet.begin_anew(), now
                    show(Stage(False, gone, ramp, closed, start, len(fleet.hosts), fleet.logged_in))
                else:
                    show(Stage(False, gone, ramp, closed, fleet.tally, len(fleet.hosts), fleet.logged_in))
            else:
                gone = now - rest_began
                show(Stage(True, gone, duration, closed, fleet.tally, len(fleet.hosts), fleet.logged_in))
                ended = ended or (duration is not None and gone >= duration)
            if ended:
                break
        assert start is not None
        result = Result(
            start,
            fleet.tally,
            rest_began - began,
            trio.current_time() - rest_began,
            time.process_time() - cpu,
            fleet.unanswered(),
            fleet.parked,
            fleet.logged_in,
            tuple(fleet.timeline.slices),
            fleet.outstanding,
        )
        nursery.cancel_scope.cancel()
    return result
