"""Commands that are posted: read, written and read again they are the same, on their way through the hub, too."""

from __future__ import annotations

import json

from tests.fuzz.target import Target
from wazuh_comms_trio.daemon.supervisor.messages import Post, decode, encode
from wazuh_comms_trio.errors import MalformedRequest
from wazuh_comms_trio.services.commands.command_json import decode_commands, encode_command, encode_commands

__all__ = ["TARGETS"]


def check(data: bytes) -> None:
    try:
        commands = decode_commands(data)
    except MalformedRequest as error:
        assert str(error)  # a sentence for the poster
        return
    written = encode_commands(commands)
    assert decode_commands(written) == commands
    assert [encode_command(command) for command in commands] == json.loads(written)["commands"]
    assert [command.document_id for command in commands] == [
        command["document_id"] for command in json.loads(data)["commands"]
    ]
    post = Post(number=1, commands=json.loads(written)["commands"], delivered={})
    passed = decode(json.loads(json.dumps(encode(post))))
    assert isinstance(passed, Post)
    assert decode_commands(json.dumps({"commands": passed.commands}).encode()) == commands


_COMMAND = (
    b'{"document_id":"c1","request_id":"r","order_id":"o","source":"s","user":"u","target":{"type":"agent","id":"A1"},'
    b'"action":{"name":"set-group","version":"v5.0.0","args":{"groups":["web"],"n":1.5}},"timeout":100,"status":"pending",'
    b'"result":{"code":0,"message":"m","data":[1]}}'
)
COMMANDS = Target(
    check,
    (
        b'{"commands":[' + _COMMAND + b"]}",
        b'{"commands":[{"document_id":"\\u00e9","target":{"type":"group","id":"all"},"action":{"name":"restart"}}]}',
        b'{"commands":[],"more":1}',
        b'{"commands":['
        + _COMMAND.replace(b'{"groups":["web"],"n":1.5}', b'{"a":%b}' % (b"[" * 30 + b"]" * 30))
        + b"]}",
    ),
    (
        b'"args":{"a":',
        b"1e400",
        b"-0",
        b"1" * 30,
        b"0.1e-400",
        b'"\\ud800"',
        b"null",
        b"NaN",
        b"[" * 900,
        b"\\u0000",
        b"\xff",
    ),
    longest=5000,
    cases=4000,
)

TARGETS = {"commands": COMMANDS}
