"""The PROXY protocol's header: both versions whole, byte by byte and randomly cut, with a tail; and what is none."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wazuh_comms_trio.http.balancers.proxy_header import (
    LARGEST_HEADER,
    SIGNATURE,
    ProxyHeader,
    ProxyHeaderInvalid,
    ProxyHeaderReader,
    crc32c,
)

#: The shape of a client's TLS beginning.
HELLO = bytes.fromhex("16030100c8010000c40303")


def binary(command: int = 1, family: int = 1, payload: bytes = b"", *, transport: int = 1, version: int = 2) -> bytes:
    head = bytes([version << 4 | command, family << 4 | transport]) + len(payload).to_bytes(2, "big")
    return SIGNATURE + head + payload


def addresses(source: str, target: str, source_port: int, target_port: int) -> bytes:
    kind = IPv6Address if ":" in source else IPv4Address
    ports = source_port.to_bytes(2, "big") + target_port.to_bytes(2, "big")
    return kind(source).packed + kind(target).packed + ports


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def with_checksum(payload: bytes, flip: int = 0, *, second: bool = False) -> bytes:
    """A header of version 2 over IPv4 with a TLV of its checksum between two others, and maybe one more."""
    before, after = payload + tlv(0x05, b"unique"), tlv(0x04, bytes(3)) + (tlv(0x03, bytes(4)) if second else b"")
    bare = binary(payload=before + tlv(0x03, bytes(4)) + after)
    return binary(payload=before + tlv(0x03, (crc32c(bare) ^ flip).to_bytes(4, "big")) + after)


BLOCK_4 = addresses("203.0.113.7", "192.0.2.1", 4711, 27000)
BLOCK_6 = addresses("2001:db8::7", "2001:db8::1", 4711, 27000)

SOUND = {
    "TCP4": (b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 27000\r\n", ("203.0.113.7", 4711)),
    "TCP6": (b"PROXY TCP6 2001:DB8::7 2001:db8::1 4711 27000\r\n", ("2001:db8::7", 4711)),
    "TCP6 of a version 4 address": (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 4711 27000\r\n", ("203.0.113.7", 4711)),
    "the longest line": (
        b"PROXY UNKNOWN" + 2 * (b" " + b":".join([b"ffff"] * 8)) + b" 65535 65535\r\n",
        None,
    ),
    "UNKNOWN": (b"PROXY UNKNOWN\r\n", None),
    "version 2, IPv4": (binary(payload=BLOCK_4), ("203.0.113.7", 4711)),
    "version 2, IPv6": (binary(family=2, payload=BLOCK_6), ("2001:db8::7", 4711)),
    "version 2 with TLVs": (binary(payload=BLOCK_4 + tlv(0x01, b"h2") + tlv(0xEA, b"")), ("203.0.113.7", 4711)),
    "version 2 with a checksum": (with_checksum(BLOCK_4), ("203.0.113.7", 4711)),
    "version 2, unspecified": (binary(family=0, transport=0), None),
    "version 2, unspecified with TLVs": (binary(family=0, transport=0, payload=tlv(4, b"x")), None),
    "version 2, unspecified with addresses": (binary(family=0, transport=0, payload=BLOCK_4), None),
    "version 2, unspecified with a transport": (binary(family=0, payload=b"\x04\xff\xff"), None),
    "version 2, a Unix socket": (binary(family=3, payload=bytes(216)), None),
    "a check by the balancer": (binary(command=0, family=0, transport=0), None),
    "a check that has addresses all the same": (binary(command=0, payload=BLOCK_4), None),
    "a check that names a family without addresses": (binary(command=0), None),
    "a check with what is no TLV": (binary(command=0, family=0, transport=0, payload=b"\x04\xff\xff"), None),
    "a check with what is no TLV behind its addresses": (binary(command=0, payload=BLOCK_4 + b"abc"), None),
    "a check of another family and transport": (binary(command=0, family=15, transport=9, payload=b"x"), None),
    "a check with a wrong checksum": (binary(command=0, payload=BLOCK_4 + tlv(0x03, bytes(4))), None),
    "version 2 with the largest TLVs": (
        binary(payload=BLOCK_4 + tlv(4, bytes(LARGEST_HEADER - 16 - len(BLOCK_4) - 3))),
        ("203.0.113.7", 4711),
    ),
}

UNSOUND = {
    "TLS": (HELLO, "is missing"),
    "HTTP": (b"POST /", "is missing"),
    "nearly a signature": (SIGNATURE[:11] + b"\r", "is missing"),
    "lower case": (b"proxy TCP4", "is missing"),
    "no space": (b"PROXY\tTCP4", "is missing"),
    "another family": (b"PROXY UDP4 203.0.113.7 192.0.2.1 4711 27000\r\n", "is no line"),
    "two spaces": (b"PROXY TCP4  203.0.113.7 192.0.2.1 4711 27000\r\n", "is no line"),
    "a line feed alone": (b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 27000\nGET / HTTP/1.1\r\n", "is no line"),
    "no ports": (b"PROXY TCP4 203.0.113.7 192.0.2.1\r\n", "is no line"),
    "an address of the other version": (b"PROXY TCP4 2001:db8::7 192.0.2.1 4711 27000\r\n", "an address that is none"),
    "octal": (b"PROXY TCP4 203.0.113.07 192.0.2.1 4711 27000\r\n", "an address that is none"),
    "an interface": (b"PROXY TCP6 fe80::1%eth0 ::1 4711 27000\r\n", "is no line"),
    "a port too large": (b"PROXY TCP4 203.0.113.7 192.0.2.1 65536 27000\r\n", "a port that is none"),
    "a negative port": (b"PROXY TCP4 203.0.113.7 192.0.2.1 -1 27000\r\n", "is no line"),
    "other digits": ("PROXY TCP4 203.0.113.7 192.0.2.1 ٣ 27000\r\n".encode(), "is no line"),
    "a line without end": (b"PROXY TCP4 " + b"1" * 96, "more than 107 bytes"),
    "a line one byte too long": (b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", "more than 107 bytes"),
    "version 1 in version 2": (binary(version=1, payload=BLOCK_4), "version 1"),
    "another command": (binary(command=2, payload=BLOCK_4), "command 2"),
    "another command, cut": (binary(command=2, payload=BLOCK_4)[:-1], "command 2"),
    "another family of version 2": (binary(family=4, payload=BLOCK_4), "family 4"),
    "another transport": (binary(transport=3, payload=BLOCK_4), "transport 3"),
    "datagrams": (binary(transport=2, payload=BLOCK_4), "transport 2"),
    "too short for its addresses": (binary(payload=BLOCK_4[:-1]), "too short"),
    "too short for IPv6": (binary(family=2, payload=BLOCK_4), "too short"),
    "a TLV's head is cut off": (binary(payload=BLOCK_4 + b"\x04\x00"), "cut off"),
    "a TLV is longer than the header": (binary(payload=BLOCK_4 + b"\x04\xff\xff"), "cut off"),
    "a wrong checksum": (with_checksum(BLOCK_4, flip=1), "a wrong checksum"),
    "two checksums": (with_checksum(BLOCK_4, second=True), "a wrong checksum"),
    "a checksum of another size": (binary(payload=BLOCK_4 + tlv(3, b"abc")), "a wrong checksum"),
    "64 KiB": (SIGNATURE + b"\x21\x11\xff\xff", "65551 bytes"),
}


def read(data: bytes, sizes: list[int]) -> tuple[ProxyHeader, bytes]:
    """In pieces of these sizes, then the rest at once; and all that follows the header."""
    reader = ProxyHeaderReader()
    for size in [*sizes, len(data)]:
        piece, data = data[:size], data[size:]
        if (header := reader.feed(piece) if piece else None) is not None:
            return header, reader.rest + data
    raise AssertionError("more was wanted")


@pytest.mark.parametrize("name", SOUND)
def test_a_header_however_it_comes(name: str) -> None:
    data, source = SOUND[name]
    for tail in (b"", HELLO, SIGNATURE, b"PROXY UNKNOWN\r\n"):
        for sizes in ([], [1] * len(data), [len(data) - 1], [len(data)]):
            assert read(data + tail, sizes) == (ProxyHeader(source), tail)


@given(st.sampled_from(sorted(SOUND)), st.lists(st.integers(1, 200), max_size=20), st.binary(max_size=300))
def test_a_header_cut_anywhere(name: str, sizes: list[int], tail: bytes) -> None:
    data, source = SOUND[name]
    assert read(data + tail, sizes) == (ProxyHeader(source), tail)


@pytest.mark.parametrize("name", UNSOUND)
def test_what_is_none_is_refused(name: str) -> None:
    data, problem = UNSOUND[name]
    for sizes in ([], [1] * len(data)):
        with pytest.raises(ProxyHeaderInvalid, match=problem):
            read(data, sizes)


@given(st.binary(min_size=1, max_size=200), st.lists(st.integers(1, 50), max_size=10))
@example(SIGNATURE + b"\x21\x21\0\x24" + bytes(36), [1] * 10)
@example(b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\nx", [3])
def test_nothing_else_ever_comes_of_any_bytes(data: bytes, sizes: list[int]) -> None:
    def outcome(sizes: list[int]) -> object:
        try:
            return read(data, sizes)
        except ProxyHeaderInvalid:
            return "refused"
        except AssertionError:
            return "more"

    assert outcome(sizes) == outcome([])


@given(st.ip_addresses(), st.integers(0, 65535), st.sampled_from([1, 2]))
def test_every_address(address: IPv4Address | IPv6Address, port: int, version: int) -> None:
    target = "::1" if address.version == 6 else "127.0.0.1"
    if version == 1:
        data = f"PROXY TCP{address.version} {address} {target} {port} 27000\r\n".encode()
    else:
        family = 1 if address.version == 4 else 2
        data = binary(family=family, payload=addresses(str(address), target, port, 27000))
    header, rest = read(data, [])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    assert header.source == (str(mapped or address), port)
    assert rest == b""


def test_an_end_in_mid_header() -> None:
    reader = ProxyHeaderReader()
    assert reader.feed(b"PROXY ") is None
    with pytest.raises(ProxyHeaderInvalid, match="ends too early"):
        reader.feed(b"")


def test_the_checksum_is_the_known_one() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720, B.4, and every catalogue of CRCs
    assert crc32c(bytes(32)) == 0x8A9136AA
