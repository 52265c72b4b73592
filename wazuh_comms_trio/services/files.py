"""Files for agents: which names are names at all, and whose they are."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Literal

from attrs import evolve

from wazuh_comms_trio.backends.command_rules import new_groups
from wazuh_comms_trio.backends.interfaces import Agent, AgentRegistry, CommandStore, FileStore, StoredFile
from wazuh_comms_trio.errors import FileIsFolder, FileMissing, FileNameHasFolders, MalformedRequest
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


def _is_groups(name: str) -> bool:
    """Whether a file is a group's configuration, whichever group's."""
    return name.endswith((".yml", ".conf"))


def may_read(agent: Agent, name: str) -> bool:
    """With ``files.scope: groups``: the configuration of the agent's own groups, and everyone's. Agents ask for
    ``<group>.yml``; before December 2024 it was ``<group>.conf``."""
    group, dot, extension = name.rpartition(".")
    return bool(dot) and extension in ("yml", "conf") and (group == "default" or group in agent.groups)


class FileService:
    """``commands``, where they are this store's own: a ``set-group`` on its way to an agent counts already, since the
    agent asks for its new groups' files at once."""

    def __init__(
        self,
        files: FileStore,
        scope: Literal["groups", "all"],
        agents: AgentRegistry,
        commands: CommandStore,
    ) -> None:
        self._files = files
        self._scope = scope
        self._agents = agents
        self._commands = commands

    def open_file(self, caller: Caller, raw_name: bytes) -> AbstractAsyncContextManager[StoredFile]:
        """``raw_name``: the query's ``file_name`` as it came, still %-encoded. Raises on entering:
        ``MalformedRequest``, ``FileNameHasFolders``, ``FileIsFolder``, ``FileMissing``; ``BackendUnavailable`` where
        only the registry can tell whose the file is."""
        return self._open(caller, raw_name)

    @asynccontextmanager
    async def _open(self, caller: Caller, raw_name: bytes) -> AsyncIterator[StoredFile]:
        name = decode_name(raw_name)
        sure = self._scope == "all" or may_read(caller.agent, name)
        if not sure and not _is_groups(name):
            raise FileMissing
        try:
            async with self._files.open_file(name) as file:
                if not sure and not await self._may_read_now(caller.agent, name):
                    raise FileMissing
                yield file
        except FileIsFolder:
            if not sure and not await self._may_read_now(caller.agent, name):
                raise FileMissing from None
            raise

    async def _may_read_now(self, agent: Agent, name: str) -> bool:
        """Whether an agent may read a file by its groups in the store: what is remembered of the agent may be older.
        A ``set-group`` whose delivery is noted meanwhile counts either as pending or in the registry, which is asked
        again after it."""
        fresh = await self._agents.get(agent.id)
        if fresh is None or may_read(fresh, name) or not self._commands.keeps_posted:
            return fresh is not None and may_read(fresh, name)
        pending = await self._commands.list(status="pending", agent_id=agent.id)
        coming = [group for command in pending for group in new_groups(command) or ()]
        fresh = await self._agents.get(agent.id)
        return fresh is not None and may_read(evolve(fresh, groups=(*fresh.groups, *coming)), name)
