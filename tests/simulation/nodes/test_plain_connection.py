"""What reads the fakes' requests says what h11 says of them, however they are cut."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import h11
import pytest

from tests.simulation.nodes.plain_connection import PlainConnection

BODY = b'{"a":1}\n'
PLAIN = (
    b"POST /_bulk?x=%20 HTTP/1.1\r\nHost: 10.1.0.0:9200\r\nContent-Type: a/b; c=d\r\nContent-Length: 8\r\n\r\n" + BODY
)
EMPTY = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n" + BODY + b"\r\n0\r\n\r\n"
WRONG = [
    b"POST / HTTP/1.1\r\nContent-Length: 8\r\n\r\n" + BODY,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: eight\r\n\r\n" + BODY,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\nContent-Length: 9\r\n\r\n" + BODY,
    b"POST /\x01 HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n" + BODY,
    b"POST / HTTP/1.1\r\nHost a\r\nContent-Length: 8\r\n\r\n" + BODY,
    PLAIN[:-1],
    PLAIN[:40],
]


def told(connection: Any, pieces: Sequence[bytes], requests: int) -> list[object]:
    """What was read of so many requests, each of which is answered."""
    found: list[object] = []
    waiting = [*pieces, b""]
    try:
        while len(found) < 3 * requests:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(waiting.pop(0))
            elif isinstance(event, h11.Request):
                found += [(event.method, event.target, list(event.headers)), b""]
            elif isinstance(event, h11.Data):
                found[-1] += bytes(event.data)  # type: ignore[operator]
            elif isinstance(event, h11.EndOfMessage):
                found.append(answer(connection, 200, [("Content-Length", "2"), ("A", "b c")], b"{}"))
                connection.start_next_cycle()
            else:
                return [*found, "end"]
    except h11.RemoteProtocolError:
        found.append("an error")
    return found


def answer(connection: Any, status: int, headers: list[tuple[str, str]], body: bytes) -> bytes:
    if isinstance(connection, PlainConnection):
        return connection.answer(status, headers, body)
    sent = [h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()]
    return b"".join(connection.send(event) or b"" for event in sent)


def cut(data: bytes, rng: Random) -> list[bytes]:
    places = sorted(rng.choices(range(1, len(data)), k=rng.randrange(6)))
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True) if start < end]


@pytest.mark.parametrize(
    "stream", [PLAIN + EMPTY + PLAIN, PLAIN + CHUNKED + PLAIN, *WRONG, *(PLAIN + each for each in WRONG)]
)
def test_it_reads_what_h11_reads(stream: bytes) -> None:
    rng = Random(0)
    for _ in range(30):
        pieces = cut(stream, rng)
        assert told(PlainConnection(), pieces, 3) == told(h11.Connection(h11.SERVER), pieces, 3)
    assert told(PlainConnection(), [*map(bytes, zip(stream, strict=True))], 3) == told(PlainConnection(), [stream], 3)
