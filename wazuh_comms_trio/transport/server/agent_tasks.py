"""The task-manager of 5.0.0: tasks for agents, made on any node and fetched by its remoted.

Its refusals are words (:class:`DaemonRefusal`): ``invalid_json``, ``parsing_error``, ``create_failed``,
``query_failed``, ``parsing_failed``, ``serialization_failed``. Earlier releases have another task-manager in the same
place: see :mod:`.upgrades`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from wazuh_comms_trio.errors import AnswerInvalid, MessageInvalid
from wazuh_comms_trio.transport.releases.release import Release, only_in
from wazuh_comms_trio.transport.server.call import DaemonCall, check_words, data_of
from wazuh_comms_trio.wire.envelope import encode_json
from wazuh_comms_trio.wire.text_rules import check_agent_id

TaskType: TypeAlias = Literal["active_response", "remote_upgrade", "agent_restart", "agent_reload"]

_TYPES: Final = frozenset({"active_response", "remote_upgrade", "agent_restart", "agent_reload"})
DAEMON: Final = "task-manager"


@dataclass(frozen=True)
class PendingTask:
    """A task as remoted fetches it."""

    task_id: str
    task_type: str
    payload: Any


def create_task(
    agent_id: str,
    task_type: TaskType,
    payload: Any = None,
    *,
    create_time: int | None = None,
    source_id: str | None = None,
) -> DaemonCall[str]:
    """A task for one agent; returns its id. 5.0.0 and later.

    ``create_time`` in seconds of the epoch (None: now, when this is called) is part of the id, with agent, type and
    ``source_id``: the same four are the same task, so the call may be sent again, and is. The daemon takes no time
    older than a year or more than a minute ahead. ``payload`` is an object; the whole request has 65536 bytes at most.
    Agents before 5.0 get upgrades only: other tasks for them are taken and dropped.
    """
    agent = check_agent_id(agent_id)
    if not isinstance(task_type, str) or task_type not in _TYPES:
        raise MessageInvalid(1012, f"{task_type!r:.60} is no type of a task")
    if create_time is None:
        create_time = int(time.time())
    elif not isinstance(create_time, int) or isinstance(create_time, bool) or create_time < 0:
        raise MessageInvalid(1012, f"a task's create_time is a number of seconds, not {create_time!r:.60}")
    message: dict[str, Any] = {
        "action": "create_task",
        "agent_id": agent,
        "task_type": task_type,
        "payload": {} if payload is None else payload,
        "create_time": create_time,
    }
    if source_id is not None:
        message["source_id"] = check_words(source_id, "a task's source_id")
    request = encode_json(message)

    def prepare(release: Release) -> bytes:
        only_in(release, "G", "G", "a task for an agent")
        return request

    def decode(answer: bytes) -> str:
        match data_of(answer):
            case {"task_id": str() as task_id}:
                return task_id
            case other:
                raise AnswerInvalid(1014, f"the answer has no task_id: {other!r:.60}")

    return DaemonCall("create_task", DAEMON, prepare, decode, repeatable=True)


def get_pending_tasks(agent_id: str) -> DaemonCall[list[PendingTask]]:
    """An agent's pending tasks, at most 100, which this call **marks as delivered**, even when the answer is lost: it
    is never sent twice. For whoever delivers tasks, not for looking at them. 5.0.0 and later."""
    request = encode_json({"action": "get_pending_tasks", "agent_id": check_agent_id(agent_id)})

    def prepare(release: Release) -> bytes:
        only_in(release, "G", "G", "the list of pending tasks")
        return request

    def decode(answer: bytes) -> list[PendingTask]:
        found = data_of(answer)
        try:
            return [PendingTask(one["task_id"], one["task_type"], one.get("payload")) for one in found["tasks"]]
        except (KeyError, TypeError, AttributeError) as exc:
            raise AnswerInvalid(1014, f"the answer has no tasks: {found!r:.60}") from exc

    return DaemonCall("get_pending_tasks", DAEMON, prepare, decode)
