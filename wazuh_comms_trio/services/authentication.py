"""Stub."""

from __future__ import annotations

from attrs import frozen

from wazuh_comms_trio.backends.base import Agent, AgentRegistry
from wazuh_comms_trio.services.seams import RunBlocking, WallClock
from wazuh_comms_trio.services.tokens import TokenKeys


@frozen
class Caller:
    """A request's proven sender. ``expires`` is the token's ``exp``, epoch seconds."""

    agent: Agent
    expires: float


class Authenticator:
    def __init__(
        self, agents: AgentRegistry, keys: TokenKeys, *, wall_clock: WallClock, run_blocking: RunBlocking
    ) -> None: ...

    async def authenticate(self, uuid: str, key: str) -> str:
        """A token. Raises ``InvalidKey``, ``AgentUnknown``, ``BackendUnavailable``."""
        raise NotImplementedError

    async def verify(self, token: bytes | None) -> Caller:
        """``token``: the bearer token's bytes, None when there was none. Raises ``TokenInvalid``, ``TokenExpired``,
        ``BackendUnavailable``."""
        raise NotImplementedError
