"""What is known to harm a daemon is refused on every way to it, and nothing of it is sent."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from wazuh_comms_trio.errors import MessageInvalid
from wazuh_comms_trio.testing import AuthdModel, open_fake_daemon
from wazuh_comms_trio.transport import (
    WazuhAsyncProtocol,
    WazuhAsyncSocket,
    WazuhAsyncSocketJSON,
    WazuhSocket,
    WazuhSocketJSON,
    open_pool,
    wazuh_sendasync,
    wazuh_sendsync,
)

HARMFUL: list[dict[str, Any]] = [
    {"function": 1},
    {"function": "nonsense", "arguments": {"id": 1}},
    {"function": "add", "arguments": {"name": "web-1\n002 other any 1"}},
]


async def by_pool(home: Path, message: dict[str, Any]) -> None:
    async with open_pool("authd", home=home) as pool:
        await pool.request(message)


async def by_pool_as_text(home: Path, message: dict[str, Any]) -> None:
    async with open_pool("authd", home=home) as pool:
        await pool.request(json.dumps(message))


async def by_pool_as_bytes(home: Path, message: dict[str, Any]) -> None:
    async with open_pool("authd", home=home) as pool:
        await pool.request(json.dumps(message).encode())


async def by_pool_with_a_schema_of_its_own(home: Path, message: dict[str, Any]) -> None:
    async with open_pool("authd", home=home) as pool:
        await pool.request(message, schema={"type": "object"})


async def by_lease(home: Path, message: dict[str, Any]) -> None:
    async with open_pool("authd", home=home) as pool, pool.lease() as connection:
        await connection.request(json.dumps(message).encode())


async def by_protocol(home: Path, message: dict[str, Any]) -> None:
    async with await WazuhAsyncProtocol.from_path(home / "queue/sockets/auth") as connection:
        await connection.request(json.dumps(message).encode())


async def by_exchange(home: Path, message: dict[str, Any]) -> None:
    async with (
        await WazuhAsyncProtocol.from_path(home / "queue/sockets/auth") as connection,
        connection.open_exchange(json.dumps(message).encode(), is_last=lambda _: True),
    ):
        pass


async def by_async_socket(home: Path, message: dict[str, Any]) -> None:
    async with await WazuhAsyncSocket.from_path(home / "queue/sockets/auth") as sock:
        await sock.send(json.dumps(message).encode())


async def by_async_json_socket(home: Path, message: dict[str, Any]) -> None:
    async with await WazuhAsyncSocketJSON.from_path(home / "queue/sockets/auth") as sock:
        await sock.send(message)


async def by_async_request(home: Path, message: dict[str, Any]) -> None:
    async with await WazuhAsyncSocketJSON.from_path(home / "queue/sockets/auth") as sock:
        await sock.request(message)


async def by_socket(home: Path, message: dict[str, Any]) -> None:
    def talk() -> None:
        with WazuhSocket(home / "queue/sockets/auth") as sock:
            sock.send(json.dumps(message).encode())

    await trio.to_thread.run_sync(talk)


async def by_bytes_with_their_own_header(home: Path, message: dict[str, Any]) -> None:
    payload = json.dumps(message).encode()
    async with await WazuhAsyncSocket.from_path(home / "queue/sockets/auth") as sock:
        await sock.send(len(payload).to_bytes(4, "little") + payload, None)


async def by_a_link(home: Path, message: dict[str, Any]) -> None:
    (home / "link").symlink_to(home / "queue/sockets/auth")
    async with await WazuhAsyncSocketJSON.from_path(home / "link") as sock:
        await sock.send(message)


async def by_a_roundabout_path(home: Path, message: dict[str, Any]) -> None:
    def talk() -> None:
        with WazuhSocketJSON(f"{home}/queue/../queue/sockets/../sockets/auth") as sock:
            sock.send(message)

    await trio.to_thread.run_sync(talk)


async def by_json_socket(home: Path, message: dict[str, Any]) -> None:
    def talk() -> None:
        with WazuhSocketJSON(home / "queue/sockets/auth") as sock:
            sock.send(message)

    await trio.to_thread.run_sync(talk)


async def by_sendasync(home: Path, message: dict[str, Any]) -> None:
    await wazuh_sendasync("authd", message, home=home)


async def by_sendasync_as_text(home: Path, message: dict[str, Any]) -> None:
    await wazuh_sendasync("authd", json.dumps(message), home=home)


async def by_sendsync(home: Path, message: dict[str, Any]) -> None:
    await wazuh_sendsync("authd", message, home=home)


WAYS: list[Callable[[Path, dict[str, Any]], Awaitable[None]]] = [
    by_pool,
    by_pool_as_text,
    by_pool_as_bytes,
    by_pool_with_a_schema_of_its_own,
    by_lease,
    by_protocol,
    by_exchange,
    by_async_socket,
    by_async_json_socket,
    by_async_request,
    by_socket,
    by_bytes_with_their_own_header,
    by_a_link,
    by_a_roundabout_path,
    by_json_socket,
    by_sendasync,
    by_sendasync_as_text,
    by_sendsync,
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("message", HARMFUL, ids=["function", "argument", "line"])
async def test_authd_is_spared(
    home: Path, message: dict[str, Any], way: Callable[[Path, dict[str, Any]], Awaitable[None]]
) -> None:
    async with open_fake_daemon("authd", AuthdModel(), home=home) as daemon:
        with pytest.raises(MessageInvalid, match="Error 1012"):
            await way(home, message)
        assert daemon.requests == []
        assert not daemon.crashed


async def test_authd_is_spared_in_memory() -> None:
    async with (
        open_fake_daemon("authd", AuthdModel()) as daemon,
        open_pool("authd", connect=daemon.connect) as pool,
    ):
        with pytest.raises(MessageInvalid):
            await pool.request({"function": 1})
        async with pool.lease() as connection:
            with pytest.raises(MessageInvalid):
                await connection.request(b'{"function": 1}')
        assert daemon.requests == []


async def test_text_for_authd_goes_through(home: Path) -> None:
    answers = ['ok {"auth":{}}']
    async with open_fake_daemon("authd", answers, home=home) as daemon, open_pool("authd", home=home) as pool:
        assert await pool.request("getconfig auth") == 'ok {"auth":{}}'
        assert daemon.requests == [b"getconfig auth"]
