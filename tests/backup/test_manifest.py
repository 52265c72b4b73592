"""The manifest of a backup: a damaged one is a sentence, whatever is wrong with it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from wazuh_comms_trio.backup.format import BackupError, Contents, Member, decode_manifest, encode_manifest

CONTENTS = Contents("2025-01-01T00:00:00Z", "1", (Member("state.db", 5, "ab"),))


def changed(**changes: Any) -> bytes:
    return json.dumps({**json.loads(encode_manifest(CONTENTS)), **changes}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"format":1,"files":' + b"[" * 100_000,
        changed(format=0),
        changed(format=-1),
        changed(format=1.5),
        changed(format=[]),
        changed(files=[{"name": "a"}]),
        changed(files=[[]]),
        changed(files=7),
        changed(damaged=7),
    ],
)
def test_damaged(data: bytes) -> None:
    with pytest.raises(BackupError):
        decode_manifest(data)


@pytest.mark.parametrize("name", [[], {}, None, 7])
def test_a_name_that_is_none_is_no_files(name: Any) -> None:
    """It is looked for among the files' names, and isn't found."""
    contents = decode_manifest(changed(files=[{"name": name, "bytes": 5, "sha256": "ab"}]))
    assert {member.name for member in contents.members} != {"state.db"}


def test_there_and_back() -> None:
    assert decode_manifest(encode_manifest(CONTENTS)) == CONTENTS
