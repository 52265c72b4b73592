"""The cluster example: two nodes exchange messages and send files, over TCP and TLS, and over any trio stream."""

from __future__ import annotations

import importlib.util
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import pytest
import trio
import trio.testing
import trustme

from wazuh_comms_trio.transport import WazuhAsyncProtocol

EXAMPLE = Path(__file__).parents[3] / "docs/examples/cluster.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cluster_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cluster: Any = load()


def names_in(folder: Path) -> list[str]:
    return sorted(found.name for found in folder.iterdir())


Connect: TypeAlias = Callable[[Any], Any]


@asynccontextmanager
async def over_memory(node: Any) -> AsyncIterator[trio.abc.Stream]:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery, ours:
        nursery.start_soon(node.serve, theirs)
        yield ours
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def over_tcp(node: Any) -> AsyncIterator[trio.abc.Stream]:
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, node.serve, 0, host="127.0.0.1"))
        async with await trio.testing.open_stream_to_socket_listener(listener) as stream:
            yield stream
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def over_tls(node: Any) -> AsyncIterator[trio.abc.Stream]:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    client = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    for context, name in ((server, "localhost"), (client, "node-a")):
        authority.configure_trust(context)
        authority.issue_cert(name).configure_cert(context)
    server.verify_mode = ssl.CERT_REQUIRED
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_ssl_over_tcp, node.serve, 0, server, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        stream = await trio.testing.open_stream_to_socket_listener(listener.transport_listener)
        async with stream:
            yield trio.SSLStream(stream, client, server_hostname="localhost")
        nursery.cancel_scope.cancel()


@pytest.fixture(params=[over_memory, over_tcp, over_tls])
async def peer(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    async with (
        request.param(cluster.Node("node-b", tmp_path)) as stream,
        cluster.connect_protocol(stream) as connection,
    ):
        yield cluster.Peer("node-a", connection)


async def test_messages(peer: Any) -> None:
    assert await peer.ask("hello") == {"node": "node-b", "to": "node-a"}
    with pytest.raises(RuntimeError, match="unknown command nonsense"):
        await peer.ask("nonsense")
    assert await peer.ask("hello") == {"node": "node-b", "to": "node-a"}


@pytest.mark.parametrize("size", [1, 1024 * 1024, 3 * 1024 * 1024 + 17])
async def test_file(peer: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, size: int) -> None:
    path = tmp_path_factory.mktemp("source") / "rules.bin"
    path.write_bytes(bytes(number % 251 for number in range(997)) * (size // 997 + 1))
    with path.open("r+b") as file:
        file.truncate(size)
    assert await peer.send_file(path) == {"name": "rules.bin"}
    assert (tmp_path / "rules.bin").read_bytes() == path.read_bytes()
    assert await peer.ask("hello") == {"node": "node-b", "to": "node-a"}
    assert names_in(tmp_path) == ["rules.bin"], "nothing else is left"


async def test_file_that_changed_on_its_way(peer: Any, tmp_path: Path) -> None:
    await peer.ask("file", {"name": "x", "bytes": 4, "sha256": "0" * 64})
    with pytest.raises(RuntimeError, match="SHA-256 differs"):
        peer._data(await peer.connection.request(b"1234"))
    assert names_in(tmp_path) == []
    assert await peer.ask("hello") == {"node": "node-b", "to": "node-a"}


async def test_file_longer_than_announced(peer: Any, tmp_path: Path) -> None:
    await peer.ask("file", {"name": "x", "bytes": 1, "sha256": "0" * 64})
    with pytest.raises(RuntimeError, match="more bytes"):
        peer._data(await peer.connection.request(b"12"))
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc/passwd"])
async def test_names_that_leave_the_folder(peer: Any, tmp_path: Path, name: str) -> None:
    with pytest.raises(RuntimeError, match="no file's name"):
        await peer.ask("file", {"name": name, "bytes": 1, "sha256": "0" * 64})
    assert names_in(tmp_path) == []


async def test_client_that_leaves_inside_a_file(tmp_path: Path) -> None:
    async with (
        over_memory(cluster.Node("node-b", tmp_path)) as stream,
        cluster.connect_protocol(stream) as connection,
    ):
        await cluster.Peer("a", connection).ask("file", {"name": "x", "bytes": 9, "sha256": ""})
    assert names_in(tmp_path) == []


async def test_nodes_that_both_ask(tmp_path: Path) -> None:
    """Each of two nodes serves the other; their questions cross."""
    nodes = {name: cluster.Node(name, tmp_path) for name in ("a", "b")}
    answers: dict[str, Any] = {}

    async def ask(me: str, other: str) -> None:
        async with over_tcp(nodes[other]) as stream, cluster.connect_protocol(stream) as connection:
            for _ in range(20):
                answers[me] = await cluster.Peer(me, connection).ask("hello")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, "a", "b")
        nursery.start_soon(ask, "b", "a")
    assert answers == {"a": {"node": "b", "to": "a"}, "b": {"node": "a", "to": "b"}}


async def test_what_is_no_frame_ends_that_connection_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node = cluster.Node("node-b", tmp_path)
    for garbage in (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x04\0\0\0oops", b"\x02\0\0\0[]"):
        async with over_tcp(node) as stream:
            await stream.send_all(garbage)
            assert await stream.receive_some() == b""
    assert capsys.readouterr().out.count("a connection ended") == 4


@pytest.mark.parametrize(
    "parameters",
    [
        {"name": "folder", "bytes": 1, "sha256": sha256(b"x").hexdigest()},
        {"name": "n" * 300, "bytes": 1, "sha256": sha256(b"x").hexdigest()},
        {"name": "x\0", "bytes": 1, "sha256": sha256(b"x").hexdigest()},
        {"name": "x", "bytes": 0, "sha256": sha256(b"").hexdigest()},
        {"name": "x", "bytes": -1, "sha256": ""},
        {"name": "x", "bytes": "1", "sha256": ""},
        {"name": 5, "bytes": 1, "sha256": ""},
        {},
    ],
)
async def test_a_file_that_cannot_be_kept_harms_nobody_else(tmp_path: Path, parameters: dict[str, Any]) -> None:
    (tmp_path / "folder").mkdir()
    node = cluster.Node("node-b", tmp_path)
    async with over_tcp(node) as stream, over_tcp(node) as other:
        async with cluster.connect_protocol(stream) as connection:
            peer = cluster.Peer("a", connection)

            async def send_it() -> None:
                await peer.ask("file", parameters)
                peer._data(await connection.request(b"x"))

            with pytest.raises((RuntimeError, trio.BrokenResourceError)):
                await send_it()
        async with cluster.connect_protocol(other) as connection:
            assert await cluster.Peer("b", connection).ask("hello") == {"node": "node-b", "to": "b"}
    assert names_in(tmp_path) == ["folder"]


async def test_messages_that_go_too_far_harm_nobody_else(tmp_path: Path) -> None:
    node = cluster.Node("node-b", tmp_path)
    for message in (b"[" * 100_000, b'{"command": "%b"}' % (b"x" * 1_000_000), b'{"command": "hello", "origin": []}'):
        async with over_tcp(node) as stream, cluster.connect_protocol(stream) as connection:
            with suppress(trio.BrokenResourceError):
                assert b"unknown command" in await connection.request(message)


async def test_other_programs_may_speak_to_a_node(tmp_path: Path) -> None:
    """The frames are Wazuh's: a plain protocol object gets along."""
    async with over_tcp(cluster.Node("node-b", tmp_path)) as stream, WazuhAsyncProtocol(stream) as connection:
        answer = await connection.request(b'{"version": 1, "command": "hello", "origin": {"name": "c"}}')
        assert b'"to": "c"' in answer


async def test_as_a_program(tmp_path: Path) -> None:
    source = tmp_path / "sent.txt"
    source.write_text("content")
    folder = tmp_path / "folder"
    folder.mkdir()
    async with over_listener(cluster.Node("node-b", folder)) as port:
        command = [sys.executable, str(EXAMPLE), "send", "127.0.0.1", str(port), str(source)]
        done = await trio.run_process(command, capture_stdout=True, check=True)
    assert done.stdout.decode().splitlines() == ["{'node': 'node-b', 'to': 'node-a'}", "{'name': 'sent.txt'}"]
    assert (folder / "sent.txt").read_text() == "content"


@asynccontextmanager
async def over_listener(node: Any) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, node.serve, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()
