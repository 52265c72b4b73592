"""The header of the PROXY protocol, versions 1 and 2, at the beginning of a connection: bytes in, an address out.

As https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt has it; whether a header may be expected from a peer is
the caller's to know. Version 1 is a line of at most 107 bytes, version 2 has 16 bytes, addresses, and TLVs, which are
checked for their form and, where there is one, their checksum; what they say isn't used. A balancer's own connection
(LOCAL) is taken whatever its header says besides, and so is one of an unspecified family: nobody's address is read.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from attrs import frozen

from wazuh_comms_trio.http.balancers.client_address import normalized

__all__ = ["LARGEST_HEADER", "ProxyHeader", "ProxyHeaderInvalid", "ProxyHeaderReader"]

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
#: The signature, version and command, family and transport, length.
FIXED_BYTES: Final = 16
LONGEST_LINE: Final = 107
#: A version 2 header could have 64 KiB; a client's certificate among its TLVs takes some 2 kB.
LARGEST_HEADER: Final = 16384

_LINE_START: Final = b"PROXY "
_LINE: Final = re.compile(
    r"PROXY (?:UNKNOWN(?: .*)?|(?P<family>TCP[46]) (?P<source>[0-9A-Fa-f.:]+) (?P<target>[0-9A-Fa-f.:]+)"
    r" (?P<source_port>\d{1,5}) (?P<target_port>\d{1,5}))"
)
_LARGEST_PORT: Final = 65535

_LOCAL: Final = 0
_PROXY: Final = 1
#: Address family -> bytes of one address; both are followed by their ports.
_ADDRESS_BYTES: Final = {1: 4, 2: 16}
_UNSPECIFIED: Final = 0
_UNIX: Final = 3
_UNIX_BYTES: Final = 216
_STREAM: Final = 1
_CHECKSUM: Final = 0x03
_CHECKSUM_BYTES: Final = 4


class ProxyHeaderInvalid(Exception):
    """The text is what is wrong with it: a sentence without a subject."""


@frozen
class ProxyHeader:
    """``source`` is the client's address and port; None: the connection is the balancer's own (a health check), or it
    doesn't say.
    """

    source: tuple[str, int] | None = None


class ProxyHeaderReader:
    """``feed`` until it returns a header; ``rest`` is then what followed it."""

    def __init__(self) -> None:
        self._data = bytearray()
        self.rest: bytes = b""

    @property
    def has_begun(self) -> bool:
        return bool(self._data)

    def feed(self, data: bytes | bytearray) -> ProxyHeader | None:
        """Takes bytes; returns the header, None while more is needed. Raises ``ProxyHeaderInvalid`` at the first byte
        that can't be one's, and when ``data`` is empty, the end of the connection.
        """
        if not data:
            raise ProxyHeaderInvalid("ends too early")
        self._data += data
        start = bytes(self._data[: len(SIGNATURE)])
        if SIGNATURE.startswith(start):
            return self._binary()
        if start.startswith(_LINE_START) or _LINE_START.startswith(start):
            return self._line()
        raise ProxyHeaderInvalid("is missing")

    def _line(self) -> ProxyHeader | None:
        end = self._data.find(b"\r\n", 0, LONGEST_LINE)
        if end < 0:
            if len(self._data) >= LONGEST_LINE:
                raise ProxyHeaderInvalid(f"is a line of more than {LONGEST_LINE} bytes")
            return None
        self.rest = bytes(self._data[end + 2 :])
        return read_line(bytes(self._data[:end]))

    def _binary(self) -> ProxyHeader | None:
        if len(self._data) < FIXED_BYTES:
            return None
        length = FIXED_BYTES + int.from_bytes(self._data[14:16], "big")
        if length > LARGEST_HEADER:
            raise ProxyHeaderInvalid(f"has {length} bytes, more than {LARGEST_HEADER}")
        if len(self._data) < length:
            check_command(self._data[12])
            return None
        self.rest = bytes(self._data[length:])
        return read_binary(bytes(self._data[:length]))


def read_line(line: bytes) -> ProxyHeader:
    """Reads a header of version 1, without its line end. Raises ``ProxyHeaderInvalid``."""
    match = _LINE.fullmatch(line.decode("latin-1"))
    if match is None:
        raise ProxyHeaderInvalid("is no line of version 1")
    if match["family"] is None:
        return ProxyHeader()
    kind = IPv4Address if match["family"] == "TCP4" else IPv6Address
    try:
        source, _ = kind(match["source"]), kind(match["target"])
    except ValueError:
        raise ProxyHeaderInvalid("has an address that is none") from None
    port = int(match["source_port"])
    if max(port, int(match["target_port"])) > _LARGEST_PORT:
        raise ProxyHeaderInvalid("has a port that is none")
    return ProxyHeader((str(normalized(str(source))), port))


def check_command(version_and_command: int) -> int:
    """Checks the command of version 2, and returns it. Raises ``ProxyHeaderInvalid``."""
    version, command = divmod(version_and_command, 16)
    if version != 2 or command not in (_LOCAL, _PROXY):
        raise ProxyHeaderInvalid(f"has version {version} and command {command}")
    return command


def read_binary(header: bytes) -> ProxyHeader:
    """Reads a header of version 2, whole. Raises ``ProxyHeaderInvalid``."""
    if check_command(header[12]) == _LOCAL:
        # 2.2: "must accept this connection as valid and must [...] discard the protocol block including the family".
        return ProxyHeader()
    family, transport = divmod(header[13], 16)
    if family > _UNIX or transport > 2:
        raise ProxyHeaderInvalid(f"has address family {family} and transport {transport}")
    if family == _UNSPECIFIED:
        return ProxyHeader()  # where its addresses end, and TLVs begin, it doesn't say
    size = _ADDRESS_BYTES.get(family)
    block = _UNIX_BYTES if size is None else 2 * size + 4
    payload = header[FIXED_BYTES:]
    if len(payload) < block:
        raise ProxyHeaderInvalid("is too short for its addresses")
    check_tlvs(header, FIXED_BYTES + block)
    if size is None:
        return ProxyHeader()
    if transport != _STREAM:
        raise ProxyHeaderInvalid(f"has transport {transport}")
    kind = IPv4Address if size == 4 else IPv6Address
    port = int.from_bytes(payload[2 * size : 2 * size + 2], "big")
    return ProxyHeader((str(normalized(str(kind(payload[:size])))), port))


def check_tlvs(header: bytes, start: int) -> None:
    """Raises ``ProxyHeaderInvalid`` for TLVs that don't fill the header, and for a wrong checksum, or two of them."""
    checked = False
    while start < len(header):
        length = int.from_bytes(header[start + 1 : start + 3], "big")
        value, end = start + 3, start + 3 + length
        if value > len(header) or end > len(header):
            raise ProxyHeaderInvalid("has a TLV that is cut off")
        if header[start] == _CHECKSUM:
            bare = header[:value] + bytes(length) + header[end:]
            if checked or length != _CHECKSUM_BYTES or int.from_bytes(header[value:end], "big") != crc32c(bare):
                raise ProxyHeaderInvalid("has a wrong checksum")
            checked = True
        start = end


def _table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC32C: Final = _table()


def crc32c(data: bytes) -> int:
    """The CRC-32C of RFC 3720, appendix B.4. 1 ms for the largest header."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
