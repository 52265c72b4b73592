"""How we prove ourselves to the indexer, and it to us: TLS contexts and secrets. Nothing here is ever logged."""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import field, frozen

from wazuh_comms_trio.config.models import Indexer, IndexerSsl

#: Names under which systemd's LoadCredential= may hand us the account.
_USERNAME_CREDENTIAL: Final = "indexer.username"
_PASSWORD_CREDENTIAL: Final = "indexer.password"  # noqa: S105  # a file's name


class AccessError(Exception):
    """A file that the configuration names can't be used. The text names the file and the reason."""


@frozen
class Account:
    """A basic-authentication header, or none."""

    authorization: str | None = field(default=None, repr=False)


def _read(path: Path, what: str) -> str:
    """One line: an editor's newline at the end is no part of a password, a blank is."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise AccessError(f"{what} {path} cannot be read: {getattr(exc, 'strerror', None) or 'not UTF-8'}") from exc
    return text.rstrip("\r\n")


def read_account(settings: Indexer, environment: Mapping[str, str] = os.environ) -> Account:
    """Reads the files, if there are any. Raises ``AccessError``."""
    folder = environment.get("CREDENTIALS_DIRECTORY")
    credentials = Path(folder) if folder else None
    username, password = settings.username, settings.password
    if settings.password_file is not None:
        path = settings.password_file
        if credentials is not None and not path.is_absolute():
            path = credentials / path
        password = _read(path, "the indexer's password file")
    elif password is None and credentials is not None and (credentials / _PASSWORD_CREDENTIAL).exists():
        password = _read(credentials / _PASSWORD_CREDENTIAL, "the credential")
    if username is None and credentials is not None and (credentials / _USERNAME_CREDENTIAL).exists():
        username = _read(credentials / _USERNAME_CREDENTIAL, "the credential")
    if username is None:
        return Account()
    pair = f"{username}:{password or ''}".encode()
    return Account(f"Basic {base64.b64encode(pair).decode()}")


def make_ssl_context(settings: IndexerSsl) -> ssl.SSLContext | None:
    """None without TLS. Raises ``AccessError``. Costs milliseconds and megabytes: made once."""
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
    if settings.certificate is not None:
        try:
            # With no passphrase given, OpenSSL would ask on the terminal.
            context.load_cert_chain(settings.certificate, settings.key, password=lambda: "")
        except (OSError, ssl.SSLError) as exc:
            files = f"{settings.certificate} with the key {settings.key or settings.certificate}"
            raise AccessError(f"the client certificate {files} cannot be used: {_reason(exc)}") from exc
    return context


def _reason(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLError):
        return exc.reason or str(exc)
    return exc.strerror or str(exc)
