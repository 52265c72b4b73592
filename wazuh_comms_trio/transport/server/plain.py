"""A server for plain programs: :class:`WazuhServer`. Never imports trio."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar, Unpack, overload

from wazuh_comms_trio.errors import PeerClosed, WazuhException, WazuhInternalError
from wazuh_comms_trio.transport.blocking.datagram import BaseQueue
from wazuh_comms_trio.transport.blocking.socket import WazuhSocket
from wazuh_comms_trio.transport.blocking.wazuh_db import WazuhDBClient
from wazuh_comms_trio.transport.closing import ClosedAtExit
from wazuh_comms_trio.transport.http.call import HTTPCall
from wazuh_comms_trio.transport.http.plain import HTTPClient
from wazuh_comms_trio.transport.http.wazuh_db import db_agent_groups
from wazuh_comms_trio.transport.registry import get_daemon
from wazuh_comms_trio.transport.releases.release import Release
from wazuh_comms_trio.transport.server import orders
from wazuh_comms_trio.transport.server.active_agents import ActiveAgents, versions_call
from wazuh_comms_trio.transport.server.call import DaemonCall
from wazuh_comms_trio.transport.server.carrying import Carrying, control_error, may_repeat
from wazuh_comms_trio.transport.server.groups import groups_of
from wazuh_comms_trio.transport.server.orders import AgentIds, OrderReport, Plan, active_response_message
from wazuh_comms_trio.transport.server.upgrades import UpgradeOptions, upgrade_calls
from wazuh_comms_trio.transport.switches import AUTO, ReleaseName, default_release, locate
from wazuh_comms_trio.wire.group_assignment import GroupMode, SyncStatus, group_assignments

T = TypeVar("T")


class WazuhServer(ClosedAtExit):
    """One server. ``release`` decides how orders are carried out; None finds it out. ``timeout`` in seconds limits
    connecting and each wait. Connections are made for each call, and kept where the daemon keeps them. An object
    belongs to one thread at a time."""

    def __init__(
        self,
        *,
        home: str | os.PathLike[str] | None = None,
        release: ReleaseName | None = None,
        timeout: float | None = 10.0,
        require_owner: int | str | None = None,
    ) -> None:
        found, place = locate(release or default_release() or AUTO, home)
        assert found is not None
        self.release: Release = found
        self.home: str = place
        self.timeout: float | None = timeout
        self._require_owner = require_owner
        self._kept: dict[str, WazuhSocket] = {}
        self._http: dict[str, HTTPClient] = {}

    def __repr__(self) -> str:
        return f"<WazuhServer {self.release} under {self.home}>"

    def close(self) -> None:
        """Close the connections that are kept. The next call makes new ones."""
        with ExitStack() as closing:
            for sock in self._kept.values():
                closing.callback(sock.close)
            for client in self._http.values():
                closing.callback(client.close)
        self._kept.clear()
        self._http.clear()

    @overload
    def call(self, call: DaemonCall[T]) -> T: ...

    @overload
    def call(self, call: HTTPCall[T]) -> T: ...

    def call(self, call: Any) -> Any:
        """Carry out a typed call; returns what it says. :class:`NotInRelease` for what this release doesn't have,
        before anything is sent."""
        if isinstance(call, HTTPCall):
            if call.service not in self._http:
                self._http[call.service] = HTTPClient(
                    call.service,
                    home=self.home,
                    release=self.release,
                    timeout=10.0 if self.timeout is None else self.timeout,
                    require_owner=self._require_owner,
                )
            return self._http[call.service].call(call)
        request = call.prepare(self.release)
        try:
            return call.decode(self._exchange(call.daemon, request))
        except WazuhException as exc:
            if not (call.repeatable and may_repeat(exc)):
                raise
        return call.decode(self._exchange(call.daemon, request))

    # --- orders -------------------------------------------------------------------------------------------------------

    def restart_agents(self, agents: AgentIds, *, legacy: bool = False) -> OrderReport:
        """Restart agents: their ids, or ``"all"`` that are connected. ``legacy``: for agents before 4.2, by their text
        (4.x only)."""
        return self._order(agents, lambda who: orders.plan_restart(self.release, who, legacy=legacy))

    def reload_agents(self, agents: AgentIds) -> OrderReport:
        """Have agents read their configuration again. 5.0.0-beta1 and later."""
        return self._order(agents, lambda who: orders.plan_reload(self.release, who))

    def reconnect_agents(self, agents: AgentIds) -> OrderReport:
        """Have agents drop their connection and make a new one. Until 5.0.0-beta4."""
        return self._order(agents, lambda who: orders.plan_reconnect(self.release, who))

    def restart_syscheck(self, agents: AgentIds) -> OrderReport:
        """Have agents scan their files again. 4.x only."""
        return self._order(agents, lambda who: orders.plan_syscheck(self.release, who))

    def active_response(
        self,
        agents: AgentIds,
        command: str | None = None,
        arguments: Sequence[str] = (),
        *,
        custom: bool = False,
        alert: Mapping[str, Any] | None = None,
        document: Mapping[str, Any] | None = None,
        create_time: int | None = None,
    ) -> OrderReport:
        """Have agents run a command (until 5.0.0-beta4), as ``create_active_response`` describes it; 5.0.0 takes the
        response's ``document``, merged with its event, and ``create_time`` (None: now). A program for both gives
        both."""
        message = active_response_message(command, arguments, custom, alert)
        return self._order(
            agents, lambda who: orders.plan_active_response(self.release, who, message, document, create_time)
        )

    def upgrade_agents(self, agents: str | Iterable[str], **options: Unpack[UpgradeOptions]) -> list[dict[str, Any]]:
        """Have agents upgraded, from a repository or with ``file_path`` from a file; a row for each with ``agent``,
        ``error``, ``message`` and, where it was begun, ``task_id``. Goes out in requests of 500 agents."""
        return [row for call in upgrade_calls(agents, options) for row in self.call(call)]

    def restart(self) -> OrderReport:
        """Restart the server itself. 1901 and 1902 where its control socket is missing or takes no connection."""
        return self._carry_out(orders.plan_server_restart(self.release))

    def reload(self) -> OrderReport:
        """Have the server read its configuration again. 4.14.0 and later; errors as ``restart``."""
        return self._carry_out(orders.plan_server_reload(self.release))

    def agent_groups(self, agent_id: str) -> list[str]:
        """The names of an agent's groups by priority: over HTTP where the release has it."""
        if self.release.at_least("C"):
            return self.call(db_agent_groups(agent_id))
        return self.call(groups_of(agent_id))

    def assign_groups(
        self,
        agent_ids: str | Iterable[str],
        groups: Iterable[str],
        *,
        mode: GroupMode = "append",
        sync_status: SyncStatus = "syncreq",
    ) -> None:
        """Assign groups to one agent or to several, which is the same in every release. ``MessageInvalid`` (1012) for
        an id or a group's name that can't be one, before anything is sent. Failed at a later query, the earlier ones
        hold; doing it again does no harm."""
        queries = group_assignments(agent_ids, groups, mode, sync_status)
        with WazuhDBClient(
            home=self.home, release=self.release, timeout=self.timeout, require_owner=self._require_owner
        ) as db:
            for query in queries:
                db.query(query)

    def active_agents(self) -> list[str]:
        """The ids of the agents that are connected, in ascending order, without the server itself."""
        asking = ActiveAgents()
        while (query := asking.query) is not None:
            asking.feed(self._exchange("wazuh-db", query))
        return asking.ids

    def _order(self, agents: AgentIds, plan: Callable[[AgentIds], Plan]) -> OrderReport:
        made = plan(agents if isinstance(agents, str) else list(agents))
        if made is None:
            if not (ids := self.active_agents()):
                return OrderReport("task-manager" if self.release.group == "G" else "remoted")
            made = plan(ids)
        assert made is not None  # ids were given
        return self._carry_out(made)

    def _carry_out(self, plan: orders.Datagrams | orders.Calls) -> OrderReport:
        carrying = Carrying(plan)
        if isinstance(plan, orders.Datagrams):
            place = get_daemon(plan.via, self.release).places(self.home)[0]
            with BaseQueue(place, timeout=self.timeout, require_owner=self._require_owner) as queue:
                for payload in plan.payloads:
                    try:
                        queue._send(payload)
                    except WazuhInternalError as exc:
                        carrying.stopped(exc)
                        break
                    carrying.done()
            return carrying.report()
        if carrying.wants_versions:
            try:
                carrying.versions(self.call(versions_call()))
            except WazuhException as exc:
                carrying.no_versions(exc)
        for call in plan.calls:
            try:
                carrying.done(self.call(call))
            except WazuhException as exc:
                if carrying.failed(exc):
                    break
        return carrying.report()

    # --- one exchange -------------------------------------------------------------------------------------------------

    def _exchange(self, name: str, request: bytes) -> bytes:
        daemon = get_daemon(name, self.release)
        kept = self._kept.pop(daemon.name, None)
        if kept is not None and (_ended(kept) or kept._made_by != os.getpid()):
            kept.close()
            kept = None
        sock = kept or self._connect(name)
        clean = False
        try:
            if daemon.kind == "unframed":
                return _until_the_end(sock, request)
            sock.send(request, daemon.header_format)
            answer = sock.receive(daemon.header_format, daemon.header_size)
            clean = daemon.reusable
            return answer
        finally:
            if clean:
                self._kept[daemon.name] = sock
            else:
                sock.close()

    def _connect(self, name: str) -> WazuhSocket:
        daemon = get_daemon(name, self.release)
        try:
            return WazuhSocket(daemon.places(self.home)[0], timeout=self.timeout, require_owner=self._require_owner)
        except WazuhInternalError as exc:
            if daemon.name == "control":
                raise control_error(exc) from exc
            raise


def _ended(sock: WazuhSocket) -> bool:
    import select

    poll = select.poll()
    poll.register(sock.s.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _until_the_end(sock: WazuhSocket, request: bytes) -> bytes:
    sock.send(request, None)
    parts: list[bytes] = []
    try:
        while True:
            parts.append(sock.receive_raw())
    except PeerClosed:
        if not parts:
            raise
    return b"".join(parts)
