"""Carrying out a plan, apart from the carrying itself: who was reached, and what the report says. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wazuh_comms_trio.errors import (
    NotInRelease,
    PeerClosed,
    TruncatedFrame,
    WazuhError,
    WazuhException,
    WazuhInternalError,
)
from wazuh_comms_trio.transport.server.orders import Calls, Datagrams, NotDone, OrderReport, too_old

_NO_CONNECTION = (1013, 1121)
_DROPPED = "is older than 5.0: the server takes such a task and drops it"


class Carrying:
    """One plan under way; its steps are told in order."""

    def __init__(self, plan: Datagrams | Calls) -> None:
        self._plan = plan
        self._position = 0
        self._done: list[str] = []
        self._not_done: list[NotDone] = []
        self._task_ids: dict[str, str] = {}
        self._warnings: list[str] = []

    @property
    def wants_versions(self) -> bool:
        """Whether the agents' versions matter: tasks of old ones are dropped without a word."""
        return self._plan.via == "task-manager"

    def versions(self, versions: Mapping[str, str]) -> None:
        """agent -> version, as far as known."""
        self._warnings += [f"agent {one} {_DROPPED}" for one in too_old(versions, self._plan.targets)]

    def no_versions(self, error: Exception) -> None:
        """The agents' versions couldn't be found out."""
        self._warnings.append(f"whether agents are older than 5.0, whose tasks are dropped, is unknown: {_text(error)}")

    def done(self, result: Any = None) -> None:
        """The next step succeeded."""
        target = self._plan.targets[self._position]
        self._position += 1
        self._done.append(target)
        if self._plan.via == "task-manager" and isinstance(result, str):
            self._task_ids[target] = result

    def failed(self, error: WazuhException) -> bool:
        """The next step failed; returns whether those after it would, too, and needn't be tried. What concerns the
        server itself, and not one of many agents, is raised."""
        if self._plan.via in ("control", "com") or isinstance(error, NotInRelease):
            raise error
        if error.code in _NO_CONNECTION and not error.cmd_error:
            self.stopped(error)
            return True
        self._not_done.append(NotDone(self._plan.targets[self._position], _reason(error)))
        self._position += 1
        return False

    def stopped(self, error: Exception) -> None:
        """The next step failed, and those after it would. Raised when there is nobody but the server itself."""
        if self._plan.via == "execq":
            raise error
        rest = self._plan.targets[self._position :]
        self._not_done += [NotDone(one, _text(error)) for one in rest]
        self._position = len(self._plan.targets)

    def report(self) -> OrderReport:
        """So far."""
        return OrderReport(
            self._plan.via, tuple(self._done), tuple(self._not_done), self._task_ids, tuple(self._warnings)
        )


def _text(error: Exception) -> str:
    if isinstance(error, WazuhException):
        return error.message
    return str(error) or "the queue stayed full for the time given"


def _reason(error: WazuhException) -> str:
    if isinstance(error, PeerClosed):
        return "closed without an answer: remoted knows no such agent"
    return error.message


def may_repeat(error: WazuhException) -> bool:
    """Whether the connection was lost before an answer came, so that what is repeatable may be sent again."""
    if isinstance(error, TimeoutError):
        return False
    lost = isinstance(error, PeerClosed | TruncatedFrame)
    return lost or (isinstance(error, WazuhError) and isinstance(error.__cause__, OSError))


def control_error(error: WazuhInternalError) -> WazuhInternalError:
    """The control socket's own numbers: 1901 missing, 1902 no connection."""
    missing = isinstance(error.__cause__, FileNotFoundError)
    return WazuhInternalError(1901 if missing else 1902, error.message)
