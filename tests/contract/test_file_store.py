"""The contract of ``FileStore``."""

import pytest

from tests.contract.harness import Harness
from wazuh_comms_trio.backends.interfaces import Backends
from wazuh_comms_trio.errors import CommsError, FileIsFolder, FileMissing, FileNameHasFolders


async def fetch(backends: Backends, name: str) -> bytes:
    async with backends.files.open_file(name) as file:
        content = b"".join([chunk async for chunk in file.chunks()])
        assert len(content) == file.size
    return content


def put(harness: Harness, name: str, content: bytes | None) -> None:
    if harness.put_file is None:
        pytest.skip("no files here")
    harness.put_file(name, content)


@pytest.mark.parametrize("size", [0, 1, 65536, 256 * 1024, 256 * 1024 + 1, 3_000_000])
async def test_a_file(harness: Harness, backends: Backends, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    put(harness, "default.conf", content)
    assert await fetch(backends, "default.conf") == content


@pytest.mark.parametrize("name", ["default.conf", "a b", "ü", "+", "%41", ".hidden", "..conf"[1:], "x" * 255])
async def test_names(harness: Harness, backends: Backends, name: str) -> None:
    put(harness, name, b"content")
    assert await fetch(backends, name) == b"content"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("missing.conf", FileMissing),
        ("", FileMissing),
        ("x" * 256, FileMissing),
        ("\udcff", FileMissing),
        ("folder", FileIsFolder),
        ("folder/x", FileNameHasFolders),
        ("/etc/passwd", FileNameHasFolders),
        ("..", FileNameHasFolders),
        ("a..b", FileNameHasFolders),
        ("../x", FileNameHasFolders),
        ("nul\0", FileNameHasFolders),
    ],
)
async def test_what_cannot_be_had(harness: Harness, backends: Backends, name: str, error: type[CommsError]) -> None:
    put(harness, "folder", None)
    with pytest.raises(error):
        await fetch(backends, name)
