"""The authenticator: agents' keys are exchanged for tokens here, and tokens for agents."""

from __future__ import annotations

import logging
from math import inf
from typing import Final

import trio
from attrs import frozen

from wazuh_comms_trio.backends.interfaces import Agent, AgentRegistry
from wazuh_comms_trio.errors import (
    AgentUnknown,
    BackendUnavailable,
    CommsError,
    DocumentUnreadable,
    InvalidKey,
    TokenInvalid,
)
from wazuh_comms_trio.foundation.environment import RunBlocking, WallClock
from wazuh_comms_trio.metrics import families
from wazuh_comms_trio.metrics.counting import Metrics
from wazuh_comms_trio.metrics.refusal_log import RefusalLog
from wazuh_comms_trio.services.agent_journal import AgentJournal
from wazuh_comms_trio.services.authentication.token_ages import next_life
from wazuh_comms_trio.services.authentication.token_memory import TokenMemory
from wazuh_comms_trio.services.authentication.tokens import (
    IAT_LEEWAY,
    UUID,
    Claims,
    TokenKeys,
    check_times,
    read_token,
)
from wazuh_comms_trio.services.authentication.verified_keys import VerifiedKeys
from wazuh_comms_trio.services.authentication.verified_secrets import VerifiedSecrets

__all__ = ["Authenticator", "Caller"]

_log = logging.getLogger(__name__)

# Some 500 bytes each: at most 66 MB, for a fleet of more than a hundred thousand.
_TOKENS_REMEMBERED: Final = 131_072
#: Seconds after which a registry that doesn't answer can't be read.
_UNREAD_AFTER: Final = 3.0
#: Seconds for which a token can be newer than what is remembered of agents that weren't there.
_NEW_TOKEN: Final = 60.0
#: Seconds that are longer than a registry says from memory that an agent isn't there, with what clocks differ by.
_JUST_MADE: Final = IAT_LEEWAY + 5.0


@frozen
class Caller:
    """A request's authenticated sender. ``expires`` is the token's ``exp``, epoch seconds. ``unread``: the registry
    couldn't be read, and of the agent nothing but its id is known; the token's fingerprint. ``read_at``: when the token
    was read, on trio's clock.
    """

    agent: Agent
    expires: float
    unread: str | None = None
    read_at: float = inf

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the key that the token was given for."""
        return self.agent.fingerprint if self.unread is None else self.unread


class Authenticator:
    def __init__(
        self,
        agents: AgentRegistry,
        keys: TokenKeys,
        *,
        wall_clock: WallClock,
        run_blocking: RunBlocking,
        metrics: Metrics | None = None,
        serve_unread: bool = True,
        journal: AgentJournal | None = None,
        verified_keys: VerifiedKeys | None = None,
    ) -> None:
        self._journal = journal or AgentJournal(wall_clock)
        self._metrics = metrics or Metrics()
        #: Lines of refused log-ins and tokens.
        self.refusals: RefusalLog = RefusalLog(_log)
        self._agents = agents
        self._serve_unread = serve_unread
        self._keys = keys
        self._wall_clock = wall_clock
        self._secrets = VerifiedSecrets(run_blocking, remember_wrong=True, verified_keys=verified_keys)
        # For the signature's sake: times and the agent are looked at every time.
        self._read = TokenMemory(_TOKENS_REMEMBERED)
        self._read_with = keys.revision

    @property
    def hashing(self) -> VerifiedSecrets:
        """How many first log-ins there is room for, and how many were refused for want of it."""
        return self._secrets

    async def authenticate(self, uuid: str, key: str, peer: str | None = None, *, wait_limit: float = inf) -> str:
        """Exchanges an agent's key for a token. Records the log-in. ``peer`` is the sender's address: keys from one
        don't queue behind wrong ones from another. Raises ``InvalidKey``, ``AgentUnknown``, ``BackendUnavailable``,
        ``Overloaded`` when the key could be checked only after ``wait_limit`` seconds."""
        try:
            token = await self._authenticate(uuid, key, peer, wait_limit)
        except CommsError as error:
            cause = error.reason or ("unavailable" if isinstance(error, BackendUnavailable) else "other")
            self.note_refused_login(cause, uuid, peer)
            raise
        self._metrics.count(families.LOGINS_TAKEN)
        self._journal.heard(uuid.lower(), "login", peer)
        _log.debug("agent %s logged in from %s", uuid.lower(), peer or "a local peer")
        return token

    def note_refused_login(self, cause: str, uuid: str | None, peer: str | None) -> None:
        """Counts a refused log-in; ``cause``: see the metric. ``uuid``: as the request said it, None where it said
        none."""
        self._metrics.count(families.LOGINS_REFUSED, cause)
        if uuid is not None and UUID.fullmatch(uuid) is not None:
            self._journal.refused(uuid.lower(), "login", peer, cause, known=cause == "wrong_key")
        who, where = "without a uuid" if uuid is None else f"of agent {uuid[:64]}", peer or "a local peer"
        self.refusals.refused(f"log-ins ({cause})", "a log-in %s from %s was refused: %s", who, where, cause)

    def note_refused_token(self, error: CommsError, peer: str | None) -> None:
        """Counts a refused token; an expired one is everyday: its agent logs in again."""
        cause = error.reason or "other"
        self._metrics.count(families.TOKENS_REFUSED, cause)
        if error.about:
            self._journal.refused(error.about, "token", peer, cause)
        where = peer or "a local peer"
        if cause == "expired":
            _log.debug("a token from %s has expired", where)
        else:
            whose = f" of agent {error.about}" if error.about else ""
            self.refusals.refused(f"tokens ({cause})", "a token%s from %s was refused: %s", whose, where, cause)

    async def _authenticate(self, uuid: str, key: str, peer: str | None, wait_limit: float) -> str:
        if UUID.fullmatch(uuid) is None:
            raise AgentUnknown(reason="unknown_agent")
        agent = await self._agents.current(uuid.lower())
        if agent is None:
            raise AgentUnknown(reason="unknown_agent")
        turn = (agent.id, peer)
        if not await self._secrets.matches(
            agent.id, agent.key_hash, key, turn=turn, source=peer, wait_limit=wait_limit
        ):
            raise InvalidKey(reason="wrong_key")
        now = self._wall_clock()
        try:
            await self._agents.record_login(agent.id, now)
        except BackendUnavailable as exc:
            text = "the log-in of agent %s wasn't recorded: %s"
            self.refusals.refused("log-ins that weren't recorded", text, agent.id, exc)
        return self._keys.mint(agent.id, agent.fingerprint, now, next_life(agent.id, int(now), agent.last_login))

    async def verify(self, token: bytes | None) -> Caller:
        """The agent that a token is for. ``token``: the bearer token's bytes, None when there was none. While the
        registry can't be read, a token may be enough: see ``Caller.unread``. Raises ``TokenInvalid``, ``TokenExpired``,
        ``BackendUnavailable``."""
        now = trio.current_time()
        claims = self._claims(token)
        try:
            with trio.fail_after(_UNREAD_AFTER if self._may_serve_unread(claims) else inf):
                agent = await self._read_agent(claims)
        except DocumentUnreadable:
            raise  # the registry is well
        except (BackendUnavailable, trio.TooSlowError):
            if not self._may_serve_unread(claims):  # a revocation may have been read meanwhile
                raise BackendUnavailable from None
            assert claims.fingerprint is not None
            return Caller(Agent(claims.uuid, "", ""), float(claims.exp), claims.fingerprint, read_at=now)
        if agent is None:
            raise TokenInvalid(reason="agent_removed", about=claims.uuid)
        if claims.fingerprint not in (None, agent.fingerprint):
            raise TokenInvalid(reason="agent_rekeyed", about=claims.uuid)
        return Caller(agent, float(claims.exp), read_at=now)

    def verify_at_once(self, token: bytes | None) -> Caller | None:
        """As ``verify``, for nearly every request, without the limits of time that waiting would need; None where the
        registry has to be asked."""
        now = trio.current_time()
        claims = self._claims(token)
        agent = self._agents.known(claims.uuid)
        if agent is None or claims.fingerprint not in (None, agent.fingerprint):
            return None  # it may be known better than it is remembered
        return Caller(agent, float(claims.exp), read_at=now)

    def _claims(self, token: bytes | None) -> Claims:
        """What a token says whose signature and times are good. Raises ``TokenInvalid``, ``TokenExpired``."""
        if token is None:
            raise TokenInvalid(reason="missing")
        if self._read_with != self._keys.revision:  # a key was revoked, and some of these may be its tokens
            self._read, self._read_with = TokenMemory(_TOKENS_REMEMBERED), self._keys.revision
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
        return claims

    async def _read_agent(self, claims: Claims) -> Agent | None:
        agent = await self._agents.lookup(claims.uuid)
        if agent is None:
            stale = self._wall_clock() - claims.made < _NEW_TOKEN  # "there is none" is remembered, too
        else:
            stale = claims.fingerprint not in (None, agent.fingerprint)
        if not stale:
            return agent
        try:  # the token may be newer than what is remembered of its agent: that may have been enrolled on another node
            return await self._agents.get(claims.uuid)
        except BackendUnavailable:
            if agent is not None or self._wall_clock() - claims.made < _JUST_MADE:
                raise
            return None  # as it was read a moment ago, since the token was made

    def _may_serve_unread(self, claims: Claims) -> bool:
        """Tokens without a fingerprint can't be compared with what is known of revocations."""
        return (
            self._serve_unread
            and claims.fingerprint is not None
            and self._agents.may_be_served_unread(claims.uuid, claims.fingerprint)
        )
