"""How we prove ourselves to the indexer, and it to us: TLS contexts and secrets. Nothing here is ever logged."""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import trio
from attrs import field, frozen

from wazuh_comms_trio.config.backend_models import Indexer, IndexerSsl
from wazuh_comms_trio.http.client.connecting import connect_tcp

Connect = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""Host name and port to a connected stream, TLS included; raises ``OSError``."""

#: Names under which systemd's LoadCredential= may hand us the account.
_USERNAME_CREDENTIAL: Final = "indexer.username"
_PASSWORD_CREDENTIAL: Final = "indexer.password"  # noqa: S105  # a file's name


_KEY_CREDENTIAL: Final = "indexer.ssl.key"
_CERTIFICATE_CREDENTIAL: Final = "indexer.ssl.certificate"


class AccessError(Exception):
    """A file that the configuration names can't be used. The text names the file and the reason."""


@frozen
class Account:
    """The indexer's account: a basic-authentication header, or none."""

    authorization: str | None = field(default=None, repr=False)


def _read(path: Path, what: str) -> str:
    """The first line of a file: an editor's newline at the end is no part of a password, a blank is."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise AccessError(f"{what} {path} cannot be read: {getattr(exc, 'strerror', None) or 'not UTF-8'}") from exc
    return text.rstrip("\r\n")


def _credential(name: str, environment: Mapping[str, str]) -> Path | None:
    """systemd's file of this name, if there is one: it stands in for what the configuration says."""
    folder = environment.get("CREDENTIALS_DIRECTORY")
    path = Path(folder, name) if folder else None
    return path if path is not None and path.is_file() else None


def read_account(settings: Indexer, environment: Mapping[str, str] = os.environ) -> Account:
    """The account, from the configuration's files, if there are any. Raises ``AccessError``."""
    username, password = settings.username, settings.password
    if settings.password_file is not None:
        # An absolute path stays what it is.
        path = Path(environment.get("CREDENTIALS_DIRECTORY", ""), settings.password_file)
        password = _read(path, "the indexer's password file")
    elif credential := _credential(_PASSWORD_CREDENTIAL, environment):
        password = _read(credential, "the credential")
    if credential := _credential(_USERNAME_CREDENTIAL, environment):
        username = _read(credential, "the credential")
    if username is None:
        return Account()
    pair = f"{username}:{password or ''}".encode()
    return Account(f"Basic {base64.b64encode(pair).decode()}")


def make_ssl_context(settings: IndexerSsl, environment: Mapping[str, str] = os.environ) -> ssl.SSLContext | None:
    """The client's TLS context; None without TLS. Raises ``AccessError``. Costs milliseconds and megabytes: made
    once."""
    if not settings.use_ssl:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    authorities = [path for path in settings.certificate_authorities if str(path) not in ("", ".")]
    if settings.certificate_authorities_bundle is not None:
        authorities.append(settings.certificate_authorities_bundle)
    for path in authorities:
        try:
            context.load_verify_locations(cafile=path)
        except (OSError, ssl.SSLError) as exc:
            raise AccessError(f"the certificate authority {path} cannot be used: {_reason(exc)}") from exc
    if not authorities:
        context.load_default_certs()
    if not settings.verify_certificates:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate = _credential(_CERTIFICATE_CREDENTIAL, environment) or settings.certificate
    key = _credential(_KEY_CREDENTIAL, environment) or settings.key
    if certificate is not None:
        try:
            # With no passphrase given, OpenSSL would ask on the terminal.
            context.load_cert_chain(certificate, key, password=lambda: "")
        except (OSError, ssl.SSLError) as exc:
            files = f"{certificate} with the key {key or certificate}"
            raise AccessError(f"the client certificate {files} cannot be used: {_reason(exc)}") from exc
    return context


def _reason(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLError):
        return exc.reason or str(exc)
    return exc.strerror or str(exc)


def make_connector(settings: IndexerSsl) -> Connect:
    """TCP, and TLS as configured. Raises ``AccessError`` for unusable files."""
    context = make_ssl_context(settings)

    async def connect(host: str, port: int) -> trio.abc.Stream:
        return await connect_tcp(host, port, context)

    return connect
