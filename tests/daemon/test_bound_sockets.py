"""Real listeners: addresses, the command socket's file, errors that say what to do."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
import trio

from wazuh_comms_trio.daemon.bound_sockets import (
    StartError,
    open_tcp_listeners,
    open_unix_listener,
)

pytestmark = pytest.mark.real_clock


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
async def test_several_hosts_share_a_free_port() -> None:
    listeners = await open_tcp_listeners(["127.0.0.1", "::1"], 0, "api")
    try:
        addresses = [listener.socket.getsockname()[:2] for listener in listeners]
        assert [host for host, _ in addresses] == ["127.0.0.1", "::1"]
        assert len({port for _, port in addresses}) == 1
        for host, port in addresses:
            (await trio.open_tcp_stream(host, port)).socket.close()
    finally:
        for listener in listeners:
            await listener.aclose()


async def test_a_port_is_free_again_at_once() -> None:
    """Connections of the process before linger in TIME_WAIT; that keeps nobody from listening."""
    (first,) = await open_tcp_listeners(["127.0.0.1"], 0, "api")
    port = first.socket.getsockname()[1]
    client = await trio.open_tcp_stream("127.0.0.1", port)
    server = await first.accept()
    await server.aclose()  # the one who closes first has the TIME_WAIT
    await client.aclose()
    await first.aclose()
    (second,) = await open_tcp_listeners(["127.0.0.1"], port, "api")
    await second.aclose()


@pytest.mark.parametrize(
    ("host", "text"), [("192.0.2.1", "this host has no such address"), ("no.such.host.invalid", "no.such.host.invalid")]
)
async def test_addresses_that_cannot_be_used(host: str, text: str) -> None:
    with pytest.raises(StartError, match=f"api: can't listen on {host}:") as caught:
        await open_tcp_listeners(["127.0.0.1", host], 0, "api")
    assert text in str(caught.value)


async def test_a_busy_port_leaves_nothing_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        before = os.listdir("/proc/self/fd")
        with pytest.raises(StartError, match=f"can't listen on 127.0.0.1:{port}: another program uses this port"):
            await open_tcp_listeners(["127.0.0.1"], port, "api")
        assert len(os.listdir("/proc/self/fd")) == len(before)


async def test_the_command_socket(tmp_path: Path) -> None:
    path = tmp_path / "run" / "c.sock"  # the folder is made
    async with open_unix_listener(path, "command_socket") as listener:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        client = await trio.open_unix_socket(str(path))
        server = await listener.accept()
        await client.aclose()
        await server.aclose()
        with pytest.raises(StartError, match="is the daemon running already"):
            async with open_unix_listener(path, "command_socket"):
                pytest.fail("two of them")
        assert path.exists()
    assert not path.exists()


async def test_a_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    async with open_unix_listener(path, "command_socket"):
        await (await trio.open_unix_socket(str(path))).aclose()


async def test_the_next_ones_socket_is_left_alone(tmp_path: Path) -> None:
    """The next daemon may have made its own before this one ends."""
    path = tmp_path / "c.sock"
    async with open_unix_listener(path, "command_socket") as first:
        await first.aclose()
        async with open_unix_listener(path, "command_socket"):
            pass
        path.touch()  # stands for it
    assert path.exists()


async def test_paths_that_cannot_be_used(tmp_path: Path) -> None:
    async def fails(path: Path, text: str) -> None:
        with pytest.raises(StartError, match=text):
            async with open_unix_listener(path, "command_socket"):
                pytest.fail("it was made")

    await fails(tmp_path / ("x" * 108), "longer than 107 bytes")
    (tmp_path / "file").touch()
    await fails(tmp_path / "file", "isn't a socket")
    await fails(tmp_path / "file" / "c.sock", "can't make")
    assert (tmp_path / "file").is_file()
