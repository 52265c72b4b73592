"""The folder of files on disk: what leads out of it, what isn't a file, and what changes meanwhile."""

import os
import socket
import stat
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from wazuh_comms_trio.backends.files import folder as folder_module
from wazuh_comms_trio.backends.files.folder import FolderFiles
from wazuh_comms_trio.errors import BackendUnavailable, FileIsFolder, FileMissing

pytestmark = pytest.mark.real_clock


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "files" / "sub").mkdir(parents=True)
    (tmp_path / "files" / "default.conf").write_bytes(b"content")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "files-beside").mkdir()
    (tmp_path / "files-beside" / "secret").write_bytes(b"secret")
    return tmp_path / "files"


async def fetch(folder: Path, name: str) -> bytes:
    with trio.fail_after(5):
        async with FolderFiles(folder).open_file(name) as file:
            return b"".join([chunk async for chunk in file.chunks()])


@pytest.mark.parametrize("target", ["default.conf", "{folder}/default.conf", "sub/../default.conf", "."])
async def test_links_that_stay_inside(folder: Path, target: str) -> None:
    (folder / "link").symlink_to(target.format(folder=folder))
    if target == ".":
        with pytest.raises(FileIsFolder):
            await fetch(folder, "link")
    else:
        assert await fetch(folder, "link") == b"content"


@pytest.mark.parametrize(
    "target",
    [
        "../secret",
        "/etc/passwd",
        "../files-beside/secret",
        "sub/../../secret",
        "..",
        "/",
        "link",
        "missing",
        "/proc/self/mem",
    ],
)
async def test_links_that_lead_out_or_nowhere(folder: Path, target: str) -> None:
    (folder / "link").symlink_to(target)
    with pytest.raises(FileMissing):
        await fetch(folder, "link")


async def test_the_folder_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "groups").symlink_to(folder)
    assert await fetch(tmp_path / "groups", "default.conf") == b"content"


async def test_what_is_no_file(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        for name in ("fifo", "socket"):
            with pytest.raises(FileMissing):
                await fetch(folder, name)
    with pytest.raises(FileIsFolder):
        await fetch(folder, "sub")
    with pytest.raises(FileIsFolder):
        await fetch(folder, ".")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
async def test_a_device(folder: Path) -> None:
    try:
        os.mknod(folder / "device", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("not even root may here")
    with pytest.raises(FileMissing):
        await fetch(folder, "device")


async def test_a_missing_folder(tmp_path: Path) -> None:
    files = FolderFiles(tmp_path / "later")
    with pytest.raises(FileMissing):
        async with files.open_file("default.conf"):
            pass
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "default.conf").write_bytes(b"now")
    async with files.open_file("default.conf") as file:
        assert file.size == 3


async def test_what_is_appended_meanwhile_is_not_sent(folder: Path) -> None:
    size = 1_000_000
    (folder / "big").write_bytes(b"x" * size)
    async with FolderFiles(folder).open_file("big") as file:
        with (folder / "big").open("ab") as more:
            more.write(b"y" * 1000)
        content = b"".join([chunk async for chunk in file.chunks()])
    assert content == b"x" * size


async def test_what_is_cut_short_meanwhile_is_an_error(folder: Path) -> None:
    (folder / "big").write_bytes(b"x" * 1_000_000)
    async with FolderFiles(folder).open_file("big") as file:
        os.truncate(folder / "big", 300_000)
        with pytest.raises(BackendUnavailable):
            async for _ in file.chunks():
                pass


async def test_what_is_replaced_meanwhile_is_sent_as_it_was(folder: Path) -> None:
    (folder / "big").write_bytes(b"x" * 1_000_000)
    async with FolderFiles(folder).open_file("big") as file:
        (folder / "new").write_bytes(b"y" * 1_000_000)
        (folder / "new").rename(folder / "big")
        content = b"".join([chunk async for chunk in file.chunks()])
    assert content == b"x" * 1_000_000


async def test_descriptors_are_closed(folder: Path) -> None:
    before = os.listdir("/proc/self/fd")
    os.mkfifo(folder / "fifo")
    for name in ("default.conf", "sub", "fifo", "missing"):
        try:
            await fetch(folder, name)
        except (FileMissing, FileIsFolder):
            continue
    assert len(os.listdir("/proc/self/fd")) == len(before)


class Hanging:
    """Stands in the place of a function, and hangs until ``end``; for a few seconds, where nobody ends it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._end = threading.Event()
        self.begun = threading.Event()
        self.has_ended = False

    def __call__(self, *args: Any) -> Any:
        self.begun.set()
        self._end.wait(5)
        self.has_ended = True
        return self._function(*args)

    def end(self) -> None:
        self._end.set()


async def cancelled_once(begun: threading.Event, work: Callable[[], Awaitable[object]]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await trio.to_thread.run_sync(begun.wait, 5)
        nursery.cancel_scope.cancel()


async def until_threads_are_through(files: FolderFiles) -> None:
    with trio.fail_after(5):
        while files._threads.borrowed_tokens:
            await trio.lowlevel.checkpoint()


async def test_a_folder_that_hangs_holds_nobody_longer_than_it_wants(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "big").write_bytes(b"x" * 1_000_000)
    hanging = Hanging(folder_module._open_handle)
    files = FolderFiles(folder)

    async def open_it() -> None:
        async with files.open_file("big"):
            raise AssertionError("it hangs")

    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "_open_handle", hanging)
        await cancelled_once(hanging.begun, open_it)
        assert not hanging.has_ended
    async with files.open_file("big") as file:  # and others are served
        assert file.size == 1_000_000
    hanging.end()
    await until_threads_are_through(files)
    assert hanging.has_ended
    assert descriptors_of(folder / "big") == []


async def test_a_file_whose_reading_hangs_holds_nobody_either(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "big").write_bytes(b"x" * 1_000_000)
    hanging = Hanging(os.pread)
    files = FolderFiles(folder)

    async def read() -> None:
        async with files.open_file("big") as file, aclosing(file.chunks()) as chunks:
            async for _ in chunks:
                raise AssertionError("it hangs")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", hanging)
        await cancelled_once(hanging.begun, read)
        assert not hanging.has_ended
    hanging.end()
    await until_threads_are_through(files)
    assert descriptors_of(folder / "big") == []


async def test_all_who_read_a_large_file_share_a_descriptor(folder: Path) -> None:
    big = folder / "big"
    big.write_bytes(content := b"x" * 1_000_000)
    files = FolderFiles(folder)
    async with AsyncExitStack() as readers:
        opened = [await readers.enter_async_context(files.open_file("big")) for _ in range(20)]
        assert len(descriptors_of(big)) == 1
        big.rename(folder / "old")
        big.write_bytes(b"y" * 1_000_000)
        async with files.open_file("big") as new:
            assert b"".join([chunk async for chunk in new.chunks()]) == b"y" * 1_000_000
            assert len(descriptors_of(big)) == len(descriptors_of(folder / "old")) == 1
        for file in opened:
            assert b"".join([chunk async for chunk in file.chunks()]) == content
    assert descriptors_of(big) == descriptors_of(folder / "old") == []


def descriptors_of(file: Path) -> list[str]:
    found = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the listing's own
            found += [number] if os.readlink(f"/proc/self/fd/{number}") == str(file) else []
    return found
