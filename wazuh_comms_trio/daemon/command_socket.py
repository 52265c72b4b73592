"""The command socket: what is posted goes to the dispatcher or the hub, and operators look at the daemon and change
it."""

from __future__ import annotations

import json
import logging
import pwd
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

import trio

from wazuh_comms_trio.api.command_socket import Caller, Control, Poster, create_command_app
from wazuh_comms_trio.api.problems import describe
from wazuh_comms_trio.audit.log import User, audit_log
from wazuh_comms_trio.backends.interfaces import Command
from wazuh_comms_trio.config.models import CommunicationsApi
from wazuh_comms_trio.daemon.listeners import Listeners
from wazuh_comms_trio.foundation.folders import make_folder
from wazuh_comms_trio.foundation.outage_log import OutageLog
from wazuh_comms_trio.http.server.accept_loop import serve_listeners
from wazuh_comms_trio.http.server.listener_context import ListenerContext
from wazuh_comms_trio.services.agent_journal import merged
from wazuh_comms_trio.services.commands.command_json import decode_commands, encode_commands

__all__ = ["Auditor", "HubPoster", "SupervisorControl", "serve_control"]

logger = logging.getLogger(__name__)

JsonObject: TypeAlias = dict[str, Any]

#: For requests on the command socket when the supervisor stops.
GRACE: Final = 3.0


class Auditor:
    """Writes down what was changed through the command socket."""

    def __init__(self, settings: Callable[[], CommunicationsApi]) -> None:
        self._settings = settings
        self._outage = OutageLog(logger, "the audit log")

    async def note(self, caller: Caller, action: str, target: str, **details: object) -> None:
        """Durable on return, and once it has begun also when cancelled. An audit log that can't be written keeps no
        request from being done: that is logged, once."""
        await self._in_thread(partial(self._append, caller, action, target, details))

    async def enrolled(self, user: str, address: str | None, agent_id: str, name: str) -> None:
        """Writes down an enrolment, by a user of the configuration at a peer's address; as ``note``."""
        details: dict[str, object] = {"address": address, "name": name}
        await self._in_thread(partial(self._write, User(-1, user), "enrolment", agent_id, details))

    async def _in_thread(self, write: Callable[[], None]) -> None:
        try:
            await trio.to_thread.run_sync(write)
        except OSError as error:
            self._outage.failed(error, kind="can't be written", level=logging.ERROR)
        else:
            self._outage.worked()

    def _append(self, caller: Caller, action: str, target: str, details: dict[str, object]) -> None:
        pid = {} if caller.pid is None else {"pid": caller.pid}
        self._write(_user(caller.uid), action, target, {**pid, **details})

    def _write(self, user: User, action: str, target: str, details: dict[str, object]) -> None:
        embedded = self._settings().embedded
        make_folder(embedded.path)
        keep = embedded.keep
        log = audit_log(embedded.path, max_bytes=keep.audit_bytes, min_days=keep.audit_days)
        log.append(user, action, target, **details)


def _user(uid: int | None) -> User:
    if uid is None:
        return User(-1)
    try:
        return User(uid, pwd.getpwuid(uid).pw_name)
    except KeyError:
        return User(uid)


class SupervisorControl:
    """``Control`` of a supervisor."""

    def __init__(
        self,
        status: Callable[[], Awaitable[dict[str, Any]]],
        reload: Callable[[], Awaitable[dict[str, Any]]],
        drain: Callable[[bool], dict[str, Any]],
        settings: Callable[[], CommunicationsApi],
        about_agent: Callable[[str], Awaitable[list[dict[str, Any]]]],
        metrics: Callable[[], Awaitable[dict[str, Any]]],
        revoke_key: Callable[[str], Awaitable[dict[str, Any]]],
    ) -> None:
        self._revoke_key = revoke_key
        self._metrics = metrics
        self._about_agent = about_agent
        self._status = status
        self._reload = reload
        self._drain = drain
        self.note = Auditor(settings).note

    async def status(self) -> dict[str, Any]:
        return await self._status()

    async def metrics(self) -> dict[str, Any]:
        return await self._metrics()

    async def about_agent(self, agent_id: str) -> dict[str, Any]:
        return merged(await self._about_agent(agent_id))

    async def reload(self) -> dict[str, Any]:
        return await self._reload()

    async def revoke_key(self, key_id: str) -> dict[str, Any]:
        return await self._revoke_key(key_id)

    async def drain(self, on: bool) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        return self._drain(on)


class HubPoster:
    """``Poster`` of a supervisor, over the hub's ``post``, which knows commands as JSON."""

    def __init__(self, post: Callable[[Sequence[JsonObject]], Awaitable[Sequence[JsonObject]]]) -> None:
        self._post = post

    async def post(self, commands: Sequence[Command]) -> Sequence[Command]:
        """Posts commands; those that were delivered. Raises ``BackendUnavailable``."""
        delivered = await self._post(json.loads(encode_commands(commands))["commands"])
        return decode_commands(json.dumps({"commands": delivered}).encode())


async def serve_control(
    control: Control, poster: Poster, listeners: Listeners, settings: CommunicationsApi, *, stop: trio.Event
) -> None:
    """Serves the command socket until ``stop``; then its requests have some seconds to end."""
    app = create_command_app(poster, settings.limits, control)
    context = ListenerContext(app, settings.limits, describe)
    await serve_listeners(context, listeners.command, stop=stop, grace=GRACE)
