"""What a backend is given before its request is answered without it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

import trio

from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.environment import give_up_at

__all__ = ["backend_in_time"]

T = TypeVar("T")


async def backend_in_time(call: Awaitable[T], *, deadline: float) -> T:
    """For services that aren't given the request's deadline (trio's clock) themselves: shortly before it,
    ``BackendUnavailable``. An agent repeats a 408 after a second, a 503 only after half a minute.
    """
    with trio.CancelScope(deadline=give_up_at(deadline, trio.current_time())):
        return await call
    raise BackendUnavailable
