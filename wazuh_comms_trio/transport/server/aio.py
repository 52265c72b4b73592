"""A server for trio programs: ``open_server``.

    async with open_server(release="5.0.0") as server:
        report = await server.restart_agents(["001", "002"])

What holds under cancellation: steps of an order that were carried out stay so, the one under way may have been, and its
connection is given up.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

import trio

from wazuh_comms_trio.errors import PeerClosed, SocketTimeout, WazuhException, WazuhInternalError
from wazuh_comms_trio.foundation.nurseries import BackgroundNursery
from wazuh_comms_trio.transport.aio.datagram import BaseAsyncQueue
from wazuh_comms_trio.transport.aio.socket import WazuhAsyncSocket
from wazuh_comms_trio.transport.clients.agents import assign_groups
from wazuh_comms_trio.transport.clients.wazuh_db import WazuhDB
from wazuh_comms_trio.transport.errors import TransportClosed, require_trio
from wazuh_comms_trio.transport.http.call import HTTPCall
from wazuh_comms_trio.transport.http.wazuh_db import db_agent_groups
from wazuh_comms_trio.transport.pool.pool import DEFAULT_SIZE, Pool, open_pool
from wazuh_comms_trio.transport.registry import get_daemon
from wazuh_comms_trio.transport.releases.release import Release
from wazuh_comms_trio.transport.server import orders
from wazuh_comms_trio.transport.server.active_agents import ActiveAgents, versions_call
from wazuh_comms_trio.transport.server.call import DaemonCall
from wazuh_comms_trio.transport.server.carrying import Carrying, control_error, may_repeat
from wazuh_comms_trio.transport.server.groups import groups_of
from wazuh_comms_trio.transport.server.orders import AgentIds, OrderReport, Plan, active_response_message
from wazuh_comms_trio.transport.server.upgrades import UpgradeOptions, upgrade_calls
from wazuh_comms_trio.transport.switches import (
    AUTO,
    ReleaseName,
    default_release,
    is_known_at_once,
    locate,
)
from wazuh_comms_trio.wire.group_assignment import GroupMode, SyncStatus

if TYPE_CHECKING:
    from wazuh_comms_trio.transport.http.pool import HTTPPool

T = TypeVar("T")


class AsyncServer:
    """Made by ``open_server``; may be used by any number of tasks."""

    def __init__(
        self, release: Release, home: str, *, size: int, call_timeout: float, require_owner: int | str | None
    ) -> None:
        self.release: Release = release
        self.home: str = home
        self._size = size
        self._timeout = call_timeout
        self._require_owner = require_owner
        self._pools: dict[str, Pool] = {}
        self._http: dict[str, HTTPPool] = {}
        self._opening = trio.Lock()
        self._nursery: trio.Nursery | None = None

    def __repr__(self) -> str:
        return f"<AsyncServer {self.release} under {self.home}>"

    async def pool(self, daemon: str) -> Pool:
        """The pool of connections to one of the server's daemons, made when first asked for. A checkpoint."""
        if daemon not in self._pools:
            async with self._opening:
                if daemon not in self._pools:
                    opening = open_pool(
                        daemon,
                        home=self.home,
                        release=self.release,
                        size=self._size,
                        require_owner=self._require_owner,
                    )
                    self._pools[daemon] = await self._keep_open(opening)
        return self._pools[daemon]

    async def wazuh_db(self) -> WazuhDB:
        """The server's database. A checkpoint."""
        return WazuhDB(await self.pool("wazuh-db"))

    async def http(self, service: str) -> HTTPPool:
        """The pool of connections to one of the server's HTTP sockets, made when first asked for. A checkpoint."""
        from wazuh_comms_trio.transport.http.pool import open_http

        if service not in self._http:
            async with self._opening:
                if service not in self._http:
                    opening = open_http(
                        service,
                        home=self.home,
                        release=self.release,
                        request_timeout=self._timeout,
                        require_owner=self._require_owner,
                    )
                    self._http[service] = await self._keep_open(opening)
        return self._http[service]

    @overload
    async def call(self, call: DaemonCall[T]) -> T: ...

    @overload
    async def call(self, call: HTTPCall[T]) -> T: ...

    async def call(self, call: Any) -> Any:
        """Carry out a typed call; returns what it says. A checkpoint. :class:`NotInRelease` for what this release
        doesn't have, before anything is sent; ``trio.TooSlowError`` after ``call_timeout``."""
        if isinstance(call, HTTPCall):
            return await (await self.http(call.service)).call(call)
        request = call.prepare(self.release)
        with trio.fail_after(self._timeout):
            try:
                return call.decode(await self._exchange(call.daemon, request))
            except WazuhException as exc:
                if not (call.repeatable and may_repeat(exc)):
                    raise
            return call.decode(await self._exchange(call.daemon, request))

    # --- orders: see WazuhServer, whose methods these are -------------------------------------------------------------

    async def restart_agents(self, agents: AgentIds, *, legacy: bool = False) -> OrderReport:
        """As ``WazuhServer.restart_agents``. A checkpoint."""
        return await self._order(agents, lambda who: orders.plan_restart(self.release, who, legacy=legacy))

    async def reload_agents(self, agents: AgentIds) -> OrderReport:
        """As ``WazuhServer.reload_agents``. A checkpoint."""
        return await self._order(agents, lambda who: orders.plan_reload(self.release, who))

    async def reconnect_agents(self, agents: AgentIds) -> OrderReport:
        """As ``WazuhServer.reconnect_agents``. A checkpoint."""
        return await self._order(agents, lambda who: orders.plan_reconnect(self.release, who))

    async def restart_syscheck(self, agents: AgentIds) -> OrderReport:
        """As ``WazuhServer.restart_syscheck``. A checkpoint."""
        return await self._order(agents, lambda who: orders.plan_syscheck(self.release, who))

    async def active_response(
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
        """As ``WazuhServer.active_response``. A checkpoint."""
        message = active_response_message(command, arguments, custom, alert)
        return await self._order(
            agents, lambda who: orders.plan_active_response(self.release, who, message, document, create_time)
        )

    async def upgrade_agents(
        self, agents: str | Iterable[str], **options: Unpack[UpgradeOptions]
    ) -> list[dict[str, Any]]:
        """As ``WazuhServer.upgrade_agents``. A checkpoint."""
        return [row for call in upgrade_calls(agents, options) for row in await self.call(call)]

    async def restart(self) -> OrderReport:
        """As ``WazuhServer.restart``. A checkpoint."""
        return await self._carry_out(orders.plan_server_restart(self.release))

    async def reload(self) -> OrderReport:
        """As ``WazuhServer.reload``. A checkpoint."""
        return await self._carry_out(orders.plan_server_reload(self.release))

    async def agent_groups(self, agent_id: str) -> list[str]:
        """As ``WazuhServer.agent_groups``. A checkpoint."""
        if self.release.at_least("C"):
            return await self.call(db_agent_groups(agent_id))
        return await self.call(groups_of(agent_id))

    async def assign_groups(
        self,
        agent_ids: str | Iterable[str],
        groups: Iterable[str],
        *,
        mode: GroupMode = "append",
        sync_status: SyncStatus = "syncreq",
    ) -> None:
        """As ``assign_groups``, which is the same in every release. A checkpoint."""
        await assign_groups(await self.wazuh_db(), agent_ids, groups, mode=mode, sync_status=sync_status)

    async def active_agents(self) -> list[str]:
        """As ``WazuhServer.active_agents``. A checkpoint."""
        asking = ActiveAgents()
        while (query := asking.query) is not None:
            asking.feed(await (await self.pool("wazuh-db"))._exchange_one(query, paged=True))
        return asking.ids

    async def _order(self, agents: AgentIds, plan: Callable[[AgentIds], Plan]) -> OrderReport:
        made = plan(agents if isinstance(agents, str) else list(agents))
        if made is None:
            if not (ids := await self.active_agents()):
                return OrderReport("task-manager" if self.release.group == "G" else "remoted")
            made = plan(ids)
        assert made is not None  # ids were given
        return await self._carry_out(made)

    async def _carry_out(self, plan: orders.Datagrams | orders.Calls) -> OrderReport:
        carrying = Carrying(plan)
        if isinstance(plan, orders.Datagrams):
            await self._send_all(plan, carrying)
            return carrying.report()
        if carrying.wants_versions:
            try:
                carrying.versions(await self.call(versions_call()))
            except (WazuhException, ModuleNotFoundError) as exc:
                carrying.no_versions(exc)
        for call in plan.calls:
            try:
                carrying.done(await self.call(call))
            except (WazuhException, trio.TooSlowError) as exc:
                if isinstance(exc, trio.TooSlowError):
                    exc = SocketTimeout(1014, f"no answer within {self._timeout:g} s")
                if carrying.failed(exc):
                    break
        return carrying.report()

    async def _send_all(self, plan: orders.Datagrams, carrying: Carrying) -> None:
        place = get_daemon(plan.via, self.release).places(self.home)[0]
        async with await BaseAsyncQueue.from_path(place, require_owner=self._require_owner) as queue:
            for payload in plan.payloads:
                try:
                    if not queue._send_at_once(payload):
                        with trio.fail_after(self._timeout):
                            await queue._send(payload)
                except (WazuhInternalError, trio.TooSlowError) as exc:
                    carrying.stopped(exc)
                    return
                carrying.done()

    # --- one exchange -------------------------------------------------------------------------------------------------

    async def _exchange(self, name: str, request: bytes) -> bytes:
        daemon = get_daemon(name, self.release)
        if daemon.kind != "unframed":
            return await (await self.pool(name)).request(request)
        try:
            sock = await WazuhAsyncSocket.from_path(daemon.places(self.home)[0], require_owner=self._require_owner)
        except WazuhInternalError as exc:
            raise control_error(exc) from exc
        async with sock:
            await sock.send(request, None)
            parts: list[bytes] = []
            try:
                while True:
                    parts.append(await sock.receive_raw())
            except PeerClosed:
                if not parts:
                    raise
        return b"".join(parts)

    async def _keep_open(self, opening: Any) -> Any:
        """Enter a context in a task that lives as long as the server."""
        if self._nursery is None:
            raise TransportClosed(1014, "this server is closed")
        return await self._nursery.start(_held_open, opening)


async def _held_open(opening: Any, task_status: trio.TaskStatus[Any]) -> None:
    async with AsyncExitStack() as stack:
        task_status.started(await stack.enter_async_context(opening))
        await trio.sleep_forever()


@asynccontextmanager
async def open_server(
    *,
    home: str | os.PathLike[str] | None = None,
    release: ReleaseName | None = None,
    size: int = DEFAULT_SIZE,
    call_timeout: float = 10.0,
    require_owner: int | str | None = None,
) -> AsyncIterator[AsyncServer]:
    """One server for the length of the block. ``release`` decides how orders are carried out; None finds it out, in a
    thread. ``size`` is for each of its pools; ``call_timeout`` in seconds limits each call, and each step of an
    order."""
    require_trio("open_server")
    name = release or default_release() or AUTO
    if is_known_at_once(name):
        found, place = locate(name, home)
    else:
        found, place = await trio.to_thread.run_sync(locate, name, home, abandon_on_cancel=True)
    assert found is not None
    server = AsyncServer(found, place, size=size, call_timeout=call_timeout, require_owner=require_owner)
    async with BackgroundNursery() as nursery:
        server._nursery = nursery
        try:
            yield server
        finally:
            server._nursery = None
