"""Two nodes that exchange messages and files in Wazuh's frames, over TCP or TLS.

    python cluster.py serve HOST PORT FOLDER                  # a node; files that it is sent go into FOLDER
    python cluster.py send  HOST PORT FILE                    # says hello to a node, then sends it a file

A connection has a client, which asks, and a server, which answers; nodes that both want to ask each open a connection.
With ``--cert``, ``--key`` and ``--ca`` (PEM files) both sides speak TLS and each demands the other's certificate:
without it anybody who reaches the port may send files.
"""

from __future__ import annotations

import argparse
import json
import ssl
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import trio

from wazuh_comms_trio.transport import WazuhAsyncProtocol, WazuhException, create_wazuh_socket_message

#: Between nodes frames may be larger than the daemons' 65536 bytes; both sides must agree.
FRAME_BYTES = 1024 * 1024


class Node:
    """The server's side: answers messages, takes files."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One connection, until its client ends it. What a client does wrong ends that client's connection only."""
        async with WazuhAsyncProtocol(stream, max_send_bytes=FRAME_BYTES, max_receive_bytes=FRAME_BYTES) as client:
            try:
                async for request in client.requests():
                    message = json.loads(request)
                    if message["command"] == "file":
                        answer = await self.take_file(client, message["parameters"])
                    else:
                        answer = self.answer(message)
                    await client.send_reply(json.dumps(answer).encode())
            except (WazuhException, OSError, ValueError, LookupError, TypeError, RecursionError) as error:
                print(f"{self.name}: a connection ended: {error!r}")

    def answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """What a message that is no file is answered with."""
        if message["command"] == "hello":
            return {"error": 0, "message": "ok", "data": {"node": self.name, "to": message["origin"]["name"]}}
        return {"error": 1, "message": f"unknown command {message['command']:.60}"}

    async def take_file(self, client: WazuhAsyncProtocol, about: Mapping[str, Any]) -> dict[str, Any]:
        """Frame after frame, each answered, into a new file that takes its name only when its SHA-256 is right."""
        name, missing = about["name"], about["bytes"]
        if Path(name).name != name or name in ("", ".", ".."):
            return {"error": 2, "message": f"{name!r:.60} is no file's name"}
        if not isinstance(missing, int) or missing < 1:
            return {"error": 2, "message": "a file has at least one byte"}
        await client.send_reply(b'{"error": 0, "message": "go on"}')
        digest = sha256()
        with NamedTemporaryFile(dir=self.folder, prefix=".incoming-") as file:
            while missing:
                chunk = await client.receive_request()
                if len(chunk) > missing:
                    return {"error": 3, "message": "more bytes than announced"}
                missing -= len(chunk)
                digest.update(chunk)
                file.write(chunk)
                if missing:  # the last one's answer says how all of it went
                    await client.send_reply(b'{"error": 0, "message": "go on"}')
            if digest.hexdigest() != about["sha256"]:
                return {"error": 4, "message": "the SHA-256 differs, the file was not kept"}
            file.flush()
            final = self.folder / name
            final.unlink(missing_ok=True)
            final.hardlink_to(file.name)
        return {"error": 0, "message": "ok", "data": {"name": name}}


class Peer:
    """The client's side of a connection to a node."""

    def __init__(self, name: str, connection: WazuhAsyncProtocol) -> None:
        self.name = name
        self.connection = connection

    async def ask(self, command: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """Send a message, return its answer's data. ``RuntimeError`` with the node's text when it refuses."""
        message = create_wazuh_socket_message({"name": self.name}, command, dict(parameters or {}))
        return self._data(await self.connection.request(json.dumps(message).encode()))

    async def send_file(self, path: Path) -> Any:
        """Send a file in frames; the node keeps it only if its SHA-256 is what ours is."""
        content = await trio.Path(path).read_bytes()
        if not content:
            raise ValueError(f"{path} is empty: there is no frame without a byte")
        about = {"name": path.name, "bytes": len(content), "sha256": sha256(content).hexdigest()}
        answer = await self.ask("file", about)
        for start in range(0, len(content), FRAME_BYTES):
            answer = self._data(await self.connection.request(content[start : start + FRAME_BYTES]))
        return answer

    def _data(self, answer: bytes) -> Any:
        reply = json.loads(answer)
        if reply["error"]:
            raise RuntimeError(f"error {reply['error']}: {reply['message']}")
        return reply.get("data")


def connect_protocol(stream: trio.abc.Stream) -> WazuhAsyncProtocol:
    """The client's protocol over a stream to a node."""
    return WazuhAsyncProtocol(stream, max_send_bytes=FRAME_BYTES, max_receive_bytes=FRAME_BYTES)


def tls_context(purpose: ssl.Purpose, arguments: argparse.Namespace) -> ssl.SSLContext:
    """TLS for one side, with its own certificate, demanding the other's."""
    context = ssl.create_default_context(purpose, cafile=arguments.ca)
    context.load_cert_chain(arguments.cert, arguments.key)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def serve(arguments: argparse.Namespace) -> None:
    node = Node("node-b", arguments.where)
    if arguments.cert:
        context = tls_context(ssl.Purpose.CLIENT_AUTH, arguments)
        await trio.serve_ssl_over_tcp(node.serve, arguments.port, context, host=arguments.host)
    else:
        await trio.serve_tcp(node.serve, arguments.port, host=arguments.host)


async def send(arguments: argparse.Namespace) -> None:
    stream: trio.abc.Stream
    if arguments.cert:
        context = tls_context(ssl.Purpose.SERVER_AUTH, arguments)
        stream = await trio.open_ssl_over_tcp_stream(arguments.host, arguments.port, ssl_context=context)
    else:
        stream = await trio.open_tcp_stream(arguments.host, arguments.port)
    async with connect_protocol(stream) as connection:
        peer = Peer("node-a", connection)
        print(await peer.ask("hello"))
        print(await peer.send_file(arguments.where))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("serve", "send"))
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("where", type=Path, metavar="FOLDER|FILE")
    for name in ("cert", "key", "ca"):
        parser.add_argument(f"--{name}", metavar="FILE")
    arguments = parser.parse_args()
    trio.run(serve if arguments.what == "serve" else send, arguments)


if __name__ == "__main__":
    main()
