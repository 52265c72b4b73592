"""Who changed what through the command socket: as the kernel says, not as the caller does."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.processes import Files, start_daemon
from tests.supervisor.nodes import ask, serving

pytestmark = [pytest.mark.processes, pytest.mark.real_clock]

MakeFiles = Callable[..., Files]

#: Becomes the user, who need not be allowed to run the interpreter, and sends one request. Says its answer's status, if
#: it is to wait for one.
CALLER = """
import os, socket, sys
path, method, target, body, waits, user = sys.argv[1:]
if user:
    os.setgroups([])
    os.setgid(int(user))
    os.setuid(int(user))
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(path)
    data = body.encode()
    head = f"{method} {target} HTTP/1.1\\r\\nHost: h\\r\\nContent-Length: {len(data)}\\r\\n\\r\\n"
    sock.sendall(head.encode() + data)
    if waits:
        print(sock.recv(65536).split()[1].decode())
"""


def commands(*ids: str) -> str:
    target = {"type": "agent", "id": "0194857f-39b5-7bfb-a7bc-c5c6835f03d1"}
    return json.dumps({"commands": [{"document_id": i, "target": target, "action": {"name": "x"}} for i in ids]})


async def call(socket: Path, method: str, target: str, body: str = "", *, user: int | None, waits: bool = True) -> int:
    """By another process, of another user if so: its process id."""
    process: trio.Process = await trio.lowlevel.open_process(
        [sys.executable, "-c", CALLER, str(socket), method, target, body, "yes" if waits else "", str(user or "")],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with trio.fail_after(20):
        said = b"".join([data async for data in process.stdout])
        assert await process.wait() == 0
    assert said == (b"200\n" if waits else b"")
    return process.pid


def entries(files: Files) -> list[dict[str, Any]]:
    log = files.state / "audit.log"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


async def noted(files: Files, count: int) -> list[dict[str, Any]]:
    """Once there are so many: they are written after the reply."""
    with trio.fail_after(20):
        while len(entries(files)) < count:  # noqa: ASYNC110
            await trio.sleep(0.02)
    return entries(files)


@pytest.mark.parametrize("workers", [1, 2])
async def test_posts_and_reloads_are_noted_with_the_caller(
    workers: int, make_files: MakeFiles, public_folder: Path
) -> None:
    socket = public_folder / "c.sock"
    files = make_files(workers=workers, command_socket=str(socket))
    others = [None, 65534] if os.getuid() == 0 else [None]
    wanted: dict[tuple[str, int], dict[str, Any]] = {}

    async def change(user: int | None, method: str, body: str, waits: bool, **entry: Any) -> None:
        uid = os.getuid() if user is None else user
        target = "/api/v1/commands" if body else "/api/v1/reload"
        pid = await call(socket, method, target, body, user=user, waits=waits)
        expected = {"user": pwd.getpwuid(uid).pw_name, "uid": uid, "pid": pid, **entry}
        wanted[entry["object"], uid] = expected

    async with start_daemon(files):
        with trio.fail_after(20):
            while not socket.exists():  # noqa: ASYNC110
                await trio.sleep(0.02)
        socket.chmod(0o666)
        async with trio.open_nursery() as nursery:  # a post waits for agents, who aren't there
            for number, user in enumerate(others):
                posted = {"action": "commands post"}
                one, two, left = f"one {number}", [f"two {number}", f"three {number}"], f"left {number}"
                nursery.start_soon(partial(change, user, "POST", commands(one), True, object=one, **posted))
                several = {"object": "2 commands", "document_ids": two, **posted}
                nursery.start_soon(partial(change, user, "POST", commands(*two), True, **several))
                nursery.start_soon(partial(change, user, "POST", commands(left), False, object=left, **posted))
        for user in others:
            await call(socket, "GET", "/api/v1/status", user=user)  # which changes nothing
            if workers > 1:
                await change(user, "POST", "", True, action="reload", object="configuration")
        found = {(entry["object"], entry["uid"]): entry for entry in await noted(files, len(wanted))}
    assert found.keys() == wanted.keys()
    for key, expected in wanted.items():
        assert expected.items() <= found[key].items(), (found[key], expected)


async def test_what_was_refused_and_changed_nothing_is_not_noted(make_files: MakeFiles) -> None:
    files = make_files()
    async with start_daemon(files, expect_errors=True):
        await serving(files, 2)
        assert (await ask(files, "POST", "/api/v1/commands", b"nonsense")).status == 400
        files.config.write_text("nonsense: [")
        assert (await ask(files, "POST", "/api/v1/reload")).json()["reloaded"] is False
    assert entries(files) == []
