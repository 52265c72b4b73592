"""The whole daemon inside a test, TLS included: in-memory connections, memory backends, no threads, any clock of
trio's.

    async with open_daemon() as daemon:
        agent = await daemon.enrol_agent()
        await agent.authenticate()
        reply = await agent.post_stateless([stateless_event("logcollector", "file", {"event": {"original": "hello"}})])
        assert reply.status == 204
        assert len(daemon.backends.engine.bodies) == 1

Under trio's mock clock the wall clock goes with it, so that tokens expire in milliseconds. With other backends, or
listeners on real sockets, it serves on the real clock just as well.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

import trio
from attrs import evolve, field, frozen

from wazuh_comms_trio.backends.interfaces import Agent, Backends
from wazuh_comms_trio.backends.memory.stores import memory_backends
from wazuh_comms_trio.config.models import CommunicationsApi, Config, Ssl
from wazuh_comms_trio.config.tls import server_context
from wazuh_comms_trio.daemon.listeners import Listeners
from wazuh_comms_trio.daemon.stopping import Stop
from wazuh_comms_trio.daemon.worker.environment import WorkerEnvironment
from wazuh_comms_trio.daemon.worker.tree import Worker, run_worker
from wazuh_comms_trio.foundation.environment import RunBlocking
from wazuh_comms_trio.foundation.nurseries import BackgroundNursery
from wazuh_comms_trio.quarantine.interface import Quarantine
from wazuh_comms_trio.quarantine.memory import MemoryQuarantine
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key
from wazuh_comms_trio.services.authentication.tokens import TokenKeys
from wazuh_comms_trio.services.commands.other_workers import NO_OTHER_WORKERS, OtherWorkers
from wazuh_comms_trio.testing.agent.client import AgentClient, enroll
from wazuh_comms_trio.testing.agent.connection import agent_tls, open_tls
from wazuh_comms_trio.testing.agent.http import Reply, exchange, request_head
from wazuh_comms_trio.testing.certificates import throwaway_certificate
from wazuh_comms_trio.testing.streams import MemoryListener

__all__ = ["Daemon", "daemon_config", "open_daemon", "run_inline"]

T = TypeVar("T")
B = TypeVar("B", bound=Backends)

#: What the wall clock says when trio's says 0: an arbitrary moment, the same in every run.
EPOCH: Final = 1_750_000_000.0
KEY: Final = "0123456789abcdefghijklmnopqrstuv"


async def run_inline(fn: Callable[..., T], *args: object) -> T:
    """``run_blocking`` without a thread, which the mock clock wouldn't know of."""
    await trio.lowlevel.checkpoint()
    return fn(*args)


def daemon_config(**changes: Any) -> Config:
    """A configuration for ``open_daemon``: ``daemon_config(timeouts=Timeouts(commands=60))``. The certificate is made
    for the test.
    """
    certificate = throwaway_certificate()
    api = CommunicationsApi(Ssl(certificate.key, certificate.cert), workers=1, backend="embedded")
    return Config(evolve(api, **changes))


@frozen
class Daemon(Generic[B]):
    """A running daemon. ``clock`` is its wall clock; ``stop`` ends it in order, as a signal does."""

    config: Config
    backends: B
    quarantine: Quarantine
    listener: MemoryListener
    command_listener: MemoryListener
    enrollment_listener: MemoryListener
    stop: Stop
    clock: Callable[[], float]
    keys: TokenKeys
    worker: Worker
    ended: trio.Event  # set when the worker's tree is gone
    _uuids: Any = field(factory=lambda: Random(7), repr=False)

    def client(self, uuid: str, key: str = KEY, **options: Any) -> AgentClient:
        """An agent of this daemon's. ``options`` are ``AgentClient``'s."""
        options.setdefault("wall_clock", self.clock)
        return AgentClient(self.listener.connect, uuid=uuid, key=key, **options)

    async def enrol_agent(
        self, uuid: str | None = None, *, key: str = KEY, groups: Sequence[str] = (), **options: Any
    ) -> AgentClient:
        """Puts an agent into the registry and returns its client, which has no token yet."""
        uuid = str(UUID(int=self._uuids.getrandbits(128), version=4)) if uuid is None else uuid
        name = f"agent-{uuid[:8]}"
        await self.backends.agents.add(Agent(uuid, name, _hash(key), groups=tuple(groups)))
        return self.client(uuid, key, name=name, groups=groups, **options)

    async def connect(self) -> trio.SSLStream[trio.abc.Stream]:
        """A new connection to the agents' port, shaken hands, for tests that write their requests themselves.
        ``transport_stream`` is the ``MemoryStream`` under it.
        """
        return await open_tls(self.listener.connect, agent_tls(), host="localhost")

    async def post_commands(self, commands: Sequence[Mapping[str, Any]]) -> Reply:
        """Posts to the local command server."""
        body = json.dumps({"commands": commands}).encode()
        headers = [("Host", "localhost"), ("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        async with await self.command_listener.connect() as stream:
            return await exchange(stream, request_head("POST", "/api/v1/commands", headers), (body,))

    async def join(self, user: str, password: str, uuid: str, key: str = KEY, **options: Any) -> Reply:
        """An agent's enrolment, over the enrolment listener."""
        connect = self.enrollment_listener.connect
        return await enroll(connect, user=user, password=password, uuid=uuid, key=key, **options)


_hashes: dict[str, str] = {}


def _hash(key: str) -> str:
    """12 ms the first time; tests that enrol thousands of agents give them one key."""
    if key not in _hashes:
        _hashes[key] = hash_key(key)
    return _hashes[key]


@asynccontextmanager
async def open_daemon(
    config: Config | None = None,
    *,
    backends: Any = None,
    quarantine: Quarantine | None = None,
    run_blocking: RunBlocking = run_inline,
    seed: int = 0,
    other_workers: OtherWorkers = NO_OTHER_WORKERS,
) -> AsyncIterator[Daemon[Any]]:
    """Serves while the block runs, then stops in order; the block's failure, or its cancellation, cancels it.
    ``backends``: memory backends by default, ``daemon.backends`` in any case. ``other_workers``: see ``open_node``.
    """
    config = daemon_config() if config is None else config
    settings = config.communications_api
    began = trio.current_time()

    def clock() -> float:
        return EPOCH + trio.current_time() - began

    backends = memory_backends(wall_clock=clock) if backends is None else backends
    quarantine = MemoryQuarantine(wall_clock=clock) if quarantine is None else quarantine
    keys = TokenKeys.from_pem((settings.token.private_key or settings.ssl.key).read_bytes())
    api, command, enrollment = MemoryListener(), MemoryListener(), MemoryListener(("127.0.0.1", 55000))
    environment = WorkerEnvironment(
        listeners=Listeners([api], [command], [enrollment] if settings.enrollment is not None else []),
        backends=backends,
        quarantine=quarantine,
        keys=keys,
        ssl_context=server_context(settings.ssl),
        wall_clock=clock,
        rng=Random(seed),
        run_blocking=run_blocking,
        other_workers=other_workers,
    )
    stop, ended = Stop(), trio.Event()
    async with BackgroundNursery(wait=True) as nursery:

        async def run(*, task_status: trio.TaskStatus[Worker]) -> None:
            await run_worker(config, environment, stop, task_status=task_status)
            ended.set()

        worker: Worker = await nursery.start(run)
        try:
            yield Daemon(config, backends, quarantine, api, command, enrollment, stop, clock, keys, worker, ended)
        except Exception:
            nursery.cancel_scope.cancel()
            raise
        stop.request()
