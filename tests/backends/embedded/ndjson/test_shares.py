"""Whose the bytes of each segment are, on a disk that takes nothing."""

from pathlib import Path

from tests.backends.embedded.faulty_files import faulty_files
from wazuh_comms_trio.backends.embedded.ndjson.shares import FOLDER, Shares
from wazuh_comms_trio.config.models import EmbeddedEvents

AGENT = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1"
SEGMENT = "01750000001968-4242-000001-5fcf3bbf.ndjson"


def save(folder: Path) -> None:
    shares = Shares(folder, EmbeddedEvents())
    shares.note(SEGMENT, AGENT, 10)
    shares.appended(SEGMENT, 10)
    shares.finished()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / FOLDER).iterdir())


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    for at in range(2):
        with faulty_files("ENOSPC", at):
            save(tmp_path)
        assert names(tmp_path) in ([], ["01750000001968-4242-000001-5fcf3bbf.json"])
    save(tmp_path)
    assert names(tmp_path) == ["01750000001968-4242-000001-5fcf3bbf.json"]
