"""Stub."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from wazuh_comms_trio.backends.base import StoredFile
from wazuh_comms_trio.services.authentication import Caller


class FileService:
    def open_file(self, caller: Caller, raw_name: bytes) -> AbstractAsyncContextManager[StoredFile]:
        """``raw_name``: the query's ``file_name`` as it came, still %-encoded. Raises on entering: ``MalformedRequest``,
        ``FileNameHasFolders``, ``FileIsFolder``, ``FileMissing``."""
        raise NotImplementedError
