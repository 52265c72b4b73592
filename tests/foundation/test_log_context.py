"""How a log line says an address. (What else it carries: tests/daemon/logging.)"""

from __future__ import annotations

from wazuh_comms_trio.foundation.log_context import format_address


def test_an_address_of_version_6_has_brackets() -> None:
    assert format_address(("127.0.0.1", 1)) == "127.0.0.1:1"
    assert format_address(("::1", 1, 0, 0)) == "[::1]:1"
