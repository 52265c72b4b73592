"""Hostile agents: what they send, with their own tokens, with forged ones and with those that are for others."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Iterator, Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import trio

from tests.simulation.actors.operators import insist
from tests.simulation.forms.malformed import malformed_requests
from tests.simulation.trace import Violation
from wazuh_comms_trio.backends.interfaces import Action, Agent, Command, Target
from wazuh_comms_trio.testing.agent.client import command_report, metadata_line, stateful_event

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["run_hostile"]

#: What any request may be answered: its token has ended, it came slowly, or there are too many.
_EXCUSED: Final = (403, 408, 429)
#: Seconds after which a node reads an indexer's registry again that it couldn't read.
UNREAD_WITHIN = 15.0


async def run_hostile(world: World, number: int, until: float) -> None:
    """Knows a victim's uuid and ids of commands, has a token of its own at best. What it is answered doesn't matter,
    but for 2xx that it must not get and 500."""
    rng = Random(f"{world.plan.seed} hostile {number}")
    rng_more = Random(f"{world.plan.seed} hostile {number} more")
    name = f"hostile{number}"
    uuid = str(UUID(int=rng.getrandbits(128), version=4))
    world.hostile.append(uuid)
    record = Agent(uuid, name, world.key_hash)
    await insist(partial(world.stores.add_agent, record))
    # It never polls: nothing of this comes to it, so it has nothing to report.
    unoffered = Command(f"{name}-0", Target("agent", uuid), Action("restart"), timeout=600.0)
    await insist(partial(world.stores.tool.add, [unoffered]))
    own = world.keys.mint(uuid, record.fingerprint, world.agents_clock())
    expired = world.keys.mint(uuid, record.fingerprint, world.agents_clock() - 2000)
    of_another_key = world.keys.mint(uuid, "0" * len(record.fingerprint), world.agents_clock())
    of_others = list(_signed_for_others(world, own))
    requests = malformed_requests(uuid, own)
    while trio.current_time() < until:
        await trio.sleep(rng.expovariate(0.6))
        victim = rng.choice(world.agents)
        forged = own.rsplit(".", 1)[0] + ".AAAA"
        token = rng.choice([own, own, own, forged, expired, of_another_key, "", "x.y.z", rng.choice(of_others)])
        create = stateful_event("d0", "fim", "create", {"n": "hostile"})
        reported = rng.choice([rng.choice([*world.commands, "c0"]), unoffered.document_id])
        report = command_report(reported, 0, "hostile")
        bodies: Sequence[tuple[str, bytes, bool]] = [
            ("events/stateful", metadata_line(victim.uuid) + create, False),
            ("events/stateful", metadata_line(uuid) + report, True),
            ("events/stateful", metadata_line(uuid) + b'{"id":"d0","module":"fim"', True),
            ("events/stateful", rng.randbytes(200), False),
            ("events/stateless", metadata_line(victim.uuid) + b"{}\n", False),
            ("authentication", b'{"uuid":"%b","key":"wrong"}' % victim.uuid.encode(), False),
            ("authentication", b'{"uuid":[],"key":', False),
        ]
        path, body, may_succeed = rng.choice(bodies)
        length = len(body) + rng.choice([0, 0, 0, 5, 100000])
        head = (
            f"POST /api/v1/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n"
        )
        data = head.encode() + b"\r\n" + body + (b"GET /api/v1/ HTTP/1.1\r\n\r\n" if rng.random() < 0.2 else b"")
        if (malformed := rng_more.choice(requests) if rng_more.random() < 0.5 else None) is not None:
            path, data, may_succeed = malformed.about, malformed.data, False
        world.requests += 1
        place = f"POST {path}" if malformed is None else malformed.place
        asked = world.in_flight.begin(uuid, place, is_upload=False)
        try:
            stream = await world.balancer.connect(name)
        except OSError:
            world.in_flight.end(asked, None, None)
            continue
        answer = b""
        with trio.move_on_after(rng.uniform(0.5, 5)):
            try:
                for start in range(0, len(data), piece := rng.choice([7, 100, 10000])):
                    await stream.send_all(data[start : start + piece])
                while more := await stream.receive_some():
                    answer += more
            except trio.BrokenResourceError:
                pass
        await trio.aclose_forcefully(stream)
        status = answer[9:12]
        world.in_flight.end(asked, int(status) if status.isdigit() else None, None)
        world.trace.add(name, f"POST {path} -> {status.decode('latin-1')}")
        # While an indexer's registry can't be read, a token that was signed here is taken.
        unread = token == of_another_key and world.plan.stores == "indexer" and world.registry_unread(UNREAD_WITHIN)
        if status == b"500" or (status[:1] == b"2" and not (may_succeed and (token == own or unread))):
            raise Violation("hostile", f"{name}: POST {path} -> {answer[:80]!r}")
        if malformed is not None and status[:1] == b"4" and int(status) not in (*malformed.statuses, *_EXCUSED):
            raise Violation("hostile", f"{name}: {malformed.data[:200]!r} -> {answer[:80]!r}")
        if malformed is None and body is bodies[1][1] and b'"status":200' in answer:
            raise Violation("hostile", f"{name} reported on what it wasn't sent: {answer[-80:]!r}")
        if answer.count(b"HTTP/1.1 ") > 1:
            raise Violation("hostile", f"{name} had two replies")


def _signed_for_others(world: World, token: str) -> Iterator[str]:
    """Tokens that the key of an agent's token has signed and that no agent is given: another program may sign with it,
    too. Each is wrong in one thing."""
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    wrong: Sequence[dict[str, Any]] = (
        {"aud": "Wazuh Communications API enrollment"},
        {"iss": "somebody"},
        {"exp": claims["exp"] + 86_400},
        {"uuid": "all"},
        {"uuid": None},
    )
    for changes in wrong:
        yield world.keys.sign({name: value for name, value in {**claims, **changes}.items() if value is not None})
