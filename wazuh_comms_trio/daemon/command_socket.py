"""The command socket: what is posted goes to the dispatcher or the hub, and operators look at the daemon and change
it."""

from __future__ import annotations

import logging
import os
import pwd
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import trio

from wazuh_comms_trio.api.command_socket import Caller, Control, Poster, create_command_app
from wazuh_comms_trio.api.problems import describe
from wazuh_comms_trio.audit.log import User, audit_log
from wazuh_comms_trio.config.models import CommunicationsApi
from wazuh_comms_trio.daemon.listeners import Listeners
from wazuh_comms_trio.daemon.worker.heartbeat import Heartbeat
from wazuh_comms_trio.foundation.folders import make_folder
from wazuh_comms_trio.foundation.outage_log import OutageLog
from wazuh_comms_trio.http.server.accept_loop import serve_listeners
from wazuh_comms_trio.http.server.listener_context import ListenerContext

__all__ = ["Auditor", "SingleControl", "serve_control"]

logger = logging.getLogger(__name__)

#: For requests on the command socket when the supervisor stops.
GRACE: Final = 3.0
NO_RELOAD: Final = (
    "one worker runs without a supervisor, which a reload needs: restart the daemon; with `workers` at 2 or more it can"
    " be reloaded from then on"
)


class Auditor:
    """Writes down what was changed through the command socket."""

    def __init__(self, settings: Callable[[], CommunicationsApi]) -> None:
        self._settings = settings
        self._outage = OutageLog(logger, "the audit log")

    async def note(self, caller: Caller, action: str, target: str, **details: object) -> None:
        """Durable on return, and once it has begun also when cancelled. An audit log that can't be written keeps nobody
        from working: that is logged, once."""
        try:
            await trio.to_thread.run_sync(partial(self._append, caller, action, target, details))
        except OSError as error:
            self._outage.failed(error, kind="can't be written", level=logging.ERROR)
        else:
            self._outage.worked()

    def _append(self, caller: Caller, action: str, target: str, details: dict[str, object]) -> None:
        folder = self._settings().embedded.path
        make_folder(folder)
        pid = {} if caller.pid is None else {"pid": caller.pid}
        audit_log(folder).append(_user(caller.uid), action, target, **pid, **details)


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
        status: Callable[[], dict[str, Any]],
        reload: Callable[[], Awaitable[dict[str, Any]]],
        settings: Callable[[], CommunicationsApi],
    ) -> None:
        self.status = status
        self._reload = reload
        self.note = Auditor(settings).note

    async def reload(self) -> dict[str, Any]:
        return await self._reload()


class SingleControl:
    """``Control`` of one worker that runs alone."""

    def __init__(self, settings: CommunicationsApi) -> None:
        self._started = time.time()
        self.note = Auditor(lambda: settings).note
        #: Once the worker runs.
        self.heartbeat: Heartbeat | None = None

    def status(self) -> dict[str, Any]:
        report = {"pid": os.getpid()} if self.heartbeat is None else self.heartbeat.report()
        worker = {
            "name": "1",
            "generation": 1,
            "state": "starting" if self.heartbeat is None else "serving",
            "heard": 0.0,
        }
        return {
            "started": self._started,
            "generation": 1,
            "configured_workers": 1,
            "reload": False,
            "workers": [worker | report],
        }

    async def reload(self) -> dict[str, Any]:
        return {"reloaded": False, "problems": [NO_RELOAD], "warnings": [], "needs_restart": []}


async def serve_control(
    control: Control, poster: Poster, listeners: Listeners, settings: CommunicationsApi, *, stop: trio.Event
) -> None:
    """Serves the command socket until ``stop``; then its requests have some seconds to end."""
    app = create_command_app(poster, settings.limits, control)
    context = ListenerContext(app, settings.limits, describe)
    await serve_listeners(context, listeners.command, stop=stop, grace=GRACE)
