"""Networks whose word is taken for a client's address, and what ``X-Forwarded-For`` says: pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

__all__ = ["Networks", "forwarded_client", "normalized"]

Address = tuple[str, int]

#: Balancers behind each other; an address further to the left of the header isn't looked at.
MOST_HOPS: Final = 16
#: ``[2001:db8::1]:4711``, with what surrounds an address of version 6.
_LONGEST_ENTRY: Final = 64


class Networks:
    """Networks and single addresses, as the configuration names them. Raises ``ValueError`` for what is neither."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._networks: list[IPv4Network | IPv6Network] = [ip_network(name) for name in names]

    def __bool__(self) -> bool:
        return bool(self._networks)

    def has(self, host: str) -> bool:
        """An address of version 4 within one of version 6 counts as the former. False for what is no address."""
        if not self._networks:
            return False
        try:
            address = normalized(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def normalized(host: str) -> IPv4Address | IPv6Address:
    """An address in its usual form. Raises ``ValueError``."""
    address = ip_address(host.partition("%")[0])  # a link-local one's interface
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def forwarded_client(peer: Address, headers: Iterable[tuple[bytes, bytes]], trusted: Networks) -> Address:
    """The client behind ``peer``: the last address of ``X-Forwarded-For`` that no trusted balancer has.

    Each balancer adds the address of its own peer at the end; what stands to the left of the last untrusted one may be
    anybody's invention. ``peer`` itself when it isn't trusted, or says nothing that can be read. The port is 0 where
    none is said.
    """
    found = peer
    if not trusted.has(peer[0]):
        return found
    entries = [entry for name, value in headers if name == b"x-forwarded-for" for entry in value.split(b",")]
    for entry in entries[: -MOST_HOPS - 1 : -1]:
        address = read_entry(entry.strip())
        if address is None:
            return found
        found = address
        if not trusted.has(found[0]):
            return found
    return found


def read_entry(entry: bytes) -> Address | None:
    """An address, with a port or without; None for anything else."""
    if len(entry) > _LONGEST_ENTRY:
        return None
    text = entry.decode("latin-1")
    host, port = text, ""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            return None
        port = port[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if "%" in host or (port and not (port.isascii() and port.isdigit() and int(port) <= 65535)):
        return None
    try:
        return str(normalized(host)), int(port or 0)
    except ValueError:
        return None
