"""What a log line says of the request it was written for, and how it says an address. Set by connections and the guard,
read by ``daemon/logging/formats.py``.

A connection is a task of its own with a context of its own, so that ``REQUEST.set(...)`` and ``AGENT.set(...)`` there
hold for its whole life and need no reset; ``log_context`` is for code that goes on to something else afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

__all__ = ["AGENT", "REQUEST", "WORKER", "format_address", "log_context"]

#: The request's id.
REQUEST: Final = ContextVar[str | None]("request", default=None)
#: The agent's uuid, once its token is checked.
AGENT: Final = ContextVar[str | None]("agent", default=None)
#: Which of several workers.
WORKER: Final = ContextVar[str | None]("worker", default=None)


def format_address(address: Sequence[object]) -> str:
    """``host:port``, with brackets round an IPv6 address: without them its port would be read as a part of it."""
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


@contextmanager
def log_context(*, request: str | None = None, agent: str | None = None) -> Iterator[None]:
    """Log lines written inside carry these values; None leaves the present one."""
    given = ((REQUEST, request), (AGENT, agent))
    tokens = [(variable, variable.set(value)) for variable, value in given if value is not None]
    try:
        yield
    finally:
        for variable, token in reversed(tokens):
            variable.reset(token)
