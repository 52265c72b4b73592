"""Calls that are cancelled."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing


async def cancelled_when_blocked(call: Callable[[], Awaitable[Any]]) -> None:
    """Cancel ``call()`` once it waits and nothing else can happen."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                await call()
                pytest.fail("it came to an end by itself")

            nursery.start_soon(run)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught


async def cancelled_at_once(call: Callable[[], Awaitable[Any]]) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await call()
    assert scope.cancelled_caught


def fill(sock: socket.socket) -> int:
    """Fill a socket's buffer; returns with how many bytes."""
    filled = 0
    with suppress(BlockingIOError):
        while True:
            filled += sock.send(bytes(1000))
    return filled
