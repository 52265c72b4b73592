"""The section ``operators``: where the operators' listener is, and who may read there."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Final

from attrs import field, frozen

from wazuh_comms_trio.config.key import key as about
from wazuh_comms_trio.config.key import socket_path

__all__ = ["Operators", "OperatorsSsl", "TcpAddress", "parse_listen"]

DEFAULT_SOCKET: Final = "/run/wazuh-server/comms-operators.sock"


@frozen
class TcpAddress:
    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        return ip_address(self.host).is_loopback


def parse_listen(text: str) -> Path | TcpAddress:
    """A Unix socket's path, or an IP address and a port. Raises ``ValueError``."""
    if text.startswith("/"):
        return Path(text)
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(text)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(text)
    host = "127.0.0.1" if host == "localhost" else host
    ip_address(host)
    return TcpAddress(host, int(port))


def _listen(text: str) -> str | None:
    accepted = "a Unix socket's path, or an IP address and a port (`/run/comms.sock`, `127.0.0.1:9108`, `[::1]:9108`)"
    try:
        address = parse_listen(text)
    except ValueError:
        return accepted
    return socket_path(address) if isinstance(address, Path) else None


@frozen
class OperatorsSsl:
    key: Path = field(metadata=about("The private key, PEM."))
    cert: Path = field(metadata=about("The certificate, PEM, followed by intermediate ones where there are any."))
    ca: Path | None = field(
        default=None, metadata=about("Clients must show a certificate of this CA, PEM. By default none is asked for.")
    )


@frozen
class Operators:
    listen: str = field(
        default=DEFAULT_SOCKET,
        metadata=about(
            "A Unix socket's path (mode 0660), or an IP address and a port. An address other than loopback needs `ssl` "
            "and either `ssl.ca` or `token_file`.",
            check=_listen,
        ),
    )
    ssl: OperatorsSsl | None = field(default=None, metadata=about("TLS, for an address."))
    token_file: Path | None = field(
        default=None,
        metadata=about(
            "A file with a token of at least 16 characters, which requests then need: `Authorization: Bearer ...`."
        ),
    )

    @property
    def address(self) -> Path | TcpAddress:
        return parse_listen(self.listen)
