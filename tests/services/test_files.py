"""File names: what is one, and whose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from tests.services.bench import agent, caller
from wazuh_comms_trio.backends.interfaces import Action, Command, Target
from wazuh_comms_trio.backends.memory.stores import MemoryBackends, MemoryFiles, memory_backends
from wazuh_comms_trio.errors import (
    BackendUnavailable,
    CommsError,
    FileIsFolder,
    FileMissing,
    FileNameHasFolders,
    MalformedRequest,
)
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
    assert [
        may_read(member, name)
        for name in ("web.yml", "a.b.yml", "default.yml", "db.yml", "web.yaml", ".yml", "web.yml.conf", "web.conf.yml")
    ] == [True, True, True, False, False, False, False, False]


def service_of(scope: Literal["groups", "all"], backends: MemoryBackends | None = None) -> FileService:
    stores = backends or memory_backends()
    return FileService(MemoryFiles(CONTENTS), scope, stores.agents, stores.commands)


async def test_groups_that_an_agent_has_just_got() -> None:
    """What is remembered of it, and what it was sent, may not be the same yet."""
    backends = memory_backends()
    known = caller(groups=())
    service = service_of("groups", backends)

    async def status(name: bytes) -> bool:
        try:
            async with service.open_file(known, name):
                return True
        except FileMissing:
            return False

    assert not await status(b"web.conf")  # no such agent any more
    await backends.agents.add(known.agent)
    assert not await status(b"web.conf")
    await backends.agents.set_groups(known.agent.id, ["web"])
    assert await status(b"web.conf")
    assert not await status(b"db.conf")
    args = {"groups": ["web", "db"]}
    await backends.commands.add([Command("c", Target("agent", known.agent.id), Action("set-group", args=args))])
    assert await status(b"db.conf")
    assert not await status(b"web+db.conf")


async def test_what_the_registry_says_needs_no_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is refused a file of its group for want of the other store."""
    backends, known = memory_backends(), caller(groups=())
    await backends.agents.add(evolve(known.agent, groups=("web",)))

    async def fail(**options: Any) -> Any:
        raise BackendUnavailable

    monkeypatch.setattr(backends.commands, "list", fail)
    async with service_of("groups", backends).open_file(known, b"web.conf") as file:
        assert file.size == len(CONTENTS["web.conf"] or b"")
    with pytest.raises(BackendUnavailable):
        async with service_of("groups", backends).open_file(known, b"db.conf"):
            pytest.fail("it may be of a group that is coming")


@pytest.mark.parametrize("asked", ["agents", "commands"])
async def test_groups_whose_delivery_is_noted_between_two_questions(
    monkeypatch: pytest.MonkeyPatch, asked: Literal["agents", "commands"]
) -> None:
    """After either store has answered. Found by the simulator."""
    backends, known = memory_backends(), caller(groups=())
    await backends.agents.add(known.agent)
    args = {"groups": ["web"]}
    await backends.commands.add([Command("c", Target("agent", known.agent.id), Action("set-group", args=args))])
    store, name = (backends.agents, "get") if asked == "agents" else (backends.commands, "list")
    question = getattr(store, name)

    async def ask(*about: Any, **options: Any) -> Any:
        answer = await question(*about, **options)
        await backends.commands.mark_sent(["c"])
        return answer

    monkeypatch.setattr(store, name, ask)
    async with service_of("groups", backends).open_file(known, b"web.conf") as file:
        assert file.size == len(CONTENTS["web.conf"] or b"")


class TestService:
    @pytest.mark.parametrize("name", ["default.conf", "web.conf"])
    async def test_ones_own(self, name: str) -> None:
        service = service_of("groups")
        async with service.open_file(caller(groups=("web",)), name.encode()) as file:
            assert file.size == len(CONTENTS[name] or b"")
            assert b"".join([chunk async for chunk in file.chunks()]) == CONTENTS[name]

    @pytest.mark.parametrize("name", [b"db.conf", b"web", b"dir.conf", b"a%25b", b"nothing.conf"])
    async def test_others_are_as_if_missing(self, name: bytes) -> None:
        service = service_of("groups")
        with pytest.raises(FileMissing, match="File does not exist"):
            async with service.open_file(caller(groups=("web", "nothing")), name):
                pass

    async def test_folders_in_the_name_come_first(self) -> None:
        service = service_of("groups")
        with pytest.raises(FileNameHasFolders):
            async with service.open_file(caller(), b"web/"):
                pass

    async def test_all(self) -> None:
        service = service_of("all")
        async with service.open_file(caller(), b"a%25b") as file:
            assert file.size == 7
        with pytest.raises(FileIsFolder):
            async with service.open_file(caller(), b"web"):
                pass
