"""The registry, and the two functions that talk to a daemon by its name."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.transport.peers import frame, listening, receive_frame
from wazuh_comms_trio.errors import (
    AnswerInvalid,
    SendSyncError,
    SocketTimeout,
    WazuhError,
    WazuhException,
    WazuhInternalError,
)
from wazuh_comms_trio.testing import WazuhDBModel, open_fake_daemon
from wazuh_comms_trio.transport import registry
from wazuh_comms_trio.transport.errors import TrioOnly
from wazuh_comms_trio.transport.registry import (
    Daemon,
    daemon_at,
    daemons,
    daemons_under,
    get_daemon,
    other_places,
    register_daemon,
)
from wazuh_comms_trio.transport.releases.release import release_of
from wazuh_comms_trio.transport.send import wazuh_sendasync, wazuh_sendsync

SEED_PATHS = {
    "authd": "queue/sockets/auth",
    "task-manager": "queue/sockets/task",
    "wazuh-db": "queue/sockets/wdb",
    "remoted": "queue/sockets/remote",
    "analysis": "queue/sockets/analysis",
    "com": "queue/sockets/com",
}


@pytest.fixture
def own_registry() -> Iterator[None]:
    """What a test registers or changes is forgotten."""
    entries = {name: dict(entry) for name, entry in daemons.items()}
    registered = dict(registry._registered)
    yield
    registry._registered.clear()
    registry._registered.update(registered)
    daemons.clear()
    daemons.update(entries)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "path"), SEED_PATHS.items())
def test_the_daemons_in_the_frameworks_shape(name: str, path: str) -> None:
    entry = {"protocol": "TCP", "path": f"/var/ossec/{path}", "header_format": "<I", "size": 4}
    assert daemons[name] == entry
    assert daemons_under("/opt/w")[name] == {**entry, "path": f"/opt/w/{path}"}
    assert set(daemons) == set(SEED_PATHS)
    daemon = get_daemon(name)
    assert get_daemon(daemon) is daemon
    assert daemon.reusable is (name == "wazuh-db")
    assert (daemon.kind, daemon.header_format, daemon.header_size) == ("stream", "<I", 4)


def test_both_places() -> None:
    assert get_daemon("wazuh-db").places("/w") == ("/w/queue/sockets/wdb", "/w/queue/db/wdb")
    assert get_daemon("task-manager").places("/w") == ("/w/queue/sockets/task", "/w/queue/tasks/task")
    assert get_daemon("remoted").places() == ("/var/ossec/queue/sockets/remote",)
    assert daemon_at("/w/queue/db/wdb") == "wazuh-db"
    assert daemon_at(Path("/w/queue/sockets/auth")) == "authd"
    assert daemon_at("/w/notqueue/db/wdb") is None
    assert daemon_at("/w/xqueue/db/wdb") is None
    assert other_places("/w/queue/db/wdb") == ("/w/queue/sockets/wdb",)
    assert other_places("/w/queue/sockets/auth") == ()
    assert other_places("/w/else") == ()


def test_an_unknown_name() -> None:
    with pytest.raises(WazuhInternalError, match=r"Error 1013 .*no daemon is called 'x'; known are analysis, authd"):
        get_daemon("x")
    for name in ("monitor", "keystore", "vulnerability-detector"):
        with pytest.raises(
            WazuhInternalError, match=rf"Error 1013 .*{name}' is known by release only: say .*\(release=\)"
        ):
            get_daemon(name)
        assert get_daemon(name, release_of("5.0.0")).name == name


@pytest.mark.usefixtures("own_registry")
def test_a_users_own() -> None:
    daemon = register_daemon(Daemon("mine", ("queue/mine", "/run/mine"), reusable=True, header_format=">H"))
    assert daemons["mine"] == {"protocol": "TCP", "path": "/var/ossec/queue/mine", "header_format": ">H", "size": 2}
    assert get_daemon("mine") is daemon
    assert daemon.places("/w") == ("/w/queue/mine", "/run/mine")
    with pytest.raises(FrozenInstanceError):
        daemon.name = "other"  # type: ignore[misc]


@pytest.mark.usefixtures("own_registry")
def test_the_mapping_may_be_changed() -> None:
    daemons["wazuh-db"]["path"] = "/elsewhere/wdb"
    assert get_daemon("wazuh-db").places("/w") == ("/elsewhere/wdb",)
    assert get_daemon("wazuh-db").reusable
    daemons["new"] = {"protocol": "TCP", "path": "/new", "header_format": "<I", "size": 4}
    assert get_daemon("new") == Daemon("new", ("/new",))


@pytest.mark.parametrize(
    "arguments",
    [
        ("", ("x",)),
        ("x", ()),
        ("x", "path"),
        ("x", ["path"]),
        ("x", ("p",), True, "tcp"),
        ("x", ("p",), True, "stream", ""),
    ],
)
def test_what_is_no_daemon(arguments: Any) -> None:
    with pytest.raises((ValueError, WazuhError)):
        Daemon(*arguments)


# --- one request ---


@contextmanager
def answering(path: Path, answer: bytes | None) -> Iterator[list[bytes]]:
    """A daemon that takes one request and answers it, in a thread. None closes without an answer."""
    seen: list[bytes] = []
    with listening(path) as server:

        def serve() -> None:
            peer = server.accept()
            seen.append(receive_frame(peer))
            if answer is not None:
                peer.sendall(frame(answer))
            peer.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield seen
        finally:
            thread.join()
            path.unlink()


async def test_sendasync(home: Path) -> None:
    with answering(home / "queue/tasks/task", b'{"error": 0, "data": [1], "message": "Success"}\0') as seen:
        assert await wazuh_sendasync("task-manager", {"command": "status"}, home=home) == [1]
    assert seen == [b'{"command": "status"}']
    with answering(home / "queue/sockets/auth", b'{"error": 9008, "message": "Duplicate name"}') as seen:
        text = '{"function":"get","arguments":{"id":"001"}}'
        with pytest.raises(WazuhException, match=r"^Error 9008 - Duplicate name$"):
            await wazuh_sendasync("authd", text, home=home)
    assert seen == [text.encode()]


async def test_sendasync_takes_wazuh_dbs_text(home: Path) -> None:
    with answering(home / "queue/db/wdb", b'ok [{"id": 1}]') as seen:
        assert await wazuh_sendasync("wazuh-db", "global sql select id from agent", home=home) == [{"id": 1}]
    assert seen == [b"global sql select id from agent"]
    no_table = pytest.raises(WazuhError, match=r"^Error 1014 - no such table$")
    with answering(home / "queue/db/wdb", b"err no such table"), no_table:
        await wazuh_sendasync("wazuh-db", "global sql x", home=home)
    with answering(home / "queue/sockets/remote", b"neither"), pytest.raises(AnswerInvalid):
        await wazuh_sendasync("remoted", {"command": "x"}, home=home)


async def test_what_would_crash_a_daemon_is_refused_as_text_too(home: Path) -> None:
    text = '{"function":"add","arguments":{"name":5}}'
    for send in (wazuh_sendasync, wazuh_sendsync):
        for message in (text, json.loads(text)):
            with pytest.raises(WazuhInternalError, match=r"Error 1012 .*schema"):
                await send("authd", message, home=home)


@pytest.mark.usefixtures("own_registry")
async def test_sendasync_with_another_header(home: Path) -> None:
    register_daemon(Daemon("mine", ("mine",), header_format=">H"))
    with listening(home / "mine") as server:
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await wazuh_sendasync("mine", {"a": 1}, home=home))

        def serve() -> None:
            peer = server.accept()
            assert peer.recv(100) == b'\0\x08{"a": 1}'
            peer.sendall(b'\0\x0b{"data": 5}')

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.to_thread.run_sync(serve)
    assert answers == [5]


async def test_sendasync_checks_and_translates(home: Path) -> None:
    with pytest.raises(WazuhInternalError, match=r"Error 1012 .*schema"):
        await wazuh_sendasync("remoted", {"version": "x"}, home=home)
    with pytest.raises(WazuhInternalError, match="Error 1013"):
        await wazuh_sendasync("remoted", {"command": "x"}, home=home)
    for message in (None, {1}):
        with pytest.raises(WazuhInternalError) as caught:
            await wazuh_sendasync("remoted", message, home=home)
        assert caught.value.code in (1012, 1014)


def test_sendasync_needs_trio() -> None:
    with pytest.raises(TrioOnly, match=r"^wazuh_sendasync needs trio, and this is asyncio: .*await wazuh_sendsync$"):
        asyncio.run(wazuh_sendasync("remoted", {}))


Runner = Callable[..., Any]


def on_trio(*args: Any, **options: Any) -> Any:
    async def main() -> Any:
        return await wazuh_sendsync(*args, **options)

    return trio.run(main)


def on_asyncio(*args: Any, **options: Any) -> Any:
    return asyncio.run(wazuh_sendsync(*args, **options))


@pytest.fixture(params=[on_trio, on_asyncio])
def run(request: pytest.FixtureRequest) -> Runner:
    runner: Runner = request.param
    return runner


def test_sendsync(home: Path, run: Runner) -> None:
    with answering(home / "queue/db/wdb", b"ok text\0") as seen:
        assert run("wazuh-db", "agent 001 package get", home=home) == "ok text"
    assert seen == [b"agent 001 package get"]
    with answering(home / "queue/sockets/remote", b'{"error":9}') as seen:
        assert run(daemon_name="remoted", message={"command": "x"}, home=home) == '{"error":9}'
    assert json.loads(seen[0]) == {"command": "x"}


@pytest.mark.usefixtures("own_registry")
def test_sendsync_with_another_header(home: Path, run: Runner) -> None:
    register_daemon(Daemon("mine", ("mine",), header_format=">H"))
    with listening(home / "mine") as server:
        thread = threading.Thread(target=lambda: server.accept().sendall(b"\0\x02ok"))
        thread.start()
        assert run("mine", "x", home=home) == "ok"
        thread.join()


def test_sendsync_validates_what_carries_a_version(home: Path, run: Runner) -> None:
    with pytest.raises(WazuhInternalError, match=r"Error 1012 .*schema"):
        run("remoted", {"version": "x"}, home=home)
    message = {"version": 1, "origin": {"module": "m"}, "command": "c", "parameters": {}}
    with answering(home / "queue/sockets/com", b"[]"), pytest.raises(AnswerInvalid, match="Error 1014"):
        run("com", message, home=home)


def test_errors_of_sendsync(home: Path, run: Runner) -> None:
    for arguments in ((), ("remoted",), ("unknown", "x"), (5, "x"), (["remoted"], "x")):
        with pytest.raises(SendSyncError, match="Error 1014") as caught:
            run(*arguments, home=home)
        assert isinstance(caught.value, WazuhInternalError)
        assert isinstance(caught.value, WazuhError)
    with pytest.raises(WazuhInternalError, match="Error 1013"):
        run("remoted", "x", home=home)
    with answering(home / "queue/sockets/remote", None), pytest.raises(WazuhError, match="Error 1014"):
        run("remoted", "x", home=home)
    with answering(home / "queue/sockets/remote", b"a\xffb"):
        assert run("remoted", "x", home=home) == "a\ufffdb"
    with listening(home / "queue/sockets/com"), pytest.raises(SocketTimeout):
        run("com", "x", home=home, timeout=0.01)


async def test_sendasync_takes_no_part_for_the_whole(home: Path) -> None:
    model = WazuhDBModel(page_rows=2)
    for number in range(1, 6):
        model.add_agent(number, f"agent-{number}")
    async with open_fake_daemon("wazuh-db", model, home=home):
        assert await wazuh_sendasync("wazuh-db", "global find-group default", home=home) == [{"id": 1}]
        with pytest.raises(AnswerInvalid, match=r"Error 1014 .*more follows"):
            await wazuh_sendasync("wazuh-db", "global get-all-agents last_id 0", home=home)
        assert await wazuh_sendasync("wazuh-db", "global get-all-agents last_id 3", home=home) == [{"id": 4}, {"id": 5}]


async def test_sendsync_cancelled_on_trio(home: Path) -> None:
    with listening(home / "queue/sockets/com") as server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: wazuh_sendsync("com", "x", home=home))
            peer = await trio.to_thread.run_sync(server.accept)
            assert await trio.to_thread.run_sync(receive_frame, peer) == b"x"
            nursery.cancel_scope.cancel()
        assert nursery.cancel_scope.cancelled_caught
        # The thread ends by itself, and its end of the connection is closed.
        assert await trio.to_thread.run_sync(peer.recv, 1) == b""


def test_sendsync_cancelled_on_asyncio(home: Path) -> None:
    async def main() -> bytes:
        with listening(home / "queue/sockets/com") as server:
            task = asyncio.create_task(wazuh_sendsync("com", "x", home=home))
            peer = await asyncio.to_thread(server.accept)
            assert await asyncio.to_thread(receive_frame, peer) == b"x"
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return await asyncio.to_thread(peer.recv, 1)

    assert asyncio.run(main()) == b""
