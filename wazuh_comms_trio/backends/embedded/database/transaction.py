"""One transaction for many callers, none of whom can undo what another did. Blocking calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import apsw
import outcome

from wazuh_comms_trio.backends.embedded.database.faults import fault_of
from wazuh_comms_trio.backends.embedded.database.group_commit import Job

T = TypeVar("T")

Work: TypeAlias = Callable[[apsw.Connection], T]
"""A unit of work: called in a storage thread inside a transaction; it may be called a second time after a rollback, so
it changes nothing but the database."""


class Write:
    """What the writer does for one caller. ``durable``: it waits for an fsync."""

    __slots__ = ("durable", "work")

    def __init__(self, work: Work[Any], durable: bool) -> None:
        self.work = work
        self.durable = durable


def transact(
    connection: apsw.Connection, jobs: Sequence[Job[Write]], lets_in: Callable[[Job[Write]], bool] = lambda job: False
) -> None:
    """Sets the outcome of every job: an error that is its own undoes its part and no other. What is raised is a fault
    of the store: then none of them was done. Before a job that ``lets_in`` others the group ends: the rest is
    postponed."""
    postponed: Sequence[Job[Write]] = ()
    try:
        connection.execute("BEGIN IMMEDIATE")
        for position, job in enumerate(jobs):
            if lets_in(job) and position:
                postponed = jobs[position:]
                break
            _apply(connection, job, alone=len(jobs) == 1)
        if connection.in_transaction:
            connection.execute("COMMIT")
        for job in postponed:
            job.postponed = True
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _apply(connection: apsw.Connection, job: Job[Write], *, alone: bool) -> None:
    if not alone:
        connection.execute("SAVEPOINT job")
    try:
        job.outcome = outcome.Value(job.work.work(connection))
    except Exception as exc:
        if fault_of(exc) is not None or not connection.in_transaction:
            raise
        job.outcome = outcome.Error(exc)
        connection.execute("ROLLBACK" if alone else "ROLLBACK TO job")
    if not alone:
        connection.execute("RELEASE job")
