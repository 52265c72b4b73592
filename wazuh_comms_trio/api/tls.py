"""The TLS context of the daemon's listeners, from the configuration's ``ssl`` section."""

from __future__ import annotations

import ssl
import warnings

from wazuh_comms_trio.config.models import Ssl

__all__ = ["server_context"]

_EXACTLY = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}
_OLDEST = ("TLSv1", "TLSv1.1")


def server_context(settings: Ssl) -> ssl.SSLContext:
    """Blocks: reads the files. Raises ``OSError`` (``ssl.SSLError`` among them) and ``ValueError`` for what OpenSSL
    doesn't take; the configuration's check has said it better before.

    No ALPN: HTTP/1.1 is all there is. No session tickets and no session cache: agents never resume, and a ticket
    costs more than it gives. No renegotiation in TLS 1.2.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of 1.0 and 1.1, which the configuration's check warns about
        if (version := _EXACTLY.get(settings.ssl_protocol)) is not None:
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.maximum_version = version
            context.minimum_version = version
        else:
            context.minimum_version = ssl.TLSVersion.TLSv1_2
    ciphers = (settings.ssl_ciphers or "").strip()
    if settings.ssl_protocol in _OLDEST:
        # OpenSSL 3 signs nothing with SHA-1 above security level 0, and TLS before 1.2 signs with nothing else.
        ciphers = f"{ciphers or 'DEFAULT'}:@SECLEVEL=0"
    if ciphers:
        context.set_ciphers(ciphers)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    # Agents end without a close_notify. Bodies are framed, so nothing is cut off unnoticed, and who only closed one
    # direction can still be answered.
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    context.num_tickets = 0
    # An encrypted key without its password must not make OpenSSL ask for it on the terminal.
    password = settings.keyfile_password or ""
    context.load_cert_chain(settings.cert, settings.key, password=lambda: password)
    if settings.use_ca:
        if settings.ca is None:
            raise ValueError("ssl.use_ca needs ssl.ca")
        context.load_verify_locations(settings.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
