"""Enrolment: an operator's user name and password are exchanged for a session, and in a session agents are added."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
import trio

from wazuh_comms_trio.backends.interfaces import Agent, AgentRegistry
from wazuh_comms_trio.errors import AgentExists, CommsError, MalformedRequest, TokenInvalid
from wazuh_comms_trio.foundation.environment import RunBlocking, WallClock
from wazuh_comms_trio.metrics import families
from wazuh_comms_trio.metrics.counting import Metrics
from wazuh_comms_trio.metrics.refusal_log import RefusalLog
from wazuh_comms_trio.services.authentication.login_throttle import LoginThrottle, TooManyAttempts
from wazuh_comms_trio.services.authentication.secret_hashes import KEY_LENGTH, hash_key
from wazuh_comms_trio.services.authentication.tokens import ISSUER, UUID, TokenKeys
from wazuh_comms_trio.services.authentication.verified_keys import VerifiedKeys
from wazuh_comms_trio.services.authentication.verified_secrets import VerifiedSecrets
from wazuh_comms_trio.services.strict_json import decode_body

__all__ = ["EnrolledAgent", "EnrollmentService", "Unauthorized"]

logger = logging.getLogger(__name__)

#: Seconds that a session lives: it is for one enrolment.
SESSION: Final = 300
NAME_LIMIT: Final = 128
#: Seconds for which a worker leaves connections to others, where there may be none: some 50 keys are hashed in it.
HELD_BACK: Final = 0.5

#: Not the agents' audience: a session is no token of theirs, nor the other way round.
_AUDIENCE: Final = "Wazuh Communications API enrollment"
_KEY: Final = re.compile(rf"[A-Za-z0-9]{{{KEY_LENGTH}}}")
_LONGEST_PASSWORD: Final = 1024
# An unknown user takes as long as a wrong password.
_NOBODY: Final = "A" * 64


#: Writes an enrolment down: user, peer's address, the agent's uuid and name.
NoteEnrolment = Callable[[str, str | None, str, str], Awaitable[None]]


class Unauthorized(CommsError, code=401, message="Invalid credentials"):
    """401 of the enrolment listener."""


class _Session(msgspec.Struct):
    iss: str
    aud: str
    exp: int
    sub: str


class EnrolledAgent(msgspec.Struct):
    id: str
    name: str
    key: str
    type: str | None = None
    version: str | None = None
    host: dict[str, Any] | None = None


_decode_session: Final = msgspec.json.Decoder(_Session).decode
_decoder: Final = msgspec.json.Decoder(EnrolledAgent)


class EnrollmentService:
    """Enrols agents; ``users``: name -> password hash. Sessions are signed and kept nowhere: any process with the same
    key knows them."""

    def __init__(
        self,
        agents: AgentRegistry,
        keys: TokenKeys,
        users: Mapping[str, str],
        *,
        wall_clock: WallClock,
        run_blocking: RunBlocking,
        note: NoteEnrolment | None = None,
        metrics: Metrics | None = None,
        verified_keys: VerifiedKeys | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self.refusals: RefusalLog = RefusalLog(logger)
        self._verified_keys = verified_keys
        self._agents = agents
        self._keys = keys
        self._users = users
        self._wall_clock = wall_clock
        self._run_blocking = run_blocking
        self._note = note
        self._secrets = VerifiedSecrets(run_blocking, at_once=1)
        # A fleet that is enrolled leaves a processor to log-ins.
        self._hashing = trio.Semaphore(max(1, len(os.sched_getaffinity(0)) - 1))
        self._turns = trio.lowlevel.ParkingLot()
        self._throttle = LoginThrottle()

    async def leave_to_others(self) -> None:
        """Returns when no key waits for its hash, or ``HELD_BACK`` later: this worker's event loop is idle, and would
        take all connections from workers that hash nothing."""
        with trio.move_on_after(HELD_BACK):
            while self._hashing.statistics().tasks_waiting:
                await self._turns.park()

    async def log_in(self, user: str, password: str, *, peer: str | None = None) -> str:
        """Exchanges a password for a session token. Wrong passwords are slowed down, for each user and ``peer`` (an
        address) apart. Raises ``Unauthorized``; ``TooManyAttempts`` when too many attempts of the same wait already."""
        try:
            session = await self._log_in(user, password, peer)
        except CommsError as error:
            cause = "too many tries at once" if isinstance(error, TooManyAttempts) else "wrong user or password"
            self._note_refused("login_refused", "a log-in for enrolment", peer, cause)
            raise
        self._metrics.count(families.ENROLMENTS, "login_taken")
        return session

    def _note_refused(self, outcome: str, what: str, peer: str | None, cause: str) -> None:
        self._metrics.count(families.ENROLMENTS, outcome)
        kind = f"{outcome.replace('_', ' ')} ({cause.partition(':')[0]})"
        self.refusals.refused(kind, "%s from %s was refused: %s", what, peer or "a local peer", cause)

    async def _log_in(self, user: str, password: str, peer: str | None) -> str:
        stored = self._users.get(user)
        sound = len(password) <= _LONGEST_PASSWORD
        # A password that was right lately isn't throttled: a fleet that enrols behind one address is no attack.
        if stored is None or not sound or not self._secrets.are_verified(user, stored, password):
            async with self._throttle.attempt((user[:NAME_LIMIT], peer)) as attempt:
                owner, secret = (user if stored is not None else "", password if sound else "")
                # One turn for all names of an address: what it takes doesn't say which of them there are.
                right = await self._secrets.matches(owner, stored or _NOBODY, secret, turn=("peer", peer))
                if stored is None or not sound or not right:
                    attempt.failed()
                    raise Unauthorized
        now = int(self._wall_clock())
        return self._keys.sign({"iss": ISSUER, "aud": _AUDIENCE, "iat": now, "exp": now + SESSION, "sub": user})

    def _check_session(self, token: str) -> str:
        """The user whose session a token is."""
        try:
            session = _decode_session(self._keys.open(token.encode()))
        except (TokenInvalid, msgspec.MsgspecError, ValueError, RecursionError):
            raise Unauthorized("Invalid token") from None
        if session.iss != ISSUER or session.aud != _AUDIENCE or session.sub not in self._users:
            raise Unauthorized("Invalid token")
        if self._wall_clock() >= session.exp:
            raise Unauthorized("The token has expired")
        return session.sub

    async def enrol(self, token: str, body: bytes | bytearray, *, peer: str | None = None) -> Mapping[str, Any]:
        """Adds an agent; returns the ``data`` of the 201. Raises ``Unauthorized``, ``AgentExists`` (409),
        ``MalformedRequest``, ``BackendUnavailable``."""
        try:
            data = await self._enrol(token, body, peer)
        except (Unauthorized, AgentExists, MalformedRequest) as error:
            cause = "malformed" if isinstance(error, MalformedRequest) else error.message
            self._note_refused("refused", "an enrolment", peer, cause)
            raise
        self._metrics.count(families.ENROLMENTS, "taken")
        return data

    def _hash(self, agent_id: str, key: str) -> str:
        """Blocks. The key is noted as verified, so that its agent's first log-in doesn't queue behind others' wrong
        keys; the note is worth nothing if the agent isn't added."""
        key_hash = hash_key(key)
        if self._verified_keys is not None:
            self._verified_keys.note(agent_id, key_hash, key)
        return key_hash

    async def _enrol(self, token: str, body: bytes | bytearray, peer: str | None) -> Mapping[str, Any]:
        user = self._check_session(token)
        request = decode_body(body, _decoder)
        _check(request)
        agent_id = request.id.lower()
        if await self._agents.get(agent_id) is not None:
            raise AgentExists
        async with self._hashing:
            self._turns.unpark_all()
            key_hash = await self._run_blocking(self._hash, agent_id, request.key)
        await self._agents.add(
            Agent(
                id=agent_id,
                name=request.name,
                key_hash=key_hash,
                type=request.type,
                version=request.version,
                host=request.host or {},
            )
        )
        logger.info("agent %s (%s) was enrolled by %s", agent_id, request.name, user)
        if self._note is not None:
            await self._note(user, peer, agent_id, request.name)
        return {"id": agent_id, "name": request.name, "type": request.type, "version": request.version, "groups": []}


def _check(request: EnrolledAgent) -> None:
    if UUID.fullmatch(request.id) is None:
        raise MalformedRequest("id: Expected a uuid in its canonical form")
    if not request.name.strip() or len(request.name) > NAME_LIMIT or not request.name.isprintable():
        raise MalformedRequest(f"name: Expected 1 to {NAME_LIMIT} printable characters")
    if _KEY.fullmatch(request.key) is None:
        raise MalformedRequest(f"key: Expected {KEY_LENGTH} letters and digits")
