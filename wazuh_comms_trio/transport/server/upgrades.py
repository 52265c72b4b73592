"""Upgrades of agents through the ``upgrade`` socket, which every release has, and the task-manager until
5.0.0-beta4."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final, Literal, TypedDict

from wazuh_comms_trio.errors import AnswerInvalid, MessageInvalid
from wazuh_comms_trio.transport.releases.release import Release, only_in
from wazuh_comms_trio.transport.server.call import DaemonCall, agent_ids, data_of
from wazuh_comms_trio.wire.envelope import create_wazuh_socket_message, encode_json
from wazuh_comms_trio.wire.text_rules import (
    check_absolute_path,
    check_file_name,
    check_flag,
    check_repository,
    check_version,
)

#: Agents in one request.
CHUNK: Final = 500

Row = dict[str, Any]


def upgrade_agents(
    agents: str | Iterable[str],
    *,
    version: str | None = None,
    force_upgrade: bool | None = None,
    use_http: bool | None = None,
    wpk_repo: str | None = None,
    package_type: Literal["rpm", "deb"] | None = None,
) -> DaemonCall[list[Row]]:
    """Have agents upgraded from a repository; rows with ``agent``, ``error``, ``message`` and, for those that were
    begun, ``task_id``. The numbers of errors differ by release: compare ``message``. At most 500 agents at once;
    ``package_type`` since 4.13.

    ``version`` and ``wpk_repo`` become parts of addresses and file names: 1012 for what leads elsewhere (``..``), and
    for blanks and control characters."""
    parameters: dict[str, Any] = {"agents": _numbers(agents)}
    for name, flag in (("force_upgrade", force_upgrade), ("use_http", use_http)):
        if flag is not None:
            parameters[name] = check_flag(flag, name)
    if version is not None:
        parameters["version"] = check_version(version)
    if wpk_repo is not None:
        parameters["wpk_repo"] = check_repository(wpk_repo)
    if package_type is not None:
        if package_type not in ("rpm", "deb"):
            raise MessageInvalid(1012, f"{package_type!r:.60} is no type of a package")
        parameters["package_type"] = package_type
    return _call("upgrade", parameters, stamped=True)


def upgrade_agents_custom(
    agents: str | Iterable[str], file_path: str, *, installer: str | None = None
) -> DaemonCall[list[Row]]:
    """Have agents upgraded from a file on this server, named by its absolute path. ``installer`` is the name of a file
    in it. Otherwise as ``upgrade_agents``."""
    parameters: dict[str, Any] = {"agents": _numbers(agents), "file_path": check_absolute_path(file_path)}
    if installer is not None:
        parameters["installer"] = check_file_name(installer, "installer's name")
    return _call("upgrade_custom", parameters, stamped=True)


class UpgradeOptions(TypedDict, total=False):
    """How agents are upgraded: as ``upgrade_agents`` takes it, or with ``file_path`` (and ``installer``) as
    ``upgrade_agents_custom``."""

    version: str
    force_upgrade: bool
    use_http: bool
    wpk_repo: str
    package_type: Literal["rpm", "deb"]
    file_path: str
    installer: str


def upgrade_calls(agents: str | Iterable[str], options: UpgradeOptions) -> list[DaemonCall[list[Row]]]:
    """One call for every 500 agents. 1012 for options that don't go together."""
    ids = agent_ids(agents)
    parts = [ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK)]
    given = dict(options)
    path = given.pop("file_path", None)
    if path is None:
        if "installer" in given:
            raise MessageInvalid(1012, "an installer belongs to a file: give file_path as well")
        return [upgrade_agents(part, **given) for part in parts]  # type: ignore[arg-type]
    if given.keys() - {"installer"}:
        raise MessageInvalid(1012, f"from a file nothing is chosen: {', '.join(sorted(given.keys() - {'installer'}))}")
    return [upgrade_agents_custom(part, path, **given) for part in parts]  # type: ignore[arg-type]


def upgrade_result(agents: str | Iterable[str]) -> DaemonCall[list[Row]]:
    """How agents' upgrades came out. Otherwise as ``upgrade_agents``."""
    return _call("upgrade_result", {"agents": _numbers(agents)}, repeatable=True)


def task_status(agents: str | Iterable[str]) -> DaemonCall[list[Row]]:
    """The last upgrade task of each of these agents, as the task-manager has it (``upgrade_result`` asks the daemon in
    front of it). Until 5.0.0-beta4."""
    parameters = {"agents": _numbers(agents)}

    def prepare(release: Release) -> bytes:
        only_in(release, "A", "F", "the task-manager's upgrade_result")
        return encode_json(create_wazuh_socket_message({"name": "", "module": "api"}, "upgrade_result", parameters))

    return DaemonCall("task_status", "task-manager", prepare, _rows, repeatable=True)


def _call(command: str, parameters: Row, *, stamped: bool = False, repeatable: bool = False) -> DaemonCall[list[Row]]:
    given = {name: value for name, value in parameters.items() if value is not None}
    asked_at = int(time.time())

    def prepare(release: Release) -> bytes:
        if "package_type" in given:
            only_in(release, "C", "G", "a package's type")
        stamp = {"request_time": asked_at} if stamped and release.group == "G" else {}
        return encode_json(create_wazuh_socket_message({"module": "api"}, command, given | stamp))

    return DaemonCall(command, "upgrade", prepare, _rows, repeatable=repeatable)


def _numbers(agents: str | Iterable[str]) -> list[int]:
    ids = agent_ids(agents)
    if len(ids) > CHUNK:
        raise MessageInvalid(1012, f"{len(ids)} agents, at most {CHUNK} at once")
    return [int(one) for one in ids]


def _rows(answer: bytes) -> list[Row]:
    found = data_of(answer)
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise AnswerInvalid(1014, f"the answer has no rows: {found!r:.60}")
    return found
