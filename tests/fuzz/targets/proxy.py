"""PROXY headers, and what ``X-Forwarded-For`` says: read alike however they are cut, and back to the same address."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import ip_address

from tests.fuzz.target import Target, in_pieces
from wazuh_comms_trio.http.balancers.client_address import Networks, forwarded_client, read_entry
from wazuh_comms_trio.http.balancers.proxy_header import (
    LARGEST_HEADER,
    SIGNATURE,
    ProxyHeader,
    ProxyHeaderInvalid,
    ProxyHeaderReader,
    crc32c,
)

__all__ = ["TARGETS"]


def read(pieces: Sequence[bytes]) -> tuple[ProxyHeader | None, bytes] | None:
    """None: refused; no header: more is needed."""
    reader, rest = ProxyHeaderReader(), list(pieces)
    try:
        while rest:
            found = reader.feed(rest.pop(0))
            if found is not None:
                return found, reader.rest + b"".join(rest)
    except ProxyHeaderInvalid as error:
        assert str(error)  # a sentence for the log
        return None
    return None, b""


def check(data: bytes) -> None:
    whole = read([data]) if data else (None, b"")
    cut = read(in_pieces(data))
    assert cut == whole
    if whole is None:
        return
    header, rest = whole
    assert data.endswith(rest)
    if header is None:
        assert len(data) < LARGEST_HEADER
    elif header.source is not None:
        host, port = header.source
        assert str(ip_address(host)) == host
        assert 0 <= port < 65536
        again = f"PROXY TCP{4 if '.' in host else 6} {host} {host} {port} 1\r\n".encode()
        assert read([again]) == (header, b"")


def _binary(command: int, family: int, payload: bytes) -> bytes:
    return SIGNATURE + bytes([command, family]) + struct.pack(">H", len(payload)) + payload


def _sealed(payload: bytes) -> bytes:
    bare = _binary(0x21, 0x11, payload + b"\x03\0\4\0\0\0\0")
    return bare[:-4] + struct.pack(">I", crc32c(bare))


_V4 = bytes([10, 0, 0, 1, 10, 0, 0, 2]) + struct.pack(">HH", 4711, 27000)
_V6 = bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 1]) + bytes(15) + b"\1" + struct.pack(">HH", 1, 2)
PROXY = Target(
    check,
    (
        b"PROXY TCP4 10.0.0.1 10.0.0.2 4711 27000\r\nGET / HTTP/1.1\r\n",
        b"PROXY TCP6 2001:db8::1 ::ffff:10.0.0.2 0 65535\r\n",
        b"PROXY UNKNOWN\r\n\x16\x03\x01",
        b"PROXY UNKNOWN ffff::1 whatever\r\n",
        _binary(0x21, 0x11, _V4) + b"GET",
        _binary(0x21, 0x21, _V6),
        _binary(0x20, 0x00, b""),
        _binary(0x21, 0x31, bytes(216)),
        _binary(0x21, 0x11, _V4 + b"\x20\0\5\1\0\0\0\0\x04\0\0"),
        _sealed(_V4),
    ),
    (SIGNATURE, b"PROXY ", b"TCP4 ", b"TCP6 ", b" 65536", b"\r\n", b"%eth0", b"::", b"\x03\0\4"),
    longest=600,
    cases=2000,
)


_TRUSTED = Networks(["10.0.0.0/8", "2001:db8::/32"])


def check_forwarded(data: bytes) -> None:
    headers = [(b"x-forwarded-for", line) for line in data.split(b"\n")]
    peer = ("10.0.0.1", 1)
    assert forwarded_client(("192.0.2.1", 5), headers, _TRUSTED) == ("192.0.2.1", 5)
    host, port = forwarded_client(peer, headers, _TRUSTED)
    assert str(ip_address(host)) == host
    assert 0 <= port < 65536
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    assert read_entry(shown.encode()) == (host, port)
    # What a client invents to the left of what balancers added changes nothing.
    if not _TRUSTED.has(host):
        assert forwarded_client(peer, [(b"x-forwarded-for", b"198.51.100.1"), *headers], _TRUSTED) == (host, port)


FORWARDED = Target(
    check_forwarded,
    (
        b"192.0.2.7, 10.0.0.3",
        b"198.51.100.2\n[2001:db8::1]:4711, 10.1.1.1:80",
        b"unknown, ::ffff:10.0.0.9,10.0.0.2",
        b"fe80::1%eth0, 2001:db8::5",
    ),
    (b"[::1]", b":65535", b"\xb2", b"10.0.0.1,", b"%25"),
    longest=600,
    cases=1200,
)

TARGETS = {"proxy": PROXY, "forwarded": FORWARDED}
