"""Frames: the same however they are cut, what a few lines of Python make of them, and back to the same bytes."""

from __future__ import annotations

from collections.abc import Sequence

from tests.fuzz.target import Target, in_pieces
from wazuh_comms_trio.errors import EmptyFrame, FrameTooLarge, PeerClosed, TruncatedFrame
from wazuh_comms_trio.wire.framing import HEADER, FrameDecoder, encode_frame

__all__ = ["TARGETS"]

LIMIT = 100_000


def read(pieces: Sequence[bytes]) -> tuple[list[bytes], str]:
    decoder, found, total = FrameDecoder(LIMIT), [], sum(map(len, pieces))
    try:
        for piece in (*pieces, b""):
            decoder.feed(piece)
            assert decoder.read_size() > 0
            while (frame := decoder.next_frame()) is not None:
                found.append(frame)
            assert decoder.buffered <= total
    except (EmptyFrame, FrameTooLarge, TruncatedFrame, PeerClosed) as error:
        kind = type(error)
        assert decoder.finished is False
        for _ in range(2):  # from then on it says the same
            try:
                decoder.next_frame()
            except kind as again:
                assert str(again) == str(error)
            else:
                raise AssertionError("it went on") from error
        return found, kind.__name__
    raise AssertionError("the end of the stream wasn't told")


def reference(data: bytes) -> tuple[list[bytes], str]:
    found = []
    while len(data) >= 4:
        size = int.from_bytes(data[:4], "little")
        if size == 0:
            return found, "EmptyFrame"
        if size > LIMIT:
            return found, "FrameTooLarge"
        if len(data) < 4 + size:
            return found, "TruncatedFrame"
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found, "TruncatedFrame" if data else "PeerClosed"


def check(data: bytes) -> None:
    expected = reference(data)
    for pieces in ([data] if data else [], in_pieces(data), [data[at : at + 5000] for at in range(0, len(data), 5000)]):
        assert read(pieces) == expected
    frames = expected[0]
    sent = b"".join(encode_frame(frame, limit=LIMIT) for frame in frames)
    assert data.startswith(sent)


FRAMES = Target(
    check,
    (
        encode_frame(b"ok") + encode_frame(b"x" * 300),
        encode_frame(b"y" * 3000) + encode_frame(b"{}") + b"\1\0",
        encode_frame(b"z" * 40_000) + encode_frame(b"!"),
        b"HTTP/1.1 400 Bad Request\r\n",
        HEADER.pack(0),
    ),
    (HEADER.pack(0), HEADER.pack(1), HEADER.pack(2048), HEADER.pack(LIMIT), HEADER.pack(LIMIT + 1)),
    longest=50_000,
    cases=300,
)

TARGETS = {"frames": FRAMES}
