"""The framework's HTTP clients by their own names, for programs that were written with them.

What they return is what the server answers, as JSON; a method that the release doesn't have is :class:`NotInRelease`.
The plain ones never import trio.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from wazuh_comms_trio.foundation.backoff import pause_after
from wazuh_comms_trio.transport.closing import ClosedAtExit
from wazuh_comms_trio.transport.http import services, wazuh_db
from wazuh_comms_trio.transport.http.call import HTTPCall
from wazuh_comms_trio.transport.http.errors import HTTPConnectError
from wazuh_comms_trio.transport.http.plain import HTTPClient
from wazuh_comms_trio.transport.http.wazuh_db import AgentIDGroups, AgentsSummary
from wazuh_comms_trio.transport.switches import ReleaseName

if TYPE_CHECKING:
    from wazuh_comms_trio.transport.http.pool import HTTPPool

T = TypeVar("T")

_FIRST_PAUSE: Final = 0.05


class WazuhDBHTTPClient:
    """wazuh-db over HTTP, for trio programs; made at once, connected when asked to. ``retries``: connecting is tried so
    many times more, with growing pauses. ``timeout`` in seconds limits each request. The rest as ``open_http``."""

    def __init__(
        self,
        retries: int = 5,
        timeout: float = 10,
        *,
        home: str | os.PathLike[str] | None = None,
        release: ReleaseName | None = None,
    ) -> None:
        self._retries = retries
        self._timeout = timeout
        self._home = home
        self._release = release
        self._pool: HTTPPool | None = None
        self._open = AsyncExitStack()

    async def close(self) -> None:
        """Close its connections. The next call makes new ones. A checkpoint only while it waits for others."""
        self._pool = None
        await self._open.aclose()

    async def _call(self, call: HTTPCall[T]) -> T:
        import trio

        from wazuh_comms_trio.transport.http.pool import open_http

        if self._pool is None:
            opening = open_http("wdb-http", home=self._home, release=self._release, request_timeout=self._timeout)
            self._pool = await self._open.enter_async_context(opening)
        pool = self._pool
        for failures in range(self._retries):
            try:
                return await pool.call(call)
            except HTTPConnectError:
                await trio.sleep(pause_after(failures, first=_FIRST_PAUSE, longest=math.inf))
        return await pool.call(call)

    async def get_agents_ids(self) -> list[int]:
        """See ``db_agent_ids``."""
        return await self._call(wazuh_db.db_agent_ids())

    async def get_agent_groups(self, agent_id: int | str) -> list[str]:
        """See ``db_agent_groups``."""
        return await self._call(wazuh_db.db_agent_groups(agent_id))

    async def get_agents_groups(self) -> list[AgentIDGroups]:
        """See ``db_agents_groups``."""
        return await self._call(wazuh_db.db_agents_groups())

    async def get_group_agents(self, group_name: str) -> list[int]:
        """See ``db_group_agents``."""
        return await self._call(wazuh_db.db_group_agents(group_name))

    async def get_agents_summary(self, agent_ids: Iterable[int | str] = ()) -> AgentsSummary:
        """See ``db_agents_summary``; as in the framework, no ids at all count nothing."""
        return await self._call(wazuh_db.db_agents_summary(list(agent_ids)))

    async def get_agents_sync(self) -> dict[str, Any]:
        """See ``db_agents_sync``."""
        return await self._call(wazuh_db.db_agents_sync())

    async def set_agents_sync(self, agents_sync: Mapping[str, Any]) -> None:
        """See ``db_set_agents_sync``."""
        await self._call(wazuh_db.db_set_agents_sync(agents_sync))

    async def get_agents_restart_info(self, ids: Iterable[int | str], negate: bool = False) -> list[dict[str, str]]:
        """See ``db_restart_info``."""
        return await self._call(wazuh_db.db_restart_info(ids, negate=negate))

    async def get_all_agents(self) -> list[dict[str, Any]]:
        """See ``db_all_agents``."""
        return await self._call(wazuh_db.db_all_agents())


@asynccontextmanager
async def get_wdb_http_client(
    *, home: str | os.PathLike[str] | None = None, release: ReleaseName | None = None
) -> AsyncIterator[WazuhDBHTTPClient]:
    """A ``WazuhDBHTTPClient`` for the length of the block."""
    client = WazuhDBHTTPClient(home=home, release=release)
    try:
        yield client
    finally:
        await client.close()


class _PlainClient(ClosedAtExit):
    """What the plain ones have in common."""

    _SERVICE: str

    def __init__(
        self,
        timeout: float = 10,
        *,
        home: str | os.PathLike[str] | None = None,
        release: ReleaseName | None = None,
    ) -> None:
        self._client = HTTPClient(self._SERVICE, home=home, release=release, timeout=timeout)

    def close(self) -> None:
        """Close its connection."""
        self._client.close()


class EngineHTTPClient(_PlainClient):
    """The engine's API, for plain programs. ``timeout`` in seconds limits each call."""

    _SERVICE = "engine"

    def get_metrics_dump(self) -> dict[str, Any]:
        """See ``engine_metrics``."""
        return self._client.call(services.engine_metrics())

    def get_status(self) -> dict[str, Any]:
        """See ``engine_status``."""
        return self._client.call(services.engine_status())


class VdHTTPClient(_PlainClient):
    """The vulnerability detector, for plain programs. ``timeout`` in seconds limits each call."""

    _SERVICE = "vulnerability-detector"

    def get_status(self) -> dict[str, Any]:
        """See ``scanner_status``."""
        return self._client.call(services.scanner_status())


class ModulesdHTTPClient(VdHTTPClient):
    """As ``VdHTTPClient``, by the name that it had in 5.0.0-beta3 and beta4."""
