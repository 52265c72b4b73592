"""What went wrong in the API that agents used before this one: twelve things seen on the running system, each with a
test that it doesn't go wrong here. The whole daemon, TLS included, in one process; number 8 is about processes and
starts some.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

import attrs
import jwt
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.conftest import Certificates
from tests.e2e.in_memory import command, logged_in, timed
from tests.e2e.processes import Files, start_daemon
from wazuh_comms_trio.backends.interfaces import DocumentOperation, ItemResult, Outcome
from wazuh_comms_trio.backends.memory.stores import memory_backends
from wazuh_comms_trio.config.models import Ssl, Timeouts
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.testing import (
    AgentClient,
    ExchangeFailed,
    Reply,
    daemon_config,
    exchange,
    open_daemon,
    request_head,
    stateful_event,
    stateless_event,
)

T = TypeVar("T")

CREATE = stateful_event("same-id", "fim", "create", {"file": {"path": "/etc/passwd"}})
SCAN = {"type": "packagelist", "agent": {"id": "a"}, "packages": [], "hotfixes": []}


async def test_1_equal_ids_in_concurrent_requests_get_their_own_results(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agents = [await logged_in(daemon) for _ in range(30)]
        outcomes: dict[int, list[int]] = {}

        async def post(number: int) -> None:
            # A third create, a third update and a third delete what isn't there.
            operation = ("create", "update", "delete")[number % 3]
            data = None if operation == "delete" else {"n": number}
            events = [stateful_event("same-id", "fim", operation, data)] * 2
            reply = await agents[number].post_stateful(events)
            outcomes[number] = [result["status"] for result in reply.json()["results"]]

        async with trio.open_nursery() as nursery:
            for number in range(len(agents)):
                nursery.start_soon(post, number)
        expected = {0: [201, 200], 1: [201, 200], 2: [404, 404]}
        assert outcomes == {number: expected[number % 3] for number in range(len(agents))}


async def test_1_a_retry_is_not_told_created_while_the_index_refuses(autojump_clock: MockClock) -> None:
    async with open_daemon(daemon_config(timeouts=Timeouts(stateful=5))) as daemon:
        agent = await logged_in(daemon)
        daemon.backends.events.faults.hang()
        assert (await agent.post_stateful([CREATE])).status == 503
        daemon.backends.events.faults.release()

        def refuse(operation: DocumentOperation) -> ItemResult:
            return ItemResult(400, "mapper_parsing_exception", Outcome.REFUSED)

        daemon.backends.events.judge = refuse
        reply = await agent.post_stateful([CREATE])
        (result,) = reply.json()["results"]
        assert (result["status"], result["result"]) == (400, "mapper_parsing_exception")


@pytest.mark.parametrize("seed", range(5))
async def test_2_no_wake_up_is_lost(seed: int, autojump_clock: MockClock) -> None:
    """Commands come at any moment of a poll's beginning: each reaches its agent at once, none is lost or comes
    twice.
    """
    rng = Random(seed)
    async with open_daemon(seed=seed) as daemon:
        agent = await logged_in(daemon)
        received: list[str] = []

        async def poll_for_ever() -> None:
            while True:
                reply = await agent.poll()
                assert reply.status in (200, 408)
                received.extend(item["document_id"] for item in reply.json().get("commands", ()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll_for_ever)
            for number in range(40):
                for _ in range(rng.randrange(60)):
                    await trio.lowlevel.checkpoint()
                reply, took = await timed(lambda number=number: daemon.post_commands([command(agent, f"c{number}")]))  # type: ignore[misc]
                assert [item["document_id"] for item in reply.json()["commands"]] == [f"c{number}"]
                assert took < 1.1
            nursery.cancel_scope.cancel()
        assert received == [f"c{number}" for number in range(40)]


async def test_3_a_posted_command_reaches_every_parked_agent_it_is_for(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agents = [await logged_in(daemon, groups=["web"] if number % 2 else []) for number in range(20)]
        replies: dict[str, Reply] = {}

        async def poll(agent: AgentClient) -> None:
            replies[agent.uuid] = await agent.poll()

        async with trio.open_nursery() as nursery:
            for agent in agents:
                nursery.start_soon(poll, agent)
            await wait_all_tasks_blocked()
            everybody = {**command(agents[0], "all"), "target": {"type": "group", "id": "all"}}
            began = trio.current_time()
            await daemon.post_commands([everybody])
        assert trio.current_time() - began < 2.1
        ids = {uuid: [item["document_id"] for item in reply.json()["commands"]] for uuid, reply in replies.items()}
        assert ids == {agent.uuid: [f"all_{agent.uuid}"] for agent in agents}


async def test_3_a_parked_poll_freezes_nothing(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon, trio.open_nursery() as nursery:
        agent = await logged_in(daemon)
        nursery.start_soon(agent.poll)
        await wait_all_tasks_blocked()
        for _ in range(20):
            reply, took = await timed(lambda: agent.post_stateful([CREATE]))
            assert (reply.status, took < 0.1) == (200, True)
        nursery.cancel_scope.cancel()


async def test_4_a_large_body_does_not_hold_up_others(autojump_clock: MockClock) -> None:
    """Requests that come after a large one, while it is being worked on, are answered before it."""
    async with open_daemon() as daemon, trio.open_nursery() as nursery:
        large, small = await logged_in(daemon), await logged_in(daemon)
        events = [stateful_event(f"id{number}", "fim", "create", {"t": "x" * 900}) for number in range(8000)]
        order: list[str] = []

        async def post_large() -> None:
            reply = await large.post_stateful(events)
            assert len(reply.json()["results"]) == len(events)
            order.append("large")

        nursery.start_soon(post_large)
        while not daemon.backends.events.batches:  # the first of it is being stored
            await trio.lowlevel.checkpoint()
        for _ in range(3):
            assert (await small.post_stateful([CREATE])).status == 200
            order.append("small")
        assert order == ["small"] * 3


async def test_5_a_hanging_index_takes_all_requests_and_answers_each_in_time(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon, trio.open_nursery() as nursery:
        agents = [await logged_in(daemon) for _ in range(30)]
        daemon.backends.events.faults.hang()

        async def post(agent: AgentClient) -> None:
            reply, took = await timed(lambda: agent.post_stateful([CREATE]))
            assert reply.status == 503
            assert 29 <= took < 30

        for agent in agents:
            nursery.start_soon(post, agent)
        # Meanwhile everything else goes on.
        await trio.sleep(5)
        assert (await agents[0].post_stateless([stateless_event("m", "c", {})])).status == 204


async def test_5_an_index_that_is_down_is_a_503_in_the_one_shape(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent = await logged_in(daemon)
        daemon.backends.events.faults.error = BackendUnavailable()
        reply, took = await timed(lambda: agent.post_stateful([CREATE]))
        assert reply.status == 503
        assert reply.json() == {"message": "The service is temporarily unavailable", "code": 503}
        assert took < 30
        daemon.backends.events.faults.error = None
        assert (await agent.post_stateful([CREATE])).status == 200


async def test_6_no_tls_context_is_made_for_a_request(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    made: list[str] = []

    class Counted(ssl.SSLContext):
        def __new__(cls, *args: Any, **kwargs: Any) -> Counted:
            made.append("context")
            return super().__new__(cls, *args, **kwargs)

    files = {"default.conf": b"x"}
    async with open_daemon(backends=memory_backends(files=files)) as daemon:
        agent = await logged_in(daemon)
        monkeypatch.setattr(ssl, "SSLContext", Counted)
        for _ in range(3):
            assert (await agent.alive()).status == 200
            assert (await agent.authenticate()).status == 200
            assert (await agent.post_stateless([stateless_event("m", "c", {})])).status == 204
            assert (await agent.post_stateful([CREATE])).status == 200
            assert (await agent.get_file("default.conf")).status == 200
            assert (await agent.scan(SCAN)).status == 200
        assert made == []


async def test_7_hashing_a_key_holds_up_nobody(autojump_clock: MockClock) -> None:
    """What hashes is handed to ``run_blocking``, a thread in production: while it takes its time, others are served."""
    may_go_on = trio.Event()
    waiting: list[str] = []

    async def run_blocking(fn: Callable[..., T], *args: object) -> T:
        waiting.append(fn.__name__)
        await may_go_on.wait()
        return fn(*args)

    async with open_daemon(run_blocking=run_blocking) as daemon, trio.open_nursery() as nursery:
        may_go_on.set()
        busy = await logged_in(daemon)
        may_go_on = trio.Event()
        waiting.clear()

        async def log_in() -> None:
            agent = await daemon.enrol_agent()
            assert (await agent.authenticate()).status == 200

        for _ in range(5):
            nursery.start_soon(log_in)
        await wait_all_tasks_blocked()
        assert waiting
        reply, took = await timed(lambda: busy.post_stateful([CREATE]))
        assert (reply.status, took < 0.01) == (200, True)
        may_go_on.set()


@pytest.mark.processes
@pytest.mark.real_clock
async def test_8_one_worker_always_comes_up(daemon_files: Files) -> None:
    for _ in range(4):
        async with start_daemon(daemon_files) as running:
            agent = AgentClient(running.connect, uuid="u", key="k")
            assert (await agent.alive()).status == 200


async def test_9_only_tokens_of_this_service_with_a_uuid_are_taken(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent = await logged_in(daemon)
        claims = jwt.decode(agent.token or "", options={"verify_signature": False})
        key = daemon.config.communications_api.ssl.key.read_text()

        async def status(algorithm: str = "ES256", key: str = key, **changes: Any) -> tuple[int, int]:
            changed = {name: value for name, value in (claims | changes).items() if value is not None}
            agent.token = jwt.encode(changed, "" if algorithm == "none" else key, algorithm=algorithm)
            reply = await agent.post_stateless([stateless_event("m", "c", {})])
            return reply.status, 0 if reply.status == 204 else reply.json()["code"]

        assert await status() == (204, 0)
        invalid = (403, 2706)
        assert await status(iss="somebody") == invalid
        assert await status(aud="something else") == invalid
        assert await status(uuid=None) == invalid
        assert await status(uuid="0194857f-39b5-7bfb-a7bc-c5c6835f03d1") == invalid  # nobody's
        assert await status(algorithm="none") == invalid
        assert await status(algorithm="HS256", key="x" * 32) == invalid
        assert await status(exp=claims["exp"] + 1) == invalid  # a life of 901 s
        past = {"iat": claims["iat"] - 901, "exp": claims["exp"] - 901}
        assert await status(**past) == (403, 2707)
        ahead = claims.get("auth_time", claims["iat"]) + 20
        assert await status(iat=ahead, exp=ahead + 900) == (204, 0)  # another node's clock


@pytest.mark.parametrize("kind", ["stateless", "stateful"])
async def test_9_events_of_another_agent_are_refused(kind: str, autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent, other = await logged_in(daemon), await logged_in(daemon)
        agent.metadata = other.metadata
        reply = await (agent.post_stateless if kind == "stateless" else agent.post_stateful)([CREATE])
        assert reply.status == 400
        assert reply.json() == {"message": "Agent id does not match the token", "code": 2709}
        assert not daemon.backends.engine.bodies
        assert not daemon.backends.events.documents


async def test_10_folders_and_malformed_bodies_are_400(autojump_clock: MockClock) -> None:
    async with open_daemon(backends=memory_backends(files={"folder.conf": None})) as daemon:
        agent = await logged_in(daemon, groups=["folder"])
        reply = await agent.get_file("folder.conf")
        assert (reply.status, reply.json()["code"]) == (400, 2704)
        for path in ("/api/v1/events/stateful", "/api/v1/events/stateless"):
            reply = await agent.request("POST", path, b"")
            assert (reply.status, reply.json()["code"]) == (400, 2709)
        for broken in (b'{"id":"a","operation":"create"}\n', b'{"id":"a","module":"fim"}\n{"x":1}\n'):
            reply = await agent.post_stateful([CREATE, broken])
            assert reply.status == 200
            assert [result["status"] for result in reply.json()["results"]][1:] == [400]


async def test_11_silent_and_slow_peers_are_closed(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent = await logged_in(daemon)
        silent = await daemon.listener.connect()
        no_head, no_body = await daemon.connect(), await daemon.connect()
        headers = [("Host", "h"), ("Authorization", f"Bearer {agent.token}"), ("Content-Length", "100")]
        began = trio.current_time()
        await no_head.send_all(b"GET /api/v1/ HTTP/1.1\r\n")
        await no_body.send_all(request_head("POST", "/api/v1/events/stateful", headers) + b"{")
        assert (await exchange(no_head, b"")).status == 408
        assert await silent.receive_some() == b""
        assert trio.current_time() - began < 11
        assert (await exchange(no_body, b"")).status == 408
        assert trio.current_time() - began < 31


async def test_11_stopping_does_not_wait_for_parked_polls(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon, trio.open_nursery() as nursery:
        agent = await logged_in(daemon)

        async def poll() -> None:
            assert (await agent.poll()).status == 408

        for _ in range(20):
            nursery.start_soon(poll)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        daemon.stop.request()
        await daemon.ended.wait()
        assert trio.current_time() - began < 1


async def test_12_use_ca_asks_agents_for_a_certificate(certificates: Certificates, autojump_clock: MockClock) -> None:
    config = daemon_config(ssl=Ssl(certificates.key, certificates.cert, use_ca=True, ca=certificates.ca))
    async with open_daemon(config) as daemon:
        with pytest.raises(ExchangeFailed):
            await (await daemon.enrol_agent()).authenticate()
        own = (certificates.client_cert, certificates.client_key)
        assert (await (await daemon.enrol_agent(certificate=own)).authenticate()).status == 200
        foreign_ca = attrs.evolve(config.communications_api.ssl, ca=certificates.other_ca)
    async with open_daemon(daemon_config(ssl=foreign_ca)) as daemon:
        with pytest.raises(ExchangeFailed):
            await (await daemon.enrol_agent(certificate=own)).authenticate()
