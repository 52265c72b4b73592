"""A whole daemon behind a balancer: what is kept apart by address is, by the agents' own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from trio.testing import MockClock

from wazuh_comms_trio.config.models import Balancers, Enrollment
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key
from wazuh_comms_trio.testing.agent.client import enroll
from wazuh_comms_trio.testing.node.daemon import Daemon, daemon_config, open_daemon

BALANCER = "10.0.0.5"
UUID = "01a2054b-6d7e-7c3b-ae8c-801744614b42"


def enrol(daemon: Daemon, client: str, password: str, uuid: str = UUID) -> Awaitable[object]:
    async def connect() -> trio.abc.Stream:
        stream = await daemon.enrollment_listener.connect(BALANCER)
        await stream.send_all(f"PROXY TCP4 {client} 192.0.2.1 4711 55000\r\n".encode())
        return stream

    key = "0123456789abcdefghijklmnopqrstuv"
    return enroll(connect, user="wazuh", password=password, uuid=uuid, key=key, name="web-1")


async def seconds(call: Callable[[], Awaitable[object]]) -> float:
    began = trio.current_time()
    await call()
    return trio.current_time() - began


async def test_wrong_passwords_slow_down_their_own_address(autojump_clock: MockClock) -> None:
    config = daemon_config(
        balancers=Balancers(proxy_protocol=(BALANCER,)), enrollment=Enrollment(users={"wazuh": hash_key("right")})
    )
    async with open_daemon(config) as daemon:
        for _ in range(4):
            await enrol(daemon, "203.0.113.7", "wrong")
        assert await seconds(lambda: enrol(daemon, "203.0.113.7", "wrong")) > 3
        assert await seconds(lambda: enrol(daemon, "203.0.113.8", "right")) < 0.1
        assert await daemon.backends.agents.get(UUID) is not None
