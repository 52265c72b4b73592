"""What stands behind the services, with each of their calls counted and timed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from functools import wraps
from typing import Any, Final, TypeVar

import trio
from attrs import evolve

from wazuh_comms_trio.backends.interfaces import Backends
from wazuh_comms_trio.errors import BackendUnavailable, EngineRefused
from wazuh_comms_trio.metrics import families
from wazuh_comms_trio.metrics.counting import Metrics

__all__ = ["measured"]

#: By the store's name in metrics. What every request calls and a cache answers mostly (``lookup``) is left out.
CALLS: Final = {
    "agents": ("get", "add", "record_login", "members", "revoked"),
    "events": ("bulk", "get"),
    "commands": ("add", "claim", "mark_sent", "release", "report", "expire"),
    "presence": ("record", "last_seen", "counts"),
    "engine": ("send_events", "scan"),
}

T = TypeVar("T")


class _Measured:
    """A store whose calls are measured; everything else of it is as it is."""

    def __init__(self, store: object, name: str, calls: Collection[str], metrics: Metrics) -> None:
        self._store = store
        for call in calls:
            setattr(self, call, _timed(getattr(store, call), name, call, metrics))

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        if callable(value):
            setattr(self, name, value)  # the next call finds it without this
        return value


def _timed(method: Callable[..., Awaitable[T]], name: str, call: str, metrics: Metrics) -> Callable[..., Awaitable[T]]:
    @wraps(method)
    async def timed(*args: object, **options: object) -> T:
        began, result = trio.current_time(), "error"
        try:
            value = await method(*args, **options)
            result = "done"
        except EngineRefused:
            result = "refused"
            raise
        except BackendUnavailable:
            result = "unavailable"
            raise
        except trio.Cancelled:
            result = "cancelled"
            raise
        finally:
            metrics.count(families.BACKEND_CALLS, name, call, result)
            metrics.observe(families.BACKEND_SECONDS, trio.current_time() - began, name, call)
        return value

    return timed


def measured(backends: Backends, metrics: Metrics) -> Backends:
    stores: dict[str, Any] = {
        name: _Measured(getattr(backends, name), name, calls, metrics) for name, calls in CALLS.items()
    }
    return evolve(backends, **stores)
