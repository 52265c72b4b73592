"""Finding out which release runs: by the home, by sockets, by a question, in this order; and never by writing."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.transport.peers import Listening, listening, receive_frame
from wazuh_comms_trio.testing import (
    AgentTasksModel,
    KeystoreModel,
    TaskManagerModel,
    WazuhDBModel,
    open_fake_daemon,
)
from wazuh_comms_trio.transport import (
    WazuhDBClient,
    WazuhServer,
    open_pool,
    open_server,
    open_wazuh_db,
    release_of,
    wazuh_sendasync,
    wazuh_sendsync,
)
from wazuh_comms_trio.transport.releases import detect
from wazuh_comms_trio.transport.releases.detect import default_home, detect_release


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "_known", {})
    monkeypatch.delenv("WAZUH_MANAGER_HOME", raising=False)


def put(home: Path, *names: str) -> None:
    for name in names:
        place = home / "queue" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()


@pytest.mark.parametrize(
    ("sockets", "group"),
    [
        ((), "A"),
        (("sockets/auth", "alerts/ar", "db/wdb"), "A"),
        (("sockets/wdb-http.sock", "alerts/ar"), "C"),
        (("sockets/wdb-http.sock", "sockets/queue-http.sock"), "alpha"),
        (("sockets/keystore", "alerts/ar", "sockets/wdb-http.sock"), "E"),
        (("sockets/keystore", "sockets/ar"), "F"),
        (("sockets/modulesd",), "F"),
        (("sockets/vd.sock", "sockets/ar"), "G"),
        (("sockets/inventory-sync.sock",), "G"),
        (("sockets/inventory-sync-http.sock",), "G"),
        (("sockets/remoted-module.sock",), "G"),
    ],
)
def test_sockets_that_are_there(home: Path, sockets: tuple[str, ...], group: str) -> None:
    put(home, *sockets)
    assert detect_release(home, probe=False).group == group


def test_the_home_says_5(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = home / "wazuh-manager"
    named.mkdir()
    assert detect_release(named, probe=False).group == "E"
    assert detect_release(home, probe=False).group == "A"
    monkeypatch.setenv("WAZUH_MANAGER_HOME", str(home))
    assert default_home() == str(home)
    assert detect_release(probe=False).group == "E"
    put(home, "sockets/wdb-http.sock")
    assert detect_release(home, probe=False).group == "E", "sockets never lower it"


def test_what_was_seen_isnt_lowered(home: Path) -> None:
    put(home, "sockets/vd.sock")
    assert detect_release(home, probe=False).group == "G"
    (home / "queue/sockets/vd.sock").unlink()
    assert detect_release(home, probe=False).group == "G"
    assert detect_release(home, probe=False, remember=False).group == "A"


@contextmanager
def answering(path: Path, answer: bytes, asked: list[bytes]) -> Iterator[None]:
    with listening(path) as server:
        thread = threading.Thread(target=_answer, args=(server, answer, asked))
        thread.start()
        yield
        thread.join()


def _answer(server: Listening, answer: bytes, asked: list[bytes]) -> None:
    peer = server.accept()
    if "http" in server.path:
        data = b""
        while b"\r\n\r\n" not in data:
            data += peer.recv(4096)
        asked.append(data.split(b"\r\n")[0])
    else:
        asked.append(receive_frame(peer))
    peer.sendall(answer)
    peer.close()


@pytest.mark.parametrize(("status", "group"), [(b"404 Not Found", "G"), (b"200 OK", "C"), (b"503 Busy", "C")])
def test_a_question_over_http(home: Path, status: bytes, group: str) -> None:
    asked: list[bytes] = []
    answer = b"HTTP/1.1 %b\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]" % status
    with answering(home / "queue/sockets/wdb-http.sock", answer, asked):
        assert detect_release(home).group == group
    assert asked == [b"GET /v1/agents/ids HTTP/1.1"]


@pytest.mark.parametrize(
    ("answer", "floor", "group"),
    [
        ({"error": "parsing_error", "message": "x"}, "x", "G"),
        ({"error": 1, "message": "x", "data": []}, "x", "A"),
        ({"error": 1, "message": "x", "data": []}, "wazuh-manager", "E"),
        ([], "x", "A"),
    ],
)
def test_a_question_to_the_task_manager(home: Path, answer: object, floor: str, group: str) -> None:
    asked: list[bytes] = []
    text = json.dumps(answer).encode()
    with answering(home / floor / "queue/tasks/task", struct.pack("<I", len(text)) + text, asked):
        assert detect_release(home / floor).group == group
    assert asked == [b'{"action":"?"}'], "nothing that any release acts upon"


@pytest.mark.parametrize("answer", [b"", b"\xff\xff\xff\xff", b"\x02\0\0\0{]", b"garbage"])
def test_an_answer_that_tells_nothing(home: Path, answer: bytes) -> None:
    with answering(home / "queue/tasks/task", answer, []):
        assert detect_release(home).group == "A"


def test_nobody_answers(home: Path) -> None:
    with listening(home / "queue/tasks/task"):
        assert detect_release(home, timeout=0.05).group == "A"


def test_auto_of_a_call(home: Path) -> None:
    from wazuh_comms_trio.transport.switches import locate, resolve

    put(home, "sockets/keystore")
    release, place = locate("auto", home)
    assert (release and release.group, place) == ("E", str(home))
    assert locate("5.0.0", home)[0] != release, "an explicit argument wins"
    assert resolve("wazuh-db", "auto", home).daemon.paths == ("queue/db/wdb",)


@pytest.mark.parametrize("release", ["4.7.5", "5.0.0-beta1", "5.0.0"])
async def test_auto_of_every_kind_of_call(home: Path, release: str) -> None:
    """Against that release's fakes: their own answers tell."""
    from contextlib import AsyncExitStack

    import trio

    group = release_of(release).group
    told: dict[str, Any] = {"home": home, "release": "auto"}
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(open_fake_daemon("wazuh-db", WazuhDBModel(), home=home, release=release))
        if group == "G":
            tasks = open_fake_daemon("task-manager", AgentTasksModel(), home=home, release=release)
            await stack.enter_async_context(tasks)
        else:
            await stack.enter_async_context(
                open_fake_daemon("task-manager", TaskManagerModel(), home=home, release=release)
            )
        if group == "E":
            await stack.enter_async_context(open_fake_daemon("keystore", KeystoreModel(), home=home, release=release))
        async with open_server(**told) as server:
            assert server.release.group == group
        async with open_wazuh_db(**told) as db:
            assert await db.query("global find-group default") == [{"id": 1}]
        async with open_pool("wazuh-manager-db", **told) as pool:
            assert await pool.request("global find-group default") == 'ok [{"id":1}]'
        assert await wazuh_sendasync("wazuh-db", "global find-group default", **told) == [{"id": 1}]
        assert await wazuh_sendsync("wazuh-db", "global find-group default", **told) == 'ok [{"id":1}]'

        def plain() -> Any:
            with WazuhServer(**told) as found, WazuhDBClient(**told) as db:
                return found.release.group, db.query("global find-group default")

        assert await trio.to_thread.run_sync(plain) == (group, [{"id": 1}])
