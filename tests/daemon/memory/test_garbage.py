"""What is over is gone at once: nothing waits for the garbage collector, which doesn't count what OpenSSL holds."""

from __future__ import annotations

import gc

from trio.testing import MockClock, wait_all_tasks_blocked

from wazuh_comms_trio.backends.memory.stores import memory_backends
from wazuh_comms_trio.config.models import Timeouts
from wazuh_comms_trio.http.server.connection import Connection
from wazuh_comms_trio.http.server.hypercorn_protocol import Http11
from wazuh_comms_trio.http.server.streams.tls_stream import TlsStream
from wazuh_comms_trio.testing import daemon_config, open_daemon, stateful_event, stateless_event


def connections() -> list[object]:
    return [each for each in gc.get_objects() if isinstance(each, Connection | Http11 | TlsStream)]


async def test_a_connection_that_is_over_leaves_nothing(autojump_clock: MockClock) -> None:
    files = {"default.conf": b"x" * 100_000}
    config = daemon_config(timeouts=Timeouts(commands=1))
    async with open_daemon(config, backends=memory_backends(files=files)) as daemon:
        agent = await daemon.enrol_agent()
        gc.collect()
        before = connections()  # of tests whose end something still remembers
        gc.disable()
        try:
            for _ in range(3):
                assert (await agent.authenticate()).status == 200
                assert (await agent.alive()).status == 200
                assert (await agent.post_stateless([stateless_event("m", "c", {})])).status == 204
                assert (await agent.post_stateful([stateful_event("i", "fim", "create", {})])).status == 200
                assert (await agent.post_stateful([b"garbage"])).status == 200
                assert (await agent.request("POST", "/api/v1/events/stateful", b"garbage")).status == 400
                assert (await agent.get_file("default.conf")).status == 200
                assert (await agent.get_file("nothing.conf")).status == 404
                assert (await agent.poll()).status == 408
            garbled = await daemon.listener.connect()
            await garbled.send_all(b"garbage\r\n\r\n")
            garbled.reset()
            await wait_all_tasks_blocked(0.01)
            left = [type(each).__name__ for each in connections() if not any(each is other for other in before)]
            assert left == []
        finally:
            gc.enable()
