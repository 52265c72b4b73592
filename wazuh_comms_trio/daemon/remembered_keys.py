"""Which keys signed tokens on this node, and which were revoked: a file in the node's state, so that a restart with
another key refuses no token that is still good.

A JSON object: ``signing`` is the public key (PEM) that signs now, ``earlier`` those that did before, each with the
moment until which their tokens count (epoch seconds), ``revoked`` the ids of keys that count no more, each with the
moment when, ``checksum`` that of the rest (none in an earlier version's). Public halves only. The file is changed under
a lock by whichever process has something to add; losing it costs log-ins, and never keeps the daemon from starting.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import msgspec
from attrs import evolve, frozen

from wazuh_comms_trio.config.models import CommunicationsApi
from wazuh_comms_trio.foundation.file_writes import rename, sync, write_all
from wazuh_comms_trio.foundation.folders import adopt, draft, make_folder, remove_left_drafts, sync_folder, try_lock
from wazuh_comms_trio.foundation.outage_log import OutageLog

__all__ = [
    "EARLIER_KEYS_LIFETIME",
    "LONGEST_GRACE",
    "SIGNS_HERE",
    "KeyMemory",
    "RememberedKeys",
    "find_fault",
    "node_folder",
]

logger = logging.getLogger(__name__)

FILE_NAME: Final = "token-keys.json"
LOCK_NAME: Final = "token-keys.lock"
_DRAFT: Final = re.compile(rf"\.{re.escape(FILE_NAME)}-\d+")
#: Tries to lock it, and seconds between two: a process that has the lock needs some milliseconds.
_LOCK_TRIES: Final = 40
_LOCK_PAUSE: Final = 0.05
#: How long earlier keys' tokens can be good, seconds: their life, and the requests that were under way.
EARLIER_KEYS_LIFETIME: Final = 930.0
#: The most that an earlier key gets, whatever the file or a clock that was set say: nodes change their keys one after
#: the other, within a day.
LONGEST_GRACE: Final = 86400.0
#: Why a key isn't revoked.
SIGNS_HERE: Final = "this node signs with that key: change it first, with `wazuh-comms keys rotate`"
_MOST_EARLIER: Final = 32
_MOST_REVOKED: Final = 1000
#: No file of ours is longer.
_LONGEST: Final = 1 << 20


def node_folder(api: CommunicationsApi) -> Path:
    """Where this node keeps what is its own: with an indexer, beside the quarantine."""
    embedded = api.backend == "embedded" or api.quarantine.path is None
    return api.embedded.path if embedded or api.quarantine.path is None else api.quarantine.path


class _EarlierKey(msgspec.Struct, frozen=True, kw_only=True):
    public_key: str
    until: float


class _Document(msgspec.Struct, frozen=True, kw_only=True):
    signing: str | None = None
    earlier: list[_EarlierKey] = []
    revoked: dict[str, float] = {}
    checksum: int | None = None


def _checksum(members: Mapping[str, Any]) -> int:
    """The checksum of all members as they stand in the file, a later version's, too."""
    return crc32(msgspec.json.encode({**members, "checksum": None}))


@frozen
class RememberedKeys:
    """Public keys that signed tokens and ids of revoked keys; ``earlier``: until when, epoch seconds, by public key
    (PEM). ``revoked``: since when, by the key's id."""

    signing: str | None = None
    earlier: Mapping[str, float] = {}
    revoked: Mapping[str, float] = {}

    def signed_by(self, public_key: str, now: float) -> RememberedKeys:
        """These keys once this one signs; another one that did counts as long as its tokens can."""
        kept = {pem: until for pem, until in self.earlier.items() if until > now and pem != public_key}
        if self.signing not in (None, public_key):
            assert self.signing is not None
            kept[self.signing] = max(kept.get(self.signing, 0.0), now + EARLIER_KEYS_LIFETIME)
        return evolve(self, signing=public_key, earlier=kept)

    def keeping(self, public_key: str, until: float) -> RememberedKeys:
        """These keys with one that counts until then at least."""
        return evolve(self, earlier={**self.earlier, public_key: max(self.earlier.get(public_key, 0.0), until)})

    def without(self, key_ids: Mapping[str, float], *, own: bool) -> RememberedKeys:
        """These keys without revoked ones; of those that another node's operator revoked (not ``own``) a limited number
        is taken, and those that are known stay."""
        new = {key: since for key, since in key_ids.items() if key not in self.revoked}
        if not own:
            latest = sorted(new.items(), key=lambda entry: -entry[1])
            new = dict(latest[: max(0, _MOST_REVOKED - len(self.revoked))])
        return evolve(self, revoked={**self.revoked, **new})

    def seconds_left(self, now: float) -> dict[str, float]:
        """How long each key that signed before counts, also the one that did last, by its PEM."""
        left = {pem: min(until - now, LONGEST_GRACE) for pem, until in self.earlier.items() if until > now}
        if self.signing is not None:
            left.setdefault(self.signing, EARLIER_KEYS_LIFETIME)
        return left

    def and_those_of(self, other: RememberedKeys) -> RememberedKeys:
        """The keys that either of them knows; the key that signs is ``other``'s, if it knows one."""
        earlier = dict(self.earlier)
        for pem, until in other.earlier.items():
            earlier[pem] = max(earlier.get(pem, 0.0), until)
        return RememberedKeys(other.signing or self.signing, earlier, {**self.revoked, **other.revoked})

    def encode(self) -> bytes:
        latest = sorted(self.earlier.items(), key=lambda entry: -entry[1])[:_MOST_EARLIER]
        earlier = [_EarlierKey(public_key=pem, until=until) for pem, until in latest]
        document = _Document(signing=self.signing, earlier=earlier, revoked=dict(self.revoked))
        document = msgspec.structs.replace(document, checksum=_checksum(msgspec.to_builtins(document)))
        return msgspec.json.format(msgspec.json.encode(document)) + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> RememberedKeys:
        """Raises ``ValueError``, ``RecursionError``."""
        return cls._of(msgspec.json.decode(data, type=_Document))

    @classmethod
    def _of(cls, document: _Document) -> RememberedKeys:
        return cls(document.signing, {key.public_key: key.until for key in document.earlier}, document.revoked)


def _wait_for(lock: int) -> None:
    """Raises ``OSError`` when another process doesn't give it back."""
    for _ in range(_LOCK_TRIES):
        if try_lock(lock):
            return
        time.sleep(_LOCK_PAUSE)
    raise OSError(errno.EAGAIN, f"another process holds {LOCK_NAME}")


class KeyMemory:
    """One process's view of the file. Blocks, shortly; nothing here raises. What can't be written is remembered by this
    process alone."""

    def __init__(self, folder: Path, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._path = folder / FILE_NAME
        self._now = wall_clock
        self._known = RememberedKeys()
        self._outage = OutageLog(logger, str(self._path))
        self._is_damaged = False

    @property
    def known(self) -> RememberedKeys:
        """The keys as they were last read or changed."""
        return self._known

    def read(self) -> RememberedKeys:
        self._known = self._known.and_those_of(self._stored())
        return self._known

    def note_signing(self, public_key: str) -> None:
        """This key (PEM) signs now."""
        self._change(lambda known: known.signed_by(public_key, self._now()))

    def keep(self, public_key: str, seconds: float) -> bool:
        """This key's tokens count for so long at least. False: that can't be written."""
        return self._change(lambda known: known.keeping(public_key, self._now() + min(seconds, LONGEST_GRACE)))

    def revoke(self, key_ids: Mapping[str, float], *, own: bool = True) -> bool:
        """Revokes keys for good: by id, since when; as another node's operator says, unless ``own``. False: that can't
        be written, and a restart forgets it."""
        return self._change(lambda known: known.without(key_ids, own=own))

    def repair(self) -> bool:
        """Puts what can be read of a damaged file in its place. False: that can't be written."""
        return self._change(lambda known: known)

    def _change(self, change: Callable[[RememberedKeys], RememberedKeys]) -> bool:
        try:
            make_folder(self._folder)
            lock = os.open(self._folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                adopt(lock, self._folder)
                _wait_for(lock)
                remove_left_drafts(self._folder, _DRAFT)
                stored = self._stored()
                self._known = change(self._known.and_those_of(stored))
                if self._is_damaged:
                    self._keep_damaged()
                if self._is_damaged or self._known != stored:
                    self._write(self._known.encode())
            finally:
                os.close(lock)
        except OSError as error:
            self._known = change(self._known)
            text = "another key would make agents log in again after a restart, and a revoked one may count again"
            self._outage.failed(text, kind=f"can't be written: {error.strerror}")
            return False
        self._outage.worked()
        return True

    def _keep_damaged(self) -> None:
        """Keeps the damaged file under another name; the one kept before goes."""
        if not self._path.is_symlink() and self._path.is_file():
            rename(self._path, self._path.with_name(f"{FILE_NAME}.damaged"))

    def _write(self, data: bytes) -> None:
        path = self._path.with_name(f".{FILE_NAME}-{os.getpid()}")
        with draft(path) as descriptor:
            write_all(descriptor, data)
            sync(descriptor)
            rename(path, self._path)
        sync_folder(self._folder)

    def _stored(self) -> RememberedKeys:
        keys, fault = _read_file(self._path)
        self._is_damaged = fault is not None
        if fault is not None:
            logger.warning(
                "%s %s; which keys signed tokens before, and which were revoked, isn't known", self._path, fault
            )
        return keys


def _read_file(path: Path) -> tuple[RememberedKeys, str | None]:
    """Reads the file: what can be read of it, and what is wrong with it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            data = os.read(descriptor, _LONGEST)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return RememberedKeys(), None
    except OSError as error:
        return RememberedKeys(), f"can't be read: {error}"
    try:
        members = msgspec.json.decode(data)
        document = msgspec.convert(members, _Document)
    except (ValueError, RecursionError) as error:
        return RememberedKeys(), f"isn't understood: {error}"
    is_sound = document.checksum is None or document.checksum == _checksum(members)
    return RememberedKeys._of(document), None if is_sound else "isn't what was written"


def find_fault(folder: Path) -> str | None:
    """What is wrong with a node's file, if anything is."""
    return _read_file(folder / FILE_NAME)[1]
