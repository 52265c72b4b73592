"""The configuration's sections ``indexer`` and ``engine``, of ``backend: wazuh``; all else as in ``models.py``."""

from __future__ import annotations

from pathlib import Path

from attrs import field, frozen

from wazuh_comms_trio.config.key import key as about
from wazuh_comms_trio.config.key import seconds, size, socket_path


@frozen
class IndexerHost:
    host: str = field(metadata=about("Name or address."))
    port: int = field(default=9200, metadata=about("Port.", minimum=1, maximum=65535))


@frozen
class IndexerSsl:
    use_ssl: bool = field(default=False, metadata=about("HTTPS."))
    key: Path | None = field(default=None, metadata=about("The client's private key, PEM."))
    certificate: Path | None = field(default=None, metadata=about("The client's certificate, PEM."))
    certificate_authorities: tuple[Path, ...] = field(
        default=(),
        metadata=about("Files with the CAs that the indexer's certificate may come from.", scalar_or_list=True),
    )
    certificate_authorities_bundle: Path | None = field(default=None, metadata=about("One more such file."))
    verify_certificates: bool = field(default=True, metadata=about("Whether to check the indexer's certificate."))


@frozen
class IndexerNames:
    agents: str | None = field(
        default=None,
        metadata=about(
            "The agents' index. By default `wazuh-agents` where it exists, else `.agents` where that does, else "
            "the former."
        ),
    )
    commands: str | None = field(
        default=None,
        metadata=about(
            "The commands' index. By default `wazuh-commands` where it exists, else `.commands` where that does, else "
            "the former."
        ),
    )


@frozen
class IndexerClient:
    connect_timeout: float = field(default=5.0, metadata=seconds("For a connection, its TLS handshake included."))
    write_timeout: float = field(default=30.0, metadata=seconds("How long a node may not read."))
    read_timeout: float = field(default=60.0, metadata=seconds("For a whole answer."))
    keepalive_timeout: float = field(default=30.0, metadata=seconds("How long an unused connection is kept."))
    max_connections: int = field(
        default=24, metadata=about("Requests at a time, to all nodes together; half of them bulk calls.", minimum=4)
    )
    gzip_bytes: int = field(
        default=262_144, metadata=size("Request bodies from this size on are compressed. 0: none.", minimum=0)
    )
    bulk_bytes: int = field(
        default=10_485_760,
        metadata=size("The largest bulk call; more is split. A node's own limits, once met, count too."),
    )


@frozen
class IndexerCommands:
    interval: float = field(default=1.0, metadata=seconds("How often pending commands are looked for, when busy."))
    idle_interval: float = field(default=5.0, metadata=seconds("How often at least, when nothing comes."))
    lease: float = field(
        default=15.0, metadata=seconds("After which another node takes over the commands that a dead one had claimed.")
    )


@frozen
class Indexer:
    hosts: tuple[IndexerHost, ...] = field(
        default=(IndexerHost("127.0.0.1"),), metadata=about("The indexer's nodes.", non_empty=True)
    )
    username: str | None = field(default=None, metadata=about("Basic authentication."))
    password: str | None = field(default=None, repr=False, metadata=about("Its password.", secret=True))
    password_file: Path | None = field(
        default=None,
        metadata=about(
            "A file with the password, instead of `password`; relative to `$CREDENTIALS_DIRECTORY` where systemd set "
            "that. Without it, the systemd credential `indexer.password` stands in for `password`, if there is one."
        ),
    )
    ssl: IndexerSsl = field(default=IndexerSsl(), metadata=about("TLS towards the indexer."))
    names: IndexerNames = field(default=IndexerNames(), metadata=about("Names of indices."))
    client: IndexerClient = field(default=IndexerClient(), metadata=about("Limits of the connections to it."))
    commands: IndexerCommands = field(default=IndexerCommands(), metadata=about("How commands are found."))
    disconnected_after: float = field(
        default=1200.0,
        metadata=seconds(
            "An agent that hasn't been seen for so long becomes `disconnected`. Below the 900 s of a token's life, "
            "nodes can't tell an agent that is on another node from one that is away."
        ),
    )


@frozen
class EngineClient:
    api_socket_path: Path = field(
        default=Path("/run/wazuh-server/engine.socket"),
        metadata=about("The engine's Unix socket.", check=socket_path),
    )
    retries: int = field(
        default=3, metadata=about("Further attempts where nothing was consumed.", minimum=0, maximum=1000)
    )
    timeout: float = field(default=10.0, metadata=seconds("For an answer."))


@frozen
class EngineSettings:
    client: EngineClient = field(default=EngineClient(), metadata=about("How the engine is reached."))
