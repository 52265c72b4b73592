"""Body framing, pure: whole, byte by byte, cut at random, with a tail, and everything that is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wazuh_comms_trio.errors import BodyTooLarge, MalformedRequest
from wazuh_comms_trio.http.server.framing.bodies import (
    LINE_LIMIT,
    MOST_CHUNKS,
    NO_BODY,
    BodyDecoder,
    ChunkedBody,
    LengthBody,
)

LIMIT = 1000


def chunked(pieces: list[bytes], extension: bytes = b"", trailers: bytes = b"") -> bytes:
    body = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces if piece)
    return body + b"0\r\n" + trailers + b"\r\n"


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def feed_all(decoder: BodyDecoder, pieces: list[bytes]) -> bytes:
    return b"".join(bytes(decoder.feed(piece)) for piece in pieces)


@given(st.binary(max_size=200), st.binary(max_size=50), st.lists(st.integers(0, 300), max_size=20))
def test_length_takes_what_is_its_own(body: bytes, tail: bytes, places: list[int]) -> None:
    decoder = LengthBody(len(body))
    assert feed_all(decoder, cut(body + tail, places)) == body
    assert decoder.complete
    assert (decoder.received, decoder.excess) == (len(body), len(tail))


@given(
    st.lists(st.binary(max_size=40), max_size=8),
    st.sampled_from([b"", b";name", b';a="b c"', b';a=b;c="\\"";d']),
    st.sampled_from([b"", b"x-checksum: 1\r\n", b"a:\r\nb: c\r\n"]),
    st.binary(max_size=30),
    st.lists(st.integers(0, 800), max_size=40),
)
def test_chunks_are_the_same_however_they_are_cut(
    pieces: list[bytes], extension: bytes, trailers: bytes, tail: bytes, places: list[int]
) -> None:
    data = chunked(pieces, extension, trailers)
    whole, cuts, bytewise = ChunkedBody(LIMIT), ChunkedBody(LIMIT), ChunkedBody(LIMIT)
    body = b"".join(pieces)
    assert feed_all(whole, [data + tail]) == body
    assert feed_all(cuts, cut(data + tail, places)) == body
    assert feed_all(bytewise, [bytes([byte]) for byte in data + tail]) == body
    for decoder in (whole, cuts, bytewise):
        assert decoder.complete
        assert (decoder.received, decoder.excess) == (len(body), len(tail))


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+5\r\n",
        b"0x5\r\nabcde\r\n",
        b" 5\r\nabcde\r\n",
        b"5\nabcde\r\n",
        b"5\r\nabcdeXX",
        b"5\r\nabcdefgh\r\n",
        b"5\r\nabcde\n0\r\n\r\n",
        b"5;\0\r\n",
        # What h11 takes and other readers of HTTP refuse.
        b"5 \r\nabcde\r\n",
        b"5\t\r\nabcde\r\n",
        b"5 ;a\r\nabcde\r\n",
        b"5;\r\nabcde\r\n",
        b"5;a=\r\nabcde\r\n",
        b"5;a b\r\nabcde\r\n",
        b'5;a="b\r\nabcde\r\n',
        b'5;a="b"c\r\nabcde\r\n',
        b"00000000000000005\r\nabcde\r\n",
        b"5;a\rb\r\n",
        b"ffffffffffffffff\r\n",
        b"f" * (LINE_LIMIT + 1),
        b"0" * (LINE_LIMIT + 1) + b"\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n: no name\r\n\r\n",
        b"0\r\na b: c\r\n\r\n",
        b"0\r\na: \0\r\n\r\n",
        b"0\r\nContent-Length: 5\r\n\r\n",
        b"0\r\na: b\r\ntransfer-encoding: chunked\r\n\r\n",
        b"0\r\n" + b"a: b\r\n" * 2000,
        b"0\r\na: " + b"b" * 9000,
    ],
)
@pytest.mark.parametrize("bytewise", [False, True])
def test_malformed_chunks_are_refused(data: bytes, bytewise: bool) -> None:
    decoder = ChunkedBody(LIMIT)
    pieces = [bytes([byte]) for byte in data] if bytewise else [data]
    with pytest.raises(MalformedRequest):
        feed_all(decoder, pieces)


@pytest.mark.parametrize("data", [b"3e9\r\n", b"3e8\r\n" + b"x" * 1000 + b"\r\n1\r\n", b"7fffffffffffffff\r\n"])
def test_chunks_above_the_limit_are_refused_before_their_data(data: bytes) -> None:
    with pytest.raises(BodyTooLarge):
        ChunkedBody(LIMIT).feed(data)


def test_a_body_of_exactly_the_limit_is_taken() -> None:
    decoder = ChunkedBody(LIMIT)
    assert decoder.feed(chunked([b"x" * LIMIT])) == b"x" * LIMIT
    assert decoder.complete


def test_unfinished_chunks_are_not_complete() -> None:
    data = chunked([b"hello", b"world"])
    for end in range(len(data)):
        decoder = ChunkedBody(LIMIT)
        decoder.feed(data[:end])
        assert not decoder.complete


def test_no_body_counts_nothing_since_it_is_shared() -> None:
    assert NO_BODY.feed(b"GET / HTTP/1.1\r\n") == b""
    assert NO_BODY.complete
    assert (NO_BODY.received, NO_BODY.excess) == (0, 0)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=10))
def test_any_bytes_are_taken_or_refused(data: bytes, places: list[int]) -> None:
    decoder = ChunkedBody(LIMIT)
    try:
        body = feed_all(decoder, cut(data, places))
    except (MalformedRequest, BodyTooLarge):
        return
    assert len(body) == decoder.received <= LIMIT


@pytest.mark.parametrize("size", [1, 2, 16])
def test_a_body_of_tiny_chunks_is_refused_once_it_has_many(size: int) -> None:
    chunk = chunked([b"x" * size]).removesuffix(b"0\r\n\r\n")
    decoder = ChunkedBody(10**9)
    decoder.feed(chunk * MOST_CHUNKS)
    with pytest.raises(MalformedRequest):
        decoder.feed(chunk * 10 * MOST_CHUNKS)


def test_chunks_of_a_line_each_are_taken() -> None:
    line = b'{"id":"0","module":"fim","operation":"delete"}\n'
    body = chunked([line] * 10 * MOST_CHUNKS)
    assert ChunkedBody(10**9).feed(body) == line * 10 * MOST_CHUNKS
