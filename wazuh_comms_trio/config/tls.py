"""``communications_api.ssl`` -> the server's ``ssl.SSLContext``."""

from __future__ import annotations

import ssl
import warnings
from typing import Final

from wazuh_comms_trio.config.models import Ssl

#: Versions that OpenSSL allows only at security level 0.
LEGACY_VERSIONS: Final = frozenset({"TLSv1", "TLSv1.1"})
_VERSIONS: Final = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}


def allows_tls13(settings: Ssl) -> bool:
    return settings.ssl_protocol in ("auto", "TLS", "TLSv1.3")


def cipher_list(settings: Ssl) -> str | None:
    """The ciphers for ``set_ciphers``; None: OpenSSL's own choice stays."""
    ciphers = (settings.ssl_ciphers or "").strip()
    if settings.ssl_protocol not in LEGACY_VERSIONS:
        return ciphers or None
    ciphers = ciphers or "DEFAULT"
    return ciphers if "@SECLEVEL" in ciphers.upper() else f"{ciphers}:@SECLEVEL=0"


def bare_context(settings: Ssl) -> ssl.SSLContext:
    """A context with versions and ciphers, without certificates. Raises ``ssl.SSLError`` when no cipher fits."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with warnings.catch_warnings():  # the two oldest versions are deprecated, which the operator was told
        warnings.simplefilter("ignore", DeprecationWarning)
        if version := _VERSIONS.get(settings.ssl_protocol):
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.maximum_version = context.minimum_version = version
        else:
            context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ciphers := cipher_list(settings):
        context.set_ciphers(ciphers)
    return context


def server_context(settings: Ssl) -> ssl.SSLContext:
    """The complete context, as the listeners use it. Blocks: reads the files. Raises ``OSError`` (``ssl.SSLError`` is
    one) and ``ValueError`` for what OpenSSL doesn't take; ``config.check`` has better words, and comes first.

    No ALPN: HTTP/1.1 is all there is. No session tickets in TLS 1.3: agents never resume, and a ticket costs more than
    it gives. In TLS 1.2 clients that ask for tickets get them: OpenSSL would else remember 20,480 sessions here, for
    two hours each, which are 20 MB, and no setting of Python's forbids it that. No renegotiation in TLS 1.2.
    """
    context = bare_context(settings)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # Agents end without a close_notify. Bodies are framed, so nothing is cut off unnoticed, and an agent that only
    # closed one direction can still be answered.
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    context.num_tickets = 0
    # A function, since OpenSSL would otherwise ask for the password of an encrypted key on the terminal.
    context.load_cert_chain(settings.cert, settings.key, password=lambda: settings.keyfile_password or "")
    if settings.use_ca:
        if settings.ca is None:
            raise ValueError("ssl.use_ca needs ssl.ca")
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cafile=settings.ca)
        if settings.crl is not None:
            context.load_verify_locations(cafile=settings.crl)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context
