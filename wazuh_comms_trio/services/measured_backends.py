"""What stands behind the services, with each of their calls counted and timed, and those that go on failing noted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import wraps
from typing import Any, Final, TypeVar

import trio
from attrs import evolve

from wazuh_comms_trio.backends.interfaces import Backends, ItemResult, Outcome
from wazuh_comms_trio.errors import BackendUnavailable, EngineRefused
from wazuh_comms_trio.metrics import families
from wazuh_comms_trio.metrics.counting import Metrics
from wazuh_comms_trio.services.failing_calls import FailingCalls

__all__ = ["measured"]

#: By the store's name in metrics. What every request calls and a cache answers mostly (``lookup``) is left out.
CALLS: Final = {
    "agents": ("get", "add", "record_login", "members", "revoked"),
    "events": ("bulk", "get"),
    "commands": ("add", "claim", "mark_sent", "release", "report", "expire"),
    "presence": ("record", "last_seen", "counts"),
    "engine": ("send_events", "scan"),
}

_BULK: Final = "events.bulk"
#: It waits for the agent's body, too: the engine itself says when its time was over.
_OF_AGENTS_PACE: Final = "engine.send_events"
#: Seconds after which a call whose time is over says something of the store.
_LONG: Final = 2.0

T = TypeVar("T")


class _Measured:
    """A store whose calls are measured; everything else of it is as it is."""

    def __init__(
        self, store: object, name: str, calls: Collection[str], metrics: Metrics, failing: FailingCalls
    ) -> None:
        self._store = store
        for call in calls:
            setattr(self, call, _timed(getattr(store, call), name, call, metrics, failing))

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        if callable(value):
            setattr(self, name, value)  # the next call finds it without this
        return value


def _timed(
    method: Callable[..., Awaitable[T]], name: str, call: str, metrics: Metrics, failing: FailingCalls
) -> Callable[..., Awaitable[T]]:
    whole = f"{name}.{call}"

    @wraps(method)
    async def timed(*args: object, **options: object) -> T:
        began, result = trio.current_time(), "error"
        deadline = trio.current_effective_deadline()
        try:
            value = await method(*args, **options)
            result = "done"
            if whole == _BULK and (why := _why_nothing_was_taken(value)) is not None:
                failing.failed(whole, why)
            else:
                failing.worked(whole)
        except EngineRefused:
            result = "refused"
            failing.worked(whole)
            raise
        except BackendUnavailable as error:
            result = "unavailable"
            failing.failed(whole, str(error))
            raise
        except trio.Cancelled:
            result = "cancelled"
            now = trio.current_time()
            is_given_up = now >= deadline and now - began > _LONG  # before that its agent left, or the worker stops
            if is_given_up and whole != _OF_AGENTS_PACE:
                failing.failed(whole, f"no answer for {now - began:.1f} s")
            raise
        finally:
            metrics.count(families.BACKEND_CALLS, name, call, result)
            metrics.observe(families.BACKEND_SECONDS, trio.current_time() - began, name, call)
        return value

    return timed


def _why_nothing_was_taken(results: Any) -> str | None:
    """Of a bulk call that was answered; None where something was."""
    items: Sequence[ItemResult] = results
    if any(item.outcome is not Outcome.PASSING for item in items):
        return None
    return f"{items[0].status} {items[0].result}" if items else None


def measured(backends: Backends, metrics: Metrics, failing: FailingCalls) -> Backends:
    stores: dict[str, Any] = {
        name: _Measured(getattr(backends, name), name, calls, metrics, failing) for name, calls in CALLS.items()
    }
    return evolve(backends, **stores)
