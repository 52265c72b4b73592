"""Stub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wazuh_comms_trio.backends.base import Command


def decode_commands(body: bytes) -> list[Command]:
    """``{"commands":[COMMAND...]}`` as the local command server is posted. Raises ``MalformedRequest``."""
    raise NotImplementedError


def encode_command(command: Command) -> dict[str, Any]:
    """Null fields left out."""
    raise NotImplementedError


def encode_commands(commands: Sequence[Command]) -> bytes:
    """``{"commands":[...]}`` as UTF-8 JSON."""
    raise NotImplementedError
