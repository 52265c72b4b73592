"""What keys of a file mean to each other, beyond one value at a time. No I/O: files are ``config.check``'s."""

from __future__ import annotations

import re
import ssl
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.config.models import Ssl as SslSettings
from wazuh_comms_trio.config.reader import Reader
from wazuh_comms_trio.config.sections.operators import TcpAddress
from wazuh_comms_trio.config.tls import LEGACY_VERSIONS, allows_tls13, bare_context

_API: Final = "communications_api"
#: Seconds until what was heard of an agent is stored, and a few more.
_STORED_AFTER: Final = 60.0
#: Seconds (spec, PROTOCOL.md 1).
AGENT_TIMEOUT: Final = 60
_WILDCARDS: Final = {"0.0.0.0", "::"}
#: Below these no agent, or not every one, is served: of a head with a token half of it; a batch of events by default
#: (spec, PROTOCOL.md 1); a few round trips to the other side of the world, with a lost packet among them.
_LEAST_LIMITS: Final = {
    "head_bytes": (2048, "bytes: an agent's head has its token in it, some 1000 bytes"),
    "body_bytes": (1 << 20, "bytes: agents send batches of 1 MB, and send one again that was refused"),
    "handshake_timeout": (2, "s: an agent on a slow link needs longer"),
    "head_timeout": (2, "s: an agent on a slow link needs longer"),
    "body_timeout": (2, "s: an agent on a slow link needs longer"),
    "stall_timeout": (2, "s: an agent on a slow link needs longer"),
    "send_timeout": (2, "s: an agent on a slow link needs longer"),
}


def apply_rules(reader: Reader, config: Config) -> None:
    """Notes problems and warnings of combinations whose parts are sound."""
    _ports(reader, config)
    _timeouts(reader, config)
    _limits(reader, config)
    _enrollment(reader, config)
    _operators(reader, config)
    _sizes(reader, config)
    _presence(reader, config)
    _tls(reader, config.communications_api.ssl)
    _indexer(reader, config)
    _balancers(reader, config)


def _ports(reader: Reader, config: Config) -> None:
    api, enrollment = config.communications_api, config.communications_api.enrollment
    if enrollment is None or enrollment.port != api.port or enrollment.port == 0:
        return
    clash = set(api.host) & set(enrollment.host) or _WILDCARDS & {*api.host, *enrollment.host}
    if clash and reader.sound(f"{_API}.port", f"{_API}.host", f"{_API}.enrollment"):
        text = f"{enrollment.port} is not accepted; accepted is another port than {_API}.port's"
        reader.problem_at(f"{_API}.enrollment.port", text)


def _timeouts(reader: Reader, config: Config) -> None:
    timeouts = config.communications_api.timeouts
    for name in ("authentication", "stateless", "stateful", "files", "scan"):
        path, seconds = f"{_API}.timeouts.{name}", getattr(timeouts, name)
        if seconds >= AGENT_TIMEOUT and reader.sound(path):
            text = f"{seconds:g} s are too long: an agent gives up after {AGENT_TIMEOUT} s, and sends it again"
            reader.warning_at(path, text)


def _limits(reader: Reader, config: Config) -> None:
    limits = config.communications_api.limits
    for name, (least, reason) in _LEAST_LIMITS.items():
        path, value = f"{_API}.limits.{name}", getattr(limits, name)
        if value < least and reader.sound(path):
            reader.warning_at(path, f"{value} is little, less than {least} {reason}")


def _enrollment(reader: Reader, config: Config) -> None:
    path, enrollment = f"{_API}.enrollment", config.communications_api.enrollment
    if enrollment is not None and not enrollment.users and reader.sound(path):
        text = "nobody may enrol agents; `wazuh-comms enrollment passwd USER` makes an entry"
        reader.warning_at(f"{path}.users", text)


def _operators(reader: Reader, config: Config) -> None:
    path, operators = f"{_API}.operators", config.communications_api.operators
    if operators is None or not reader.sound(path):
        return
    address = operators.address
    if isinstance(address, Path):
        if operators.ssl is not None:
            reader.problem_at(f"{path}.ssl", "is not accepted: a Unix socket has no TLS; its mode is its protection")
        if address == config.communications_api.command_socket and reader.sound(f"{_API}.command_socket"):
            text = f'"{address}" is not accepted; accepted is another path than {_API}.command_socket\'s'
            reader.problem_at(f"{path}.listen", text)
        return
    _operators_port(reader, config, address)
    open_to_all = operators.ssl is None or (operators.ssl.ca is None and operators.token_file is None)
    if not address.is_loopback and open_to_all:
        text = (
            f'"{operators.listen}" is not accepted: whoever reaches it could read there; accepted is the path of '
            "a Unix socket, a loopback address, or another one with `ssl` and either `ssl.ca` or `token_file`"
        )
        reader.problem_at(f"{path}.listen", text)


def _operators_port(reader: Reader, config: Config, address: TcpAddress) -> None:
    api = config.communications_api
    others = [("port", "host", api.port, api.host)]
    if api.enrollment is not None:
        others.append(("enrollment.port", "enrollment.host", api.enrollment.port, api.enrollment.host))
    for port_key, host_key, port, hosts in others:
        is_taken = address.port == port != 0 and any(_is_same(host, address) for host in hosts)
        if is_taken and reader.sound(f"{_API}.{port_key}", f"{_API}.{host_key}"):
            text = f"port {port} is not accepted; accepted is another one than {_API}.{port_key}'s"
            reader.problem_at(f"{_API}.operators.listen", text)


def _is_same(host: str, address: TcpAddress) -> bool:
    """Whether both would listen on one address, as far as that is known without looking a name up."""
    try:
        ours, theirs = ip_address(host), ip_address(address.host)
    except ValueError:
        return False
    return ours.version == theirs.version and (ours == theirs or ours.is_unspecified or theirs.is_unspecified)


def _sizes(reader: Reader, config: Config) -> None:
    path, events = f"{_API}.embedded.events", config.communications_api.embedded.events
    if events.max_file_bytes > events.max_bytes and reader.sound(path):
        text = f"{events.max_file_bytes} is not accepted; accepted is at most max_bytes, {events.max_bytes}"
        reader.problem_at(f"{path}.max_file_bytes", text)
    path, api = f"{_API}.embedded.documents.max_bytes", config.communications_api
    shared = api.events.document_id == "global" and api.embedded.documents.agent_percent < 100
    if api.embedded.documents.max_bytes and shared and reader.sound(path, f"{_API}.events.document_id"):
        reader.warning_at(path, "with `events.document_id: global` no agent has a share: one can use it all up")


def _presence(reader: Reader, config: Config) -> None:
    path, api = f"{_API}.presence", config.communications_api
    least = api.timeouts.commands + _STORED_AFTER
    if api.presence.events and config.disconnected_after < least and reader.sound(path, f"{_API}.timeouts"):
        text = f"agents that are there may be told as lost: disconnected_after should be {least:g} s at least"
        reader.warning_at(f"{path}.events", f"{text}, a poll and a minute until it is stored")


def _tls(reader: Reader, settings: SslSettings) -> None:
    path = f"{_API}.ssl"
    if settings.use_ca and settings.ca is None and reader.sound(f"{path}.ca", f"{path}.use_ca"):
        reader.problem_at(f"{path}.ca", "is missing: a path, and `use_ca: true` needs it")
    for name, is_set in (("crl", settings.crl is not None), ("client_identity", settings.client_identity != "any")):
        if is_set and not settings.use_ca and reader.sound(f"{path}.{name}", f"{path}.use_ca"):
            reader.problem_at(f"{path}.{name}", "needs `use_ca: true`: without it agents show no certificate")
    if settings.ssl_protocol in LEGACY_VERSIONS:
        text = f"{settings.ssl_protocol} is broken; it is allowed with `@SECLEVEL=0`, which the client needs too"
        reader.warning_at(f"{path}.ssl_protocol", text)
    if settings.ssl_ciphers is not None and reader.sound(f"{path}.ssl_ciphers"):
        _ciphers(reader, settings, settings.ssl_ciphers)


def _indexer(reader: Reader, config: Config) -> None:
    path, settings = "indexer.ssl", config.indexer.ssl
    if settings.key is not None and settings.certificate is None and reader.sound(f"{path}.key", f"{path}.certificate"):
        reader.warning_at(f"{path}.certificate", "is missing: without it `key` is of no use")


def _balancers(reader: Reader, config: Config) -> None:
    settings = config.communications_api.balancers
    for name, networks in (("proxy_protocol", settings.proxy_protocol), ("forwarded_for", settings.forwarded_for)):
        path = f"{_API}.balancers.{name}"
        if reader.sound(path) and any(ip_network(network).prefixlen == 0 for network in networks):
            reader.warning_at(path, "takes anybody's word for an agent's address; name the balancers alone")


def _ciphers(reader: Reader, settings: SslSettings, ciphers: str) -> None:
    path = f"{_API}.ssl.ssl_ciphers"
    suites = [name for name in re.split(r"[:, ]+", ciphers) if name.lstrip("!+-").upper().startswith("TLS_")]
    if suites:
        text = "suites of TLS 1.3 can't be chosen; accepted is an OpenSSL cipher list for TLS 1.2 and below"
        reader.problem_at(path, f'"{", ".join(suites)}" is not accepted: {text}')
        return
    if not reader.sound(f"{_API}.ssl.ssl_protocol"):
        return
    try:
        bare_context(settings)
    except (ssl.SSLError, ValueError):
        reader.problem_at(
            path, f'"{ciphers}" is not accepted; accepted is an OpenSSL cipher list, and this selects none'
        )
        return
    if settings.ssl_protocol == "TLSv1.3":
        reader.warning_at(path, "has no effect: only TLS 1.3 is allowed, and its suites can't be chosen")
    elif allows_tls13(settings):
        text = "says nothing about TLS 1.3, which stays allowed; `ssl_protocol: TLSv1.2` would end that"
        reader.warning_at(path, text)
