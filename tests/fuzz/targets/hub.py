"""The link between supervisor and workers: a peer of another version, or one that sends anything, breaks the link and
nothing else."""

from __future__ import annotations

import json

from tests.fuzz.target import Target, in_pieces
from tests.fuzz.targets.http import now
from wazuh_comms_trio.daemon.supervisor.link import Link, LinkBroken
from wazuh_comms_trio.daemon.supervisor.messages import Message, Unknown, decode, encode
from wazuh_comms_trio.wire.framing import encode_frame

__all__ = ["TARGETS"]


class Pieces:
    """The receiving half of a stream."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


def received(pieces: list[bytes]) -> list[Message | Unknown]:
    link = Link(Pieces(pieces))  # type: ignore[arg-type]  # all of a stream that is used
    found = []
    while True:
        try:
            found.append(now(link.receive()))
        except LinkBroken as error:
            assert str(error)  # it is logged
            return found


def check_message(data: bytes) -> None:
    """A message as JSON."""
    if not data:
        return
    for message in received([encode_frame(data)]):
        if isinstance(message, Message):
            again = decode(json.loads(json.dumps(encode(message))))
            assert json.dumps(encode(message)) == json.dumps(encode(again)) if isinstance(again, Message) else False


def check_stream(data: bytes) -> None:
    whole = received([data] if data else [])
    assert repr(received(in_pieces(data))) == repr(whole)


MESSAGES = (
    b'{"type":"ready","public_key":"x","pid":5,"duty":true}',
    b'{"type":"stop","spread":1.5,"grace":null}',
    b'{"type":"revoke","keys":{"a":1e9}}',
    b'{"type":"post","number":1,"commands":[{"a":[1,"x"]}],"delivered":{"c":2.5},"seconds":3}',
    b'{"type":"posted","number":1,"error":"no"}',
    b'{"type":"hold","commands":[{}],"seconds":1}',
    b'{"type":"finding","topic":"t","finding":{"a":null}}',
    b'{"type":"duty","on":true}',
    b'{"type":"config","file":"f","text":"t","listeners":{"api":[3],"enrollment":[]},"materials":{},'
    b'"earlier":{"public_keys":[],"seconds":1}}',
    b'{"type":"tomorrow\'s","x":1}',
)
WORDS = (
    b'"type":"granted"',
    b'"ids":["a"]',
    b"[" * 3000,
    b"NaN",
    b"1e999",
    b"9" * 5000,
    b'"\\ud800"',
    b"null",
    b"\xff",
)
TARGETS = {
    "hub": Target(check_message, MESSAGES, WORDS, longest=6000, cases=1500),
    "hub-stream": Target(
        check_stream,
        (
            b"".join(map(encode_frame, MESSAGES)),
            encode_frame(MESSAGES[0]) + encode_frame(b"{}"),
            encode_frame(b"[" * 5000),
        ),
        (b"\0\0\0\0", b"\1\0\0\0", encode_frame(MESSAGES[1]), encode_frame(b"null")),
        longest=6000,
        cases=250,
    ),
}
