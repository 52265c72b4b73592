"""What a configuration needs of memory and descriptors, and whether they are there."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from wazuh_comms_trio.config.limits.in_force import CONNECTION_BYTES, following, limits_in_force
from wazuh_comms_trio.config.models import CommunicationsApi
from wazuh_comms_trio.foundation.resources import descriptor_limit, memory_limit

_MIB: Final = 1024 * 1024

#: A worker without agents, with what its stores keep (measured while bodies filled the budget), and a supervisor.
WORKER_BYTES: Final = 112 * _MIB
SUPERVISOR_BYTES: Final = 48 * _MIB
#: Of the memory limit, what is planned with: the rest is for the kernel's buffers and what the interpreter holds back.
PLANNED: Final = 0.75
#: Bodies in memory for each worker: at least a large stateful body's part that isn't in a file, twice.
LEAST_BUDGET: Final = 32 * _MIB
#: ... and at most five of the largest (or this): what fits in is some seconds' work.
LARGEST_BUDGET: Final = 512 * _MIB
_BODIES: Final = 5
#: What the reading and writing of a large event takes, one at a time, as a multiple of its size (measured), and what an
#: event may have on any machine: that much is beside the other bodies.
_EVENT_COPIES: Final = 5
LEAST_EVENT: Final = _MIB


@frozen
class Verdict:
    """``follows``: sentences about what follows from ``limits.agents``; ``misfits``: about what doesn't fit;
    ``problem``: why it can't work at all."""

    follows: tuple[str, ...]
    misfits: tuple[str, ...]
    problem: str | None


def budget_bytes(api: CommunicationsApi, memory: int) -> int:
    """What bodies may take of a worker's memory together, where the process may have ``memory`` bytes."""
    return max(LEAST_BUDGET, min(_room(api, memory), max(LARGEST_BUDGET, _BODIES * api.limits.body_bytes)))


def largest_event_bytes(api: CommunicationsApi, memory: int) -> int:
    """How long a line of stateful events may be: unlike a body, which may lie in a file, it is in memory several
    times, beside others' bodies."""
    return min(api.limits.body_bytes, max(LEAST_EVENT, (_room(api, memory) - 2 * LEAST_BUDGET) // _EVENT_COPIES))


def _room(api: CommunicationsApi, memory: int) -> int:
    """For each worker."""
    fixed = api.workers * WORKER_BYTES + (SUPERVISOR_BYTES if api.workers > 1 else 0)
    return int(memory * PLANNED - fixed) // api.workers


def judge_here(api: CommunicationsApi) -> Verdict:
    """With what this process may have: for the service that is said by its unit, for a tool by its shell."""
    return judge(api, memory=memory_limit(), descriptors=descriptor_limit())


def judge(api: CommunicationsApi, *, memory: int, descriptors: int | None) -> Verdict:
    limits = limits_in_force(api.limits)
    follows = tuple(f"limits.{one.key}: {one.value:g}" for one in following(api.limits))
    problem = None
    if _room(api, memory) < LEAST_BUDGET:
        needed = api.workers * (WORKER_BYTES + LEAST_BUDGET) + (SUPERVISOR_BYTES if api.workers > 1 else 0)
        problem = (
            f"{memory // _MIB} MiB of memory can't hold {api.workers} workers with a body of {api.limits.body_bytes} "
            f"bytes: {int(needed / PLANNED) // _MIB + 1} MiB are needed"
        )
    misfits = []
    if descriptors is not None and limits.connections > descriptors:
        misfits.append(
            f"limits.connections: {limits.connections} are more than the {descriptors} files that may be open"
        )
    wanted = limits.connections * CONNECTION_BYTES * api.workers
    if problem is None and wanted > (left := int(memory * PLANNED) - api.workers * (WORKER_BYTES + LEAST_BUDGET)):
        misfits.append(
            f"limits.connections: {limits.connections} for each of {api.workers} workers take {wanted // _MIB} MiB, "
            f"and {max(0, left) // _MIB} MiB of {memory // _MIB} MiB are left for them"
        )
    return Verdict(follows, tuple(misfits), problem)
