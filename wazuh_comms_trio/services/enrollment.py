"""Stub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class EnrollmentService:
    async def log_in(self, user: str, password: str, *, peer: str | None = None) -> str:
        """A short-lived session token. Wrong passwords are slowed down, per user and peer. Raises ``CommsError`` with code 401."""
        raise NotImplementedError

    async def enrol(self, token: str, body: bytes) -> Mapping[str, Any]:
        """The ``data`` of the 201. Raises ``CommsError`` with code 401 (token), ``AgentExists`` (409), ``MalformedRequest``,
        ``BackendUnavailable``."""
        raise NotImplementedError
