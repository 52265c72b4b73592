"""The configuration as frozen models. Every key, its default and its meaning; docs/configuration.md is made from these."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from attrs import field, frozen

LogLevel = Literal["debug", "info", "warning", "error", "critical"]
SslProtocol = Literal["auto", "TLS", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]


@frozen
class Logging:
    level: LogLevel = "debug"
    format: Literal["plain", "json"] = "plain"


@frozen
class Batcher:
    max_elements: int = 5
    max_size: int = 3000
    wait_time: float = 0.15
    eager: bool = True


@frozen
class Ssl:
    key: Path
    cert: Path
    use_ca: bool = False
    ca: Path | None = None
    ssl_protocol: SslProtocol = "auto"
    ssl_ciphers: str | None = None
    keyfile_password: str | None = field(default=None, repr=False)


@frozen
class EmbeddedEvents:
    max_file_bytes: int = 128 * 1024 * 1024
    max_bytes: int = 10 * 1024 * 1024 * 1024
    on_full: Literal["refuse", "delete_oldest"] = "refuse"


@frozen
class Embedded:
    path: Path = Path("/var/lib/wazuh-comms")
    events: EmbeddedEvents = EmbeddedEvents()


@frozen
class QuarantineSettings:
    path: Path | None = None  # None: "quarantine" under embedded.path
    max_bytes: int = 1024 * 1024 * 1024


@frozen
class Events:
    invalid: Literal["quarantine", "refuse"] = "quarantine"
    foreign_agent: Literal["refuse", "log", "allow"] = "refuse"
    document_id: Literal["agent", "global"] = "agent"


@frozen
class Files:
    path: Path = Path("/etc/wazuh-server/groups")
    scope: Literal["groups", "all"] = "groups"


@frozen
class Token:
    private_key: Path | None = None  # None: the TLS key
    revocation: float = 10.0


@frozen
class Enrollment:
    host: tuple[str, ...] = ("0.0.0.0",)
    port: int = 55000
    users: Mapping[str, str] = field(factory=dict, repr=False)  # name -> password hash


@frozen
class Timeouts:
    authentication: float = 20.0
    commands: float = 300.0
    stateless: float = 10.0
    stateful: float = 30.0
    files: float = 10.0
    scan: float = 30.0


@frozen
class Limits:
    handshake_timeout: float = 10.0
    head_timeout: float = 10.0
    head_bytes: int = 16384
    body_bytes: int = 104857600
    body_timeout: float = 15.0
    body_rate: float = 65536.0
    stall_timeout: float = 30.0
    send_timeout: float = 30.0


@frozen
class Shutdown:
    grace: float = 10.0
    spread: float = 0.0


@frozen
class CommunicationsApi:
    ssl: Ssl
    host: tuple[str, ...] = ("0.0.0.0",)
    port: int = 27000
    workers: int = 4
    logging: Logging = Logging()
    batcher: Batcher = Batcher()
    backend: Literal["wazuh", "embedded"] = "wazuh"
    embedded: Embedded = Embedded()
    quarantine: QuarantineSettings = QuarantineSettings()
    events: Events = Events()
    files: Files = Files()
    token: Token = Token()
    command_socket: Path = Path("/run/wazuh-server/comms-api.sock")
    enrollment: Enrollment | None = None  # None: off
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()
    shutdown: Shutdown = Shutdown()


@frozen
class IndexerHost:
    host: str
    port: int = 9200


@frozen
class IndexerSsl:
    use_ssl: bool = False
    key: Path | None = None
    certificate: Path | None = None
    certificate_authorities: tuple[Path, ...] = ()
    certificate_authorities_bundle: Path | None = None
    verify_certificates: bool = True


@frozen
class IndexerNames:
    agents: str | None = None
    commands: str | None = None


@frozen
class Indexer:
    hosts: tuple[IndexerHost, ...] = (IndexerHost("127.0.0.1"),)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ssl: IndexerSsl = IndexerSsl()
    names: IndexerNames = IndexerNames()


@frozen
class EngineClient:
    api_socket_path: Path = Path("/run/wazuh-server/engine.socket")
    retries: int = 3
    timeout: float = 10.0


@frozen
class EngineSettings:
    client: EngineClient = EngineClient()


@frozen
class Config:
    """What one file says, complete with defaults."""

    communications_api: CommunicationsApi
    indexer: Indexer = Indexer()
    engine: EngineSettings = EngineSettings()
