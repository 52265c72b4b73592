"""After a sync that failed the kernel may have forgotten what it was to write: only a new file can be trusted."""

import errno
import json
import logging
from pathlib import Path

import pytest

from tests.contract.harness import A1
from wazuh_comms_trio.backends.embedded.ndjson.segments import Appended, Segments, segment_files
from wazuh_comms_trio.config.sections.embedded import EmbeddedEvents
from wazuh_comms_trio.foundation import file_writes
from wazuh_comms_trio.foundation.file_writes import FileCalls


class OneSyncFails(FileCalls):
    """``cuts``: whether files can be cut back then."""

    def __init__(self, cuts: bool) -> None:
        self._cuts = cuts
        self.failed = False

    def fdatasync(self, descriptor: int) -> None:
        if not self.failed:
            self.failed = True
            raise OSError(errno.EIO, "the disk fails")
        super().fdatasync(descriptor)

    def ftruncate(self, descriptor: int, size: int) -> None:
        if not self._cuts:
            raise OSError(errno.EIO, "the disk fails")
        super().ftruncate(descriptor, size)


@pytest.mark.parametrize("cuts", [True, False])
def test_the_next_body_goes_into_another_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuts: bool) -> None:
    segments = Segments(tmp_path, EmbeddedEvents(), wall_clock=lambda: 0.0, logger=logging.getLogger("events"))
    segments.append([_body(1)])
    calls = OneSyncFails(cuts)
    monkeypatch.setattr(file_writes, "calls", calls)
    with pytest.raises(OSError, match="the disk fails"):
        segments.append([_body(2)])
    assert calls.failed
    segments.append([_body(3)])
    segments.rotate()
    first, second = (segment.path.read_bytes() for segment in segment_files(tmp_path))
    assert _body(1).body in first
    assert _body(3).body not in first
    assert _body(3).body in second


def _body(number: int) -> Appended:
    return Appended(A1, json.dumps({"n": number}).encode() + b"\n")
