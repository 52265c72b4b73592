"""Frames: any cut of the input gives the same output, and every way to be wrong has its own error."""

from __future__ import annotations

import struct
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wazuh_comms_trio.errors import (
    EmptyFrame,
    FrameTooLarge,
    PayloadTooLarge,
    PeerClosed,
    TruncatedFrame,
    WazuhError,
    WazuhException,
    WazuhInternalError,
)
from wazuh_comms_trio.wire.framing import (
    HEADER,
    MAX_RECEIVE_BYTES,
    MAX_SEND_BYTES,
    FrameDecoder,
    encode_frame,
    encode_payload,
    header_struct,
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(places)]


def decode(chunks: list[bytes], limit: int = MAX_RECEIVE_BYTES, *, lazily: bool = False) -> list[bytes | type]:
    """Payloads, then the class of the error that ends every stream. ``lazily``: feed everything before asking."""
    decoder = FrameDecoder(limit)
    out: list[bytes | type] = []
    if lazily:
        for chunk in chunks:
            decoder.feed(chunk)
        chunks = []
    try:
        for chunk in [*chunks, b""]:
            if chunk or not lazily:
                decoder.feed(chunk)
            while (frame := decoder.next_frame()) is not None:
                out.append(frame)
        decoder.feed(b"")
        while True:
            frame = decoder.next_frame()
            assert frame is not None
            out.append(frame)
    except WazuhError as exc:
        assert exc.code == 1014  # noqa: PT017 -- either outcome is right
        out.append(type(exc))
    return out


payloads = st.lists(st.binary(min_size=1, max_size=5000), max_size=8)
cuts = st.lists(st.integers(min_value=0), max_size=40)


@given(payloads, cuts, st.booleans())
def test_any_cut_gives_the_same_frames(frames: list[bytes], cuts: list[int], lazily: bool) -> None:
    data = b"".join(map(encode_frame, frames))
    assert decode(pieces(data, cuts), lazily=lazily) == [*frames, PeerClosed]


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=4), st.booleans())
def test_byte_by_byte(frames: list[bytes], lazily: bool) -> None:
    data = b"".join(map(encode_frame, frames))
    assert decode([data[i : i + 1] for i in range(len(data))], lazily=lazily) == [*frames, PeerClosed]


@given(st.binary(max_size=300), cuts, st.booleans())
def test_any_bytes_end_the_same_way_however_cut(data: bytes, cuts: list[int], lazily: bool) -> None:
    assert decode(pieces(data, cuts), limit=100, lazily=lazily) == decode([data], limit=100)


@given(payloads.filter(bool), cuts, st.data())
def test_an_end_inside_a_frame_is_named(frames: list[bytes], cuts: list[int], data: st.DataObject) -> None:
    whole = b"".join(map(encode_frame, frames))
    last = len(encode_frame(frames[-1]))
    end = len(whole) - data.draw(st.integers(1, last - 1))
    assert decode(pieces(whole[:end], cuts)) == [*frames[:-1], TruncatedFrame]


def test_frames_before_a_wrong_one_are_handed_out() -> None:
    good = encode_frame(b"good")
    assert decode([good + b"\0\0\0\0" + good]) == [b"good", EmptyFrame]
    assert decode([good + struct.pack("<I", 101) + b"x"], limit=100) == [b"good", FrameTooLarge]
    assert decode([good + struct.pack("<I", 100) + bytes(100)], limit=100) == [b"good", bytes(100), PeerClosed]


def test_texts_say_what_happened() -> None:
    decoder = FrameDecoder()
    decoder.feed(encode_frame(b"0123456789")[:7])
    decoder.feed(b"")
    with pytest.raises(TruncatedFrame, match=r"inside a frame: 7 of 14 bytes came"):
        decoder.next_frame()
    decoder = FrameDecoder(10)
    decoder.feed(struct.pack("<I", 11))
    with pytest.raises(FrameTooLarge, match=r"a frame of 11 bytes, at most 10 are taken"):
        decoder.next_frame()


def test_an_error_is_final() -> None:
    decoder = FrameDecoder()
    decoder.feed(b"\0\0\0\0" + encode_frame(b"later"))
    for _ in range(2):
        with pytest.raises(EmptyFrame):
            decoder.next_frame()
    assert not decoder.finished


def test_state_is_visible() -> None:
    decoder = FrameDecoder()
    decoder.feed(encode_frame(b"abc") + b"\x05\0\0\0d")
    assert (decoder.buffered, decoder.at_eof) == (12, False)
    assert decoder.next_frame() == b"abc"
    assert decoder.next_frame() is None
    assert decoder.missing() == 4
    assert repr(decoder) == "<FrameDecoder: 5 bytes buffered>"
    assert decoder.take_raw() == b"\x05\0\0\0d"
    assert decoder.take_raw() == b""
    decoder.feed(b"")
    assert decoder.finished


@given(st.binary(min_size=1, max_size=10_000), cuts)
def test_raw_bytes_come_out_as_they_went_in(data: bytes, cuts: list[int]) -> None:
    decoder = FrameDecoder()
    for piece in pieces(data, cuts):
        decoder.feed(piece)
    assert decoder.take_raw() == data


def test_other_headers() -> None:
    decoder = FrameDecoder()
    decoder.feed(encode_frame(b"one", ">H") + encode_frame(b"two") + encode_frame(b"three", "<Q"))
    assert decoder.next_frame(header_struct(">H")) == b"one"
    assert decoder.next_frame(HEADER) == b"two"
    assert decoder.next_frame(header_struct("<Q", 8)) == b"three"


@pytest.mark.parametrize("header_format", ["nonsense", "", "<II", "4s", "<f", "?", "x"])
def test_what_is_no_header(header_format: str) -> None:
    with pytest.raises(WazuhError, match=r"Error 1014 .*is no header"):
        header_struct(header_format)


def test_a_header_of_another_length_than_told() -> None:
    with pytest.raises(WazuhError, match=r"has 4 bytes, not 2"):
        header_struct("<I", 2)


@pytest.mark.parametrize("size", [1, 65535, 65536])
def test_what_daemons_read_is_sent(size: int) -> None:
    assert encode_frame(bytes(size)) == struct.pack("<I", size) + bytes(size)


def test_what_daemons_do_not_read_is_refused() -> None:
    with pytest.raises(PayloadTooLarge, match=r"Error 1012 .* 65537 bytes, at most 65536") as caught:
        encode_frame(bytes(MAX_SEND_BYTES + 1))
    assert isinstance(caught.value, WazuhInternalError)
    with pytest.raises(PayloadTooLarge, match=r"more than a header"):
        encode_frame(bytes(65536), "<H")


@pytest.mark.parametrize("payload", ["text", bytearray(b"x"), memoryview(b"x"), None, 1, {"a": 1}])
@pytest.mark.parametrize("header_format", ["<I", None])
def test_a_payload_is_bytes(payload: object, header_format: str | None) -> None:
    with pytest.raises(WazuhException, match=r"^Error 1105 - Type must be bytes$") as caught:
        encode_payload(payload, header_format)  # type: ignore[arg-type]
    assert caught.value.code == 1105


@pytest.mark.parametrize("header_format", ["<I", None])
def test_an_empty_payload_is_refused(header_format: str | None) -> None:
    with pytest.raises(WazuhError, match=r"Error 1014 .*empty"):
        encode_payload(b"", header_format)


def test_without_a_header_there_is_no_limit() -> None:
    assert encode_payload(bytes(70_000), None) == bytes(70_000)


def test_memory_grows_with_bytes_that_came_and_not_with_those_announced() -> None:
    tracemalloc.start()
    try:
        decoder = FrameDecoder()
        decoder.feed(struct.pack("<I", MAX_RECEIVE_BYTES) + b"x" * 100)
        assert decoder.next_frame() is None
        assert tracemalloc.get_traced_memory()[1] < 100_000
        # Even a peer that sends two bytes at a time costs little more than its bytes.
        for _ in range(100_000):
            decoder.feed(b"ab")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_an_http_answer_where_frames_were_expected() -> None:
    decoder = FrameDecoder()
    decoder.feed(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(FrameTooLarge, match="it speaks HTTP"):
        decoder.next_frame()
