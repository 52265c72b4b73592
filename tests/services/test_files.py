"""File names: what is one, and whose."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.services.bench import agent, caller
from wazuh_comms_trio.backends.memory.stores import MemoryFiles
from wazuh_comms_trio.errors import CommsError, FileIsFolder, FileMissing, FileNameHasFolders, MalformedRequest
from wazuh_comms_trio.services.files import FileService, decode_name, may_read

CONTENTS: Mapping[str, bytes | None] = {
    "default.conf": b"for all",
    "web.conf": b"for web",
    "web+db.conf": b"plus",
    "db.conf": b"for db",
    "web": None,
    "dir.conf": None,
    "a%b": b"percent",
}


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"web.conf", "web.conf"),
        (b"web+db.conf", "web+db.conf"),
        (b"%77eb%2Econf", "web.conf"),
        (b"a%2520b", "a%20b"),
        (b"a%20b", "a b"),
        (b"%c3%a9.conf", "\u00e9.conf"),
        (b"%ff", "\udcff"),
        (b"x" * 255, "x" * 255),
        (b"%41" * 255, "A" * 255),
        (b"-_.~", "-_.~"),
    ],
)
def test_names(raw: bytes, name: str) -> None:
    assert decode_name(raw) == name


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", MalformedRequest),
        (b"a b", MalformedRequest),
        (b"a\xc3\xa9", MalformedRequest),
        (b"a\x7f", MalformedRequest),
        (b"a%", MalformedRequest),
        (b"a%4", MalformedRequest),
        (b"a%zz", MalformedRequest),
        (b"x" * 256, FileMissing),
        (b"a/b", FileNameHasFolders),
        (b"..", FileNameHasFolders),
        (b"../../etc/passwd", FileNameHasFolders),
        (b"%2e%2e%2fpasswd", FileNameHasFolders),
        (b"a..b", FileNameHasFolders),
        (b"a%00b", FileNameHasFolders),
        (b"a%2fb", FileNameHasFolders),
        (b"/" + b"x" * 300, FileNameHasFolders),
        (b"a /%zz", FileNameHasFolders),
    ],
)
def test_what_is_no_name(raw: bytes, error: type[CommsError]) -> None:
    with pytest.raises(error):
        decode_name(raw)


@given(st.binary(max_size=300))
def test_any_bytes(raw: bytes) -> None:
    try:
        name = decode_name(raw)
    except (MalformedRequest, FileNameHasFolders, FileMissing):
        return
    assert name
    assert not {"/", "\0"} & set(name)
    assert ".." not in name


def test_whose() -> None:
    member = agent(groups=("web", "a.b"))
    assert [
        may_read(member, name)
        for name in ("web.conf", "a.b.conf", "default.conf", "db.conf", "web", ".conf", "web.conf.conf", "")
    ] == [True, True, True, False, False, False, False, False]


class TestService:
    @pytest.mark.parametrize("name", ["default.conf", "web.conf"])
    async def test_ones_own(self, name: str) -> None:
        service = FileService(MemoryFiles(CONTENTS), "groups")
        async with service.open_file(caller(groups=("web",)), name.encode()) as file:
            assert file.size == len(CONTENTS[name] or b"")
            assert b"".join([chunk async for chunk in file.chunks()]) == CONTENTS[name]

    @pytest.mark.parametrize("name", [b"db.conf", b"web", b"dir.conf", b"a%25b", b"nothing.conf"])
    async def test_others_are_as_if_missing(self, name: bytes) -> None:
        service = FileService(MemoryFiles(CONTENTS), "groups")
        with pytest.raises(FileMissing, match="File does not exist"):
            async with service.open_file(caller(groups=("web", "nothing")), name):
                pass

    async def test_folders_in_the_name_come_first(self) -> None:
        service = FileService(MemoryFiles(CONTENTS), "groups")
        with pytest.raises(FileNameHasFolders):
            async with service.open_file(caller(), b"web/"):
                pass

    async def test_all(self) -> None:
        service = FileService(MemoryFiles(CONTENTS), "all")
        async with service.open_file(caller(), b"a%25b") as file:
            assert file.size == 7
        with pytest.raises(FileIsFolder):
            async with service.open_file(caller(), b"web"):
                pass
