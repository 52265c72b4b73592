"""The agent that calls: agents' keys are exchanged for tokens here, and tokens for agents."""

from __future__ import annotations

import logging
from typing import Final

from attrs import frozen

from wazuh_comms_trio.backends.interfaces import Agent, AgentRegistry
from wazuh_comms_trio.errors import AgentUnknown, BackendUnavailable, InvalidKey, TokenInvalid
from wazuh_comms_trio.foundation.environment import RunBlocking, WallClock
from wazuh_comms_trio.foundation.lru_cache import LruCache
from wazuh_comms_trio.services.authentication.tokens import UUID, Claims, TokenKeys, check_times, read_token
from wazuh_comms_trio.services.authentication.verified_secrets import VerifiedSecrets

__all__ = ["Authenticator", "Caller"]

_log = logging.getLogger(__name__)

# A token and what it says take about 1 kB: at most 16 MB.
_TOKENS_REMEMBERED: Final = 16384


@frozen
class Caller:
    """A request's authenticated sender. ``expires`` is the token's ``exp``, epoch seconds."""

    agent: Agent
    expires: float


class Authenticator:
    def __init__(
        self, agents: AgentRegistry, keys: TokenKeys, *, wall_clock: WallClock, run_blocking: RunBlocking
    ) -> None:
        self._agents = agents
        self._keys = keys
        self._wall_clock = wall_clock
        self._secrets = VerifiedSecrets(run_blocking, remember_wrong=True)
        # By a token's bytes, for the signature's sake: times and the agent are looked at every time.
        self._read: LruCache[bytes, Claims] = LruCache(_TOKENS_REMEMBERED)

    async def authenticate(self, uuid: str, key: str, peer: str | None = None) -> str:
        """A token. Records the log-in. ``peer`` is the sender's address: keys from one don't queue behind wrong ones
        from another. Raises ``InvalidKey``, ``AgentUnknown``, ``BackendUnavailable``."""
        if UUID.fullmatch(uuid) is None:
            raise AgentUnknown
        agent = await self._agents.get(uuid.lower())
        if agent is None:
            raise AgentUnknown
        if not await self._secrets.matches(agent.id, agent.key_hash, key, turn=(agent.id, peer)):
            raise InvalidKey
        now = self._wall_clock()
        try:
            await self._agents.record_login(agent.id, now)
        except BackendUnavailable as exc:
            _log.warning("the log-in of agent %s wasn't recorded: %s", agent.id, exc)
        return self._keys.mint(agent.id, agent.fingerprint, now)

    async def verify(self, token: bytes | None) -> Caller:
        """``token``: the bearer token's bytes, None when there was none. Raises ``TokenInvalid``, ``TokenExpired``,
        ``BackendUnavailable``."""
        if token is None:
            raise TokenInvalid
        claims = self._read.get(token)
        if claims is None:
            claims = read_token(self._keys, token)
            check_times(claims, self._wall_clock())
            self._read.put(token, claims)
        else:
            try:
                check_times(claims, self._wall_clock())
            except BaseException:
                self._read.drop(token)
                raise
        agent = await self._agents.lookup(claims.uuid)
        if agent is not None and claims.fingerprint not in (None, agent.fingerprint):
            agent = await self._agents.get(claims.uuid)  # the token may be newer than what is remembered of its agent
        if agent is None or claims.fingerprint not in (None, agent.fingerprint):
            raise TokenInvalid
        return Caller(agent, float(claims.exp))
