"""Which agent has how much of the events' quota, so that one agent can't use up what all need.

The writer of a segment says so in a small file beside it, ``shares/<segment>.json``, every few MiB and when the segment
is done; not synced: after a crash it may say too little, never too much. A segment without one (of an earlier version)
is nobody's, unless one record fills it: that is the agent's whose record it is. Blocking calls, one thread at a time.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final

from attrs import frozen

from wazuh_comms_trio.backends.embedded.ndjson.records import read_envelope
from wazuh_comms_trio.config.models import EmbeddedEvents
from wazuh_comms_trio.foundation.file_writes import rename, write_all
from wazuh_comms_trio.foundation.folders import adopt, make_folder

logger = logging.getLogger(__name__)

FOLDER: Final = "shares"
#: A segment's file, or its next one that a killed process has left.
_OWN_NAME: Final = re.compile(r"\d{14}-\d+-\d{6,}-[0-9a-f]{8}\.(json|\d+)")

#: Bytes of a segment after which its writer says again whose they are.
_SAVED_EVERY: Final = 4 * 1024 * 1024
_LONGEST_ENVELOPE: Final = 8192


def agent_mark(agent_id: str) -> str:
    """What stands for an agent in the name of a file that it is sending."""
    return blake2b(agent_id.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


@frozen
class _Seen:
    """What a segment looked like when its shares were read: its size, and when its file of shares was written."""

    size: int
    written: int


class Shares:
    """The agents' shares in one folder, as one process sees them. ``agents``: how many are enrolled; 0: not known,
    nothing is limited."""

    def __init__(self, folder: Path, settings: EmbeddedEvents) -> None:
        self._folder = folder / FOLDER
        self._settings = settings
        self.agents = 0
        self._totals: dict[str, int] = {}
        self._segments: dict[str, dict[str, int]] = {}
        self._seen: dict[str, _Seen] = {}
        self._own: str | None = None  # the segment that this process appends to
        self._unsaved = 0

    @property
    def limit(self) -> int:
        """How many bytes one agent may have."""
        if not self.agents:
            return self._settings.max_bytes
        return max(self._least, int(self._settings.max_bytes / self.agents))

    @property
    def _least(self) -> int:
        """What one agent may have of many."""
        return int(self._settings.max_bytes * self._settings.agent_percent / 100)

    def of(self, agent_id: str) -> int:
        return self._totals.get(agent_id, 0)

    def exceeded(self, agent_id: str, more: int) -> bool:
        """Whether ``more`` bytes are too many for this agent."""
        return self.of(agent_id) + more > self.limit

    def depends_on_agents(self, agent_id: str, more: int) -> bool:
        """Whether ``more`` bytes may be too many for this agent if there are more agents than is known."""
        return self.limit > self._least and (not self.agents or self.of(agent_id) + more > self._least)

    def is_from_excess(self, segment: str) -> bool:
        """Whether most of this segment is from an agent that has more than its share."""
        found = self._segments.get(segment)
        if not found:
            return False
        agent_id = max(found, key=found.__getitem__)
        return found[agent_id] * 2 >= sum(found.values()) and self.of(agent_id) > self.limit

    # --- what this process writes

    def note(self, segment: str, agent_id: str, size: int) -> None:
        """``size`` bytes more of this agent are in ``segment``."""
        found = self._segments.setdefault(segment, {})
        found[agent_id] = found.get(agent_id, 0) + size
        self._totals[agent_id] = self._totals.get(agent_id, 0) + size

    def appended(self, segment: str, size: int) -> None:
        """The segment that this process appends to has ``size`` bytes more, all of them noted."""
        self._own = segment
        self._unsaved += size
        if self._unsaved >= _SAVED_EVERY:
            self._save(segment)

    def finished(self) -> None:
        """This process appends to the segment no longer."""
        segment, self._own = self._own, None
        if segment is not None and self._unsaved:
            self._save(segment)

    def _save(self, segment: str) -> None:
        self._unsaved = 0
        path = self._path(segment)
        draft = path.with_suffix(f".{os.getpid()}")
        try:
            make_folder(self._folder)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                adopt(descriptor, self._folder)
                write_all(descriptor, json.dumps(self._segments.get(segment, {})).encode())
            finally:
                os.close(descriptor)
            rename(draft, path)
        except OSError as exc:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            logger.debug("events: whose %s is can't be written down: %s", segment, exc)

    def _path(self, segment: str) -> Path:
        return self._folder / f"{Path(segment).stem}.json"

    # --- the files of shares

    def look(self, segments: Iterable[tuple[Path, int]]) -> None:
        """Takes in what other processes wrote, and forgets segments that are gone."""
        written = self._written()
        there = {path.name for path, _ in segments}
        for path, size in segments:
            name = path.name
            seen = _Seen(size, written.get(self._path(name).name, 0))
            if name != self._own and self._seen.get(name) != seen:
                self._seen[name] = seen
                self._replace(name, self._read(path, size, saved=bool(seen.written)))
        for name in self._segments.keys() - there:
            self.forget(name)

    def forget(self, segment: str) -> None:
        """The segment was deleted."""
        self._replace(segment, {})
        self._segments.pop(segment, None)
        self._seen.pop(segment, None)
        with suppress(OSError):
            self._path(segment).unlink(missing_ok=True)

    def remove_stale(self, segments: Iterable[str]) -> None:
        """Removes files of segments that are gone. Raises ``OSError``."""
        kept = {self._path(segment).name for segment in segments}
        for name in self._written().keys() - kept:
            if _OWN_NAME.fullmatch(name):
                (self._folder / name).unlink(missing_ok=True)

    def _replace(self, segment: str, found: dict[str, int]) -> None:
        for agent_id, size in self._segments.get(segment, {}).items():
            left = self._totals.get(agent_id, 0) - size
            if left > 0:
                self._totals[agent_id] = left
            else:
                self._totals.pop(agent_id, None)
        for agent_id, size in found.items():
            self._totals[agent_id] = self._totals.get(agent_id, 0) + size
        self._segments[segment] = found

    def _written(self) -> dict[str, int]:
        """The files of shares, each with when it was written."""
        found = {}
        with suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.is_file(follow_symlinks=False):
                        found[entry.name] = entry.stat(follow_symlinks=False).st_mtime_ns
        return found

    def _read(self, segment: Path, size: int, *, saved: bool) -> dict[str, int]:
        """Nothing for what can't be read: then the segment is nobody's."""
        try:
            if saved:
                found = json.loads(self._path(segment.name).read_bytes())
                if isinstance(found, dict):
                    return {str(agent): int(count) for agent, count in found.items() if int(count) > 0}
                return {}
            with segment.open("rb") as file:
                line = file.readline(_LONGEST_ENVELOPE)
        except (OSError, ValueError, TypeError, RecursionError):
            return {}
        envelope = read_envelope(line)
        if envelope is None or size - len(line) - envelope[2] not in (0, 1):
            return {}
        return {envelope[0]: size}
