"""Files for agents: which names are names at all, and whose they are."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Literal

from wazuh_comms_trio.backends.interfaces import Agent, FileStore, StoredFile
from wazuh_comms_trio.errors import FileMissing, FileNameHasFolders, MalformedRequest
from wazuh_comms_trio.services.authentication.authenticator import Caller

__all__ = ["FileService", "decode_name", "may_read"]

_LONGEST: Final = 255  # bytes
_ESCAPE: Final = re.compile(rb"%([0-9a-fA-F]{2})?")


def decode_name(raw: bytes) -> str:
    """A file's name from the query's ``file_name``: %-escapes are decoded once, ``+`` is a plus. Bytes that aren't
    UTF-8 become surrogates, as Python's own file functions take them.

    Raises ``FileNameHasFolders`` before anything else can be said of the name, ``MalformedRequest`` for what is no name
    in a URL, ``FileMissing`` for one that is too long to exist.
    """
    name = _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()) if match[1] else match[0], raw)
    if b"/" in name or b".." in name or b"\0" in name:
        raise FileNameHasFolders
    if not name:
        raise MalformedRequest("The file name is missing")
    if any(not 0x20 < byte < 0x7F for byte in raw) or any(not match[1] for match in _ESCAPE.finditer(raw)):
        raise MalformedRequest("The file name is malformed")
    if len(name) > _LONGEST:
        raise FileMissing
    return os.fsdecode(name)


def may_read(agent: Agent, name: str) -> bool:
    """With ``files.scope: groups``: the configuration of the agent's own groups, and everyone's."""
    group, extension = name[:-5], name[-5:]
    return extension == ".conf" and (group == "default" or group in agent.groups)


class FileService:
    def __init__(self, files: FileStore, scope: Literal["groups", "all"]) -> None:
        self._files = files
        self._scope = scope

    def open_file(self, caller: Caller, raw_name: bytes) -> AbstractAsyncContextManager[StoredFile]:
        """``raw_name``: the query's ``file_name`` as it came, still %-encoded. Raises on entering:
        ``MalformedRequest``, ``FileNameHasFolders``, ``FileIsFolder``, ``FileMissing``."""
        return self._open(caller, raw_name)

    @asynccontextmanager
    async def _open(self, caller: Caller, raw_name: bytes) -> AsyncIterator[StoredFile]:
        name = decode_name(raw_name)
        if self._scope == "groups" and not may_read(caller.agent, name):
            raise FileMissing
        async with self._files.open_file(name) as file:
            yield file
