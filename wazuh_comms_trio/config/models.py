"""The configuration as frozen models. Every key, its default and its meaning; docs/configuration.md is made from these.

What is written here as ``default`` and in the metadata is all there is to know of a key: reading, checking and the
documentation follow it. Nothing is validated when a model is made in a program: that is ``config.load``'s, which knows
where a value stands.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from attrs import field, frozen

from wazuh_comms_trio.config.backend_models import EngineSettings, Indexer
from wazuh_comms_trio.config.key import key as about
from wazuh_comms_trio.config.key import networks, seconds, size, socket_path
from wazuh_comms_trio.config.limits.models import Limits as Limits
from wazuh_comms_trio.config.sections.embedded import Embedded as Embedded
from wazuh_comms_trio.config.sections.embedded import EmbeddedDocuments as EmbeddedDocuments
from wazuh_comms_trio.config.sections.embedded import EmbeddedEvents as EmbeddedEvents
from wazuh_comms_trio.config.sections.embedded import Keep as Keep
from wazuh_comms_trio.config.sections.operators import Operators
from wazuh_comms_trio.config.sections.presence import Presence

LogLevel = Literal["debug", "info", "warning", "error", "critical"]
SslProtocol = Literal["auto", "TLS", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]


def _password_hashes(users: Mapping[str, str]) -> str | None:
    """A hash is base64 of 16 bytes of salt and 32 of PBKDF2-HMAC-SHA256."""
    try:
        sound = all(name and len(base64.b64decode(value, validate=True)) == 48 for name, value in users.items())
    except (binascii.Error, ValueError):
        sound = False
    return None if sound else "user names with the hashes that `wazuh-comms enrollment passwd USER` prints"


@frozen
class Logging:
    level: LogLevel = field(
        default="debug",
        metadata=about("What is logged. Bodies, keys, tokens and passwords never are, at any level."),
    )
    format: Literal["plain", "json"] = field(
        default="plain",
        metadata=about(
            "`json`: one JSON object a line. May be written as a list of one, `[plain]`.", first_of_list=True
        ),
    )
    file: Path | None = field(
        default=None,
        metadata=about(
            "The log goes there instead of to stderr. May be moved away while the daemon runs: a new one is made."
        ),
    )


@frozen
class Batcher:
    max_elements: int = field(
        default=5, metadata=about("Events after which a bulk call goes. A soft limit.", minimum=1)
    )
    max_size: int = field(default=3000, metadata=size("Bytes after which a bulk call goes. A soft limit."))
    wait_time: float = field(
        default=0.15, metadata=seconds("How long the first event of a batch waits for others at most.", zero=True)
    )
    eager: bool = field(
        default=True,
        metadata=about(
            "`wait_time` is an upper bound: with no bulk call in flight and nothing else waiting, a batch goes at "
            "once. `false`: always wait."
        ),
    )


@frozen
class Ssl:
    key: Path = field(metadata=about("The private key, PEM."))
    cert: Path = field(metadata=about("The certificate, PEM, followed by intermediate ones where there are any."))
    use_ca: bool = field(default=False, metadata=about("Agents must show a certificate of the CA in `ca`."))
    ca: Path | None = field(default=None, metadata=about("The CA's certificates, PEM. Needed with `use_ca`."))
    crl: Path | None = field(
        default=None,
        metadata=about(
            "The CA's list of revoked certificates, PEM: their agents get nowhere. With `use_ca`; read again by a "
            "reload, which refuses one that isn't signed by the CA. Each CA that issues agents' certificates needs "
            "its own, one after the other. One that has expired keeps everybody out."
        ),
    )
    client_identity: Literal["any", "uuid"] = field(
        default="any",
        metadata=about(
            "With `use_ca`: `any` certificate of the CA goes with any agent, or it has to name the agent's `uuid`, as "
            "its common name, a DNS name or a URI `urn:uuid:...`; else a log-in is 401 and any other request 403."
        ),
    )
    ssl_protocol: SslProtocol = field(
        default="auto",
        metadata=about(
            "`auto` and `TLS`: TLS 1.2 and newer. Another value: exactly that version. `TLSv1` and `TLSv1.1` also "
            "lower OpenSSL's security level to 0 and are warned about; the client must do the same."
        ),
    )
    ssl_ciphers: str | None = field(
        default=None,
        metadata=about("An OpenSSL cipher list, for TLS 1.2 and below. The suites of TLS 1.3 can't be chosen."),
    )
    keyfile_password: str | None = field(
        default=None, repr=False, metadata=about("The password of an encrypted private key.", secret=True)
    )


@frozen
class QuarantineSettings:
    path: Path | None = field(
        default=None,
        metadata=about("The folder of what can never be taken. By default `quarantine` in `embedded.path`."),
    )
    max_bytes: int = field(
        default=1024 * 1024 * 1024,
        metadata=size(
            "What it may take: each entry its payload, its metadata line, its reason, and 512 bytes; when it is full "
            "agents get 503. One agent fills at most a tenth of it."
        ),
    )


@frozen
class Events:
    invalid: Literal["quarantine", "refuse"] = field(
        default="quarantine",
        metadata=about(
            "An event that can never be taken: its own result says so and it goes to the quarantine; or `refuse` the "
            "whole body (400, code 2709)."
        ),
    )
    foreign_agent: Literal["refuse", "log", "allow"] = field(
        default="refuse",
        metadata=about(
            "The metadata's agent id isn't the token's: `refuse` the body (400, code 2709), `log`, or `allow` it."
        ),
    )
    document_id: Literal["agent", "global"] = field(
        default="agent",
        metadata=about(
            "`agent`: a document's id in the index is `<agent uuid>_<id>`, and it follows its agent: a `create` "
            "replaces it, an `update` makes it. `global`: the bare id, for indices that have those; there an event "
            "that meets other content, or nothing, is 409 or 404 and goes to the quarantine."
        ),
    )


@frozen
class Files:
    path: Path = field(
        default=Path("/etc/wazuh-server/groups"), metadata=about("The folder of the files that agents may ask for.")
    )
    scope: Literal["groups", "all"] = field(
        default="groups",
        metadata=about(
            "`groups`: an agent gets `<group>.yml` and `<group>.conf` of its own groups, `default.yml` and "
            "`default.conf`, each by its exact name; anything else is as if missing. `all`: any file of the folder. "
            "Agents ask for `<group>.yml`, those from before December 2024 for `<group>.conf`."
        ),
    )


@frozen
class Token:
    private_key: Path | None = field(
        default=None,
        metadata=about(
            "The key that signs agents' tokens: EC P-256 (ES256) or RSA (RS256). By default the TLS key. Tokens of the "
            "key in a file of the same name with `.next` are good as well: see `wazuh-comms keys rotate`."
        ),
    )
    verify_keys: tuple[Path, ...] = field(
        default=(),
        metadata=about(
            "Files with public keys in PEM, or a list of them: tokens that these keys signed are good as well. For "
            "nodes that sign with other keys, and for changing keys without a log-in of all agents.",
            scalar_or_list=True,
        ),
    )
    revocation: float = field(
        default=10.0,
        metadata=seconds(
            "With `backend: wazuh`, how long a removed agent's token may still work. Embedded: not at all.", zero=True
        ),
    )

    outage: Literal["serve", "refuse"] = field(
        default="serve",
        metadata=about(
            "With `backend: wazuh`, for agents that the worker which they come to hasn't seen, while the registry "
            "can't be read: `serve` what needs no registry, by the token's signature and age alone, or `refuse` (503). "
            "Agents that the worker knows go on, and revocations that are known here count, in either case."
        ),
    )


@frozen
class Enrollment:
    host: tuple[str, ...] = field(
        default=("0.0.0.0",),
        metadata=about(
            "The address, or a list of addresses, of the enrolment listener.", scalar_or_list=True, non_empty=True
        ),
    )
    port: int = field(default=55000, metadata=about("Its port.", minimum=0, maximum=65535))
    users: Mapping[str, str] = field(
        factory=dict,
        repr=False,
        metadata=about(
            "Who may enrol agents: names, with the password hashes that `wazuh-comms enrollment passwd USER` prints.",
            secret=True,
            check=_password_hashes,
        ),
    )


@frozen
class Balancers:
    proxy_protocol: tuple[str, ...] = field(
        default=(),
        metadata=about(
            "Their connections begin with a header of the PROXY protocol, version 1 or 2, and its address is the "
            "agent's; one without it is closed. From anybody else such a header is no TLS, and closed as well.",
            scalar_or_list=True,
            check=networks,
        ),
    )
    forwarded_for: tuple[str, ...] = field(
        default=(),
        metadata=about(
            "The last address in their requests' `X-Forwarded-For` that isn't one of them is the agent's. From anybody "
            "else the header means nothing.",
            scalar_or_list=True,
            check=networks,
        ),
    )


@frozen
class Timeouts:
    authentication: float = field(default=20.0, metadata=seconds("`POST /authentication`."))
    commands: float = field(default=300.0, metadata=seconds("`GET /commands`, the long poll; ± 10 %."))
    stateless: float = field(default=10.0, metadata=seconds("`POST /events/stateless`."))
    stateful: float = field(default=30.0, metadata=seconds("`POST /events/stateful`."))
    files: float = field(default=10.0, metadata=seconds("`GET /files`."))
    scan: float = field(default=30.0, metadata=seconds("`POST /vulnerability/scan`."))


@frozen
class Shutdown:
    delay: float = field(
        default=0.0,
        metadata=seconds(
            "Before it stops the daemon serves on for this time, with `ready` at 503, for balancers to notice. Time "
            "since `wazuh-comms drain` counts.",
            zero=True,
        ),
    )
    grace: float = field(
        default=10.0, metadata=seconds("How long requests in flight may take when the daemon stops.", zero=True)
    )
    spread: float = field(
        default=0.0,
        metadata=seconds("Parked polls are answered over this time when the daemon stops. 0: at once.", zero=True),
    )


@frozen
class CommunicationsApi:
    ssl: Ssl = field(metadata=about("TLS of the agents' API and of the enrolment listener."))
    host: tuple[str, ...] = field(
        default=("0.0.0.0",),
        metadata=about("The address to listen on, or a list of addresses.", scalar_or_list=True, non_empty=True),
    )
    port: int = field(
        default=27000,
        metadata=about("The port. `post` is taken for it, with a warning; both is an error.", minimum=0, maximum=65535),
    )
    workers: int = field(default=4, metadata=about("Processes.", minimum=1, maximum=512))
    logging: Logging = field(default=Logging(), metadata=about("The daemon's log, on stderr."))
    batcher: Batcher = field(default=Batcher(), metadata=about("How stateful events share bulk calls."))
    backend: Literal["wazuh", "embedded"] = field(
        default="wazuh",
        metadata=about(
            "Where agents, events and commands live: `wazuh` (indexer and engine) or `embedded` (files of its own)."
        ),
    )
    embedded: Embedded = field(default=Embedded(), metadata=about("The embedded backends."))
    quarantine: QuarantineSettings = field(default=QuarantineSettings(), metadata=about("What can never be taken."))
    events: Events = field(default=Events(), metadata=about("What agents may send."))
    files: Files = field(default=Files(), metadata=about("What `GET /files` serves."))
    token: Token = field(default=Token(), metadata=about("Agents' tokens."))
    command_socket: Path = field(
        default=Path("/run/wazuh-server/comms-api.sock"),
        metadata=about("The local command server's Unix socket, mode 0660.", check=socket_path),
    )
    enrollment: Enrollment | None = field(
        default=None, metadata=about("The enrolment listener, where agents join. Off unless the section is there.")
    )
    operators: Operators | None = field(
        default=None,
        metadata=about(
            "The operators' listener: metrics and status over HTTP, for reading alone. Off unless the section is there."
        ),
    )
    timeouts: Timeouts = field(
        default=Timeouts(), metadata=about("Time limits of the endpoints, from the last byte of the request.")
    )
    limits: Limits = field(default=Limits(), metadata=about("Limits of connections, of agents, and of all together."))
    balancers: Balancers = field(
        default=Balancers(),
        metadata=about(
            "Load balancers in front of this node, each an address (`10.0.0.5`) or a network (`10.0.0.0/24`)."
        ),
    )
    shutdown: Shutdown = field(default=Shutdown(), metadata=about("How the daemon stops."))
    presence: Presence = field(default=Presence(), metadata=about("When agents were heard last."))


@frozen
class Config:
    """What one file says, complete with defaults."""

    communications_api: CommunicationsApi = field(metadata=about("This program. An unknown key is an error."))
    indexer: Indexer = field(
        default=Indexer(), metadata=about("The indexer (`backend: wazuh`). An unknown key is a warning.")
    )
    engine: EngineSettings = field(
        default=EngineSettings(), metadata=about("The engine (`backend: wazuh`). An unknown key is a warning.")
    )

    @property
    def disconnected_after(self) -> float:
        """Seconds of silence after which an agent is ``disconnected``, whatever the backends."""
        chosen = self.communications_api.presence.disconnected_after
        return self.indexer.disconnected_after if chosen is None else chosen
