"""Agents that join while everything goes on: the two calls of enrolment, to one node, and the first log-in to whichever
comes; and those who may not."""

from __future__ import annotations

import json
from base64 import b64encode
from functools import cache
from random import Random
from typing import TYPE_CHECKING
from uuid import UUID

import trio

from tests.simulation.actors.agents import SimAgent
from tests.simulation.actors.keys import KEYS
from tests.simulation.checks.registered import ENROLLED
from tests.simulation.plans.plan import MOST_AGENTS
from tests.simulation.trace import Violation
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key
from wazuh_comms_trio.testing.agent.http import ExchangeFailed, Reply, exchange, request_head
from wazuh_comms_trio.testing.agent.program import AgentExits

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["OPERATOR", "password_hash", "run_joining"]

OPERATOR = "operator"
_WORDS = "words that an operator knows"
_LOG_IN = "/security/user/authenticate"
_MOST = 2
_PAUSE = 2.0
#: Log-ins of an agent that isn't there yet: to most workers of a world.
_TRIES = 4


@cache
def password_hash() -> str:
    return hash_key(_WORDS)


async def run_joining(world: World, agents: trio.Nursery, until: float) -> None:
    """``agents``: where those that joined live."""
    rng = Random(f"{world.plan.seed} joining")
    for number in range(_MOST):
        await trio.sleep(rng.uniform(0.5, until / 3))
        if trio.current_time() > until:
            return
        agent = SimAgent(world, MOST_AGENTS + number, joins=True)
        agent.client.is_being_rekeyed = True  # not there yet
        await _try_in_vain(world, rng)
        for _ in range(rng.choice([0, 0, 1, _TRIES])):  # just before: what is known of it then is out of date soon
            if (status := await _status(agent.client.authenticate())) in (200, 204):
                raise Violation("enrolment", f"{agent.name} isn't enrolled, and its log-in was answered {status}")
        await _join(world, agent)
        world.trace.strike("joined", "enrolment", agent.name)
        agent.client.is_being_rekeyed = False
        world.agents.append(agent)
        agents.start_soon(_live, agent)
        await _enrol_again(world, rng.choice(world.agents))


async def _live(agent: SimAgent) -> None:
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent.run)
            nursery.start_soon(agent.work)
    except* AgentExits as errors:
        raise Violation("enrolment", f"{agent.name} was enrolled and is told {errors.exceptions[0]}") from None


async def _join(world: World, agent: SimAgent) -> None:
    """As an agent's installer does, again and again until it is done."""
    session, unsure = "", False
    while True:
        if not session:
            reply = await _call(world, agent.name, _LOG_IN, _basic(_WORDS))
            if reply is not None and reply.status == 200:
                session = reply.json()["data"]["token"]
            else:
                _check_unanswered(world, agent.name, "a log-in for enrolment", reply)
                await trio.sleep(_PAUSE)
                continue
        reply = await _call(world, agent.name, "/agents", f"Bearer {session}", _body(agent.uuid, agent.name, KEYS[0]))
        if reply is not None and (reply.status == 201 or (reply.status == 409 and unsure)):
            return
        if reply is not None and reply.status == 401 and (world.revoking or world.had_wrong_clock(0.0)):
            session = ""  # its key counts no more, or a clock says that it has ended
            continue
        _check_unanswered(world, agent.name, "an enrolment", reply)
        unsure = True
        await trio.sleep(_PAUSE)


async def _enrol_again(world: World, agent: SimAgent) -> None:
    """Somebody else, with the operator's password, under the id of an agent that is there: its key stays."""
    reply = await _call(world, "intruder", _LOG_IN, _basic(_WORDS))
    if reply is None or reply.status != 200 or agent.client.is_being_rekeyed:
        return
    session = reply.json()["data"]["token"]
    before = agent.client.removed_at
    reply = await _call(world, "intruder", "/agents", f"Bearer {session}", _body(agent.uuid, "intruder", "x" * 32))
    away = agent.client.is_being_rekeyed or agent.client.removed_at != before
    if reply is not None and reply.status == 201 and not away:
        raise Violation("enrolment", f"{agent.name}'s id was given to somebody else")
    if reply is None or reply.status >= 500:
        _check_unanswered(world, "intruder", "an enrolment", reply)


async def _try_in_vain(world: World, rng: Random) -> None:
    """What is no session of an operator."""
    agent = rng.choice(world.agents)
    now = int(world.agents_clock())
    claims = {"iss": "wazuh", "aud": "Wazuh Communications API enrollment", "iat": now - 400, "exp": now - 100}
    expired = world.keys.sign({**claims, "sub": OPERATOR})
    stranger = world.keys.sign({**claims, "exp": now + 100, "sub": "somebody"})
    tokens = [agent.client.token or "x.y.z", expired, stranger]
    uuid = str(UUID(int=rng.getrandbits(128), version=4))
    reply = await _call(world, "stranger", "/agents", f"Bearer {rng.choice(tokens)}", _body(uuid, "x", KEYS[0]))
    if reply is not None and reply.status < 300:
        raise Violation("enrolment", f"a stranger was answered {reply.status}")
    reply = await _call(world, "stranger", _LOG_IN, _basic("a wrong password"))
    if reply is not None and reply.status < 300:
        raise Violation("enrolment", f"a wrong password was answered {reply.status}")
    reply = await _call(world, "stranger", _LOG_IN, _basic(_WORDS))
    if reply is not None and reply.status == 200:
        session = reply.json()["data"]["token"]
        reply = await _call(world, "stranger", "/api/v1/commands", f"Bearer {session}", method="GET", api=True)
        if reply is not None and reply.status < 300:
            raise Violation("enrolment", f"an operator's session polled, and was answered {reply.status}")


def _check_unanswered(world: World, who: str, what: str, reply: Reply | None) -> None:
    slow = reply is not None and reply.status == 408 and world.holds_up_requests()
    refused = reply is not None and reply.status < 500 and not slow
    if refused or not (world.had_cause(100.0) or world.was_silenced(who, 100.0)):
        answer = None if reply is None else f"{reply.status} {reply.body[:80]!r}"
        raise Violation("enrolment", f"{who}: {what} was answered {answer}")


async def _call(
    world: World, who: str, path: str, authorization: str, body: bytes = b"", *, method: str = "POST", api: bool = False
) -> Reply | None:
    """One request to the enrolment port of some node, or to its API; None: there was no answer."""
    world.requests += 1
    headers = [("Host", "x"), ("Authorization", authorization), ("Content-Length", str(len(body)))]
    if body:
        headers.append(("Content-Type", "application/json"))
    reply = None
    try:
        stream = await world.balancer.connect(who, enrollment=not api)
        try:
            reply = await exchange(stream, request_head(method, path, headers), (body,) if body else ())
        finally:
            await trio.aclose_forcefully(stream)
    except (OSError, ExchangeFailed):
        pass
    world.trace.add(who, f"{method} {path} -> {None if reply is None else reply.status}")
    return reply


async def _status(call: object) -> int | None:
    try:
        return int((await call).status)  # type: ignore[misc]
    except ExchangeFailed:
        return None


def _basic(password: str) -> str:
    return "Basic " + b64encode(f"{OPERATOR}:{password}".encode()).decode()


def _body(uuid: str, name: str, key: str) -> bytes:
    return json.dumps({"id": uuid, "name": name, "key": key, **ENROLLED}).encode()
