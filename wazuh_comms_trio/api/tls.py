"""The TLS context of the daemon's listeners. It is made where the configuration is checked, so that what was found
good is what is used."""

from __future__ import annotations

from wazuh_comms_trio.config.tls import server_context

__all__ = ["server_context"]
