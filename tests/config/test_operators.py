"""``communications_api.operators``: who could read where is decided before the daemon starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Certificates
from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.config.problems import ConfigError
from wazuh_comms_trio.config.sections.operators import TcpAddress, parse_listen


def problems(
    folder: Path, certificates: Certificates, operators: dict[str, Any], others: dict[str, Any] | None = None
) -> list[str]:
    api = {"ssl": {"key": str(certificates.key), "cert": str(certificates.cert)}, "operators": operators}
    file = folder / "wazuh-server.yml"
    file.write_text(yaml.safe_dump({"communications_api": {**api, "files": {"path": str(folder)}, **(others or {})}}))
    try:
        load_config(file)
    except ConfigError as error:
        return [problem.render(file) for problem in error.problems]
    return []


@pytest.mark.parametrize("listen", ["/run/o.sock", "127.0.0.1:9108", "127.0.0.9:0", "[::1]:9108", "localhost:9108"])
def test_what_needs_nothing_more(tmp_path: Path, certificates: Certificates, listen: str) -> None:
    assert problems(tmp_path, certificates, {"listen": listen}) == []


@pytest.mark.parametrize("listen", ["0.0.0.0:9108", "[::]:9108", "10.0.0.5:9108"])
def test_an_address_that_others_reach_needs_tls_and_a_secret(
    tmp_path: Path, certificates: Certificates, listen: str
) -> None:
    tls = {"key": str(certificates.key), "cert": str(certificates.cert)}
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    for less in ({}, {"ssl": tls}, {"token_file": str(token)}):
        (problem,) = problems(tmp_path, certificates, {"listen": listen, **less})
        assert "whoever reaches it could read there" in problem
        assert "operators.listen" in problem
    assert problems(tmp_path, certificates, {"listen": listen, "ssl": tls, "token_file": str(token)}) == []
    assert problems(tmp_path, certificates, {"listen": listen, "ssl": {**tls, "ca": str(certificates.ca)}}) == []


@pytest.mark.parametrize(
    "listen", ["9108", ":9108", "example.org:9108", "::1:9108", "127.0.0.1:99999", "127.0.0.1:x", "o.sock"]
)
def test_what_is_no_place(tmp_path: Path, certificates: Certificates, listen: str) -> None:
    (problem,) = problems(tmp_path, certificates, {"listen": listen})
    assert "a Unix socket's path, or an IP address and a port" in problem
    assert "`/run/comms.sock`" in problem  # a path is absolute


@pytest.mark.parametrize(
    ("listen", "api", "key"),
    [
        ("127.0.0.1:27000", {}, "port"),
        ("127.0.0.1:27000", {"host": "0.0.0.0"}, "port"),
        ("[::1]:27000", {"host": ["127.0.0.1", "::"]}, "port"),
        ("[::1]:27000", {"host": "0.0.0.0"}, None),
        ("127.0.0.1:27000", {"host": "10.0.0.5"}, None),
        ("127.0.0.1:27000", {"host": "localhost"}, None),  # a name, which nothing looks up here
        ("127.0.0.1:0", {"port": 0}, None),
        ("127.0.0.1:55000", {"enrollment": {"host": "127.0.0.1", "users": {"a": "x" * 64}}}, "enrollment.port"),
        ("127.0.0.1:9108", {"enrollment": {"host": "127.0.0.1", "users": {"a": "x" * 64}}}, None),
        ("/run/c.sock", {"command_socket": "/run/c.sock"}, "command_socket"),
        ("/run/o.sock", {"command_socket": "/run/c.sock"}, None),
    ],
)
def test_a_place_that_another_listener_of_ours_has(
    tmp_path: Path, certificates: Certificates, listen: str, api: dict[str, Any], key: str | None
) -> None:
    found = [line for line in problems(tmp_path, certificates, {"listen": listen}, api) if "operators.listen" in line]
    assert len(found) == (key is not None)
    assert all(line.endswith(f"than communications_api.{key}'s") for line in found)


def test_a_unix_socket_has_no_tls(tmp_path: Path, certificates: Certificates) -> None:
    tls = {"key": str(certificates.key), "cert": str(certificates.cert)}
    (problem,) = problems(tmp_path, certificates, {"ssl": tls})
    assert "a Unix socket has no TLS" in problem


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"short\n",
        b"a token with blanks in it",
        b"0123456789abcdef\nmore",
        "schl\u00fcssel-schl\u00fcssel".encode(),
    ],
)
def test_tokens_that_are_none(tmp_path: Path, certificates: Certificates, text: bytes) -> None:
    token = tmp_path / "token"
    token.write_bytes(text)
    (problem,) = problems(tmp_path, certificates, {"listen": "127.0.0.1:9108", "token_file": str(token)})
    assert "operators.token_file" in problem


def test_files_are_looked_at(tmp_path: Path, certificates: Certificates) -> None:
    tls = {"key": str(certificates.client_key), "cert": str(certificates.cert), "ca": str(tmp_path / "none.pem")}
    missing = str(tmp_path / "no-token")
    found = problems(tmp_path, certificates, {"listen": "127.0.0.1:9108", "ssl": tls, "token_file": missing})
    assert len(found) == 3
    assert any("isn't the key of the certificate" in problem for problem in found)
    assert sum("can't be read" in problem for problem in found) == 2


def test_places() -> None:
    assert parse_listen("/run/o.sock") == Path("/run/o.sock")
    assert parse_listen("[::1]:9108") == TcpAddress("::1", 9108)
    assert parse_listen("localhost:9108") == TcpAddress("127.0.0.1", 9108)


@pytest.mark.parametrize(("after", "warned"), [(120, True), (358, True), (370, False)])
def test_thresholds_by_which_agents_that_are_there_would_be_lost(
    tmp_path: Path, certificates: Certificates, after: int, warned: bool
) -> None:
    api = {"ssl": {"key": str(certificates.key), "cert": str(certificates.cert)}, "files": {"path": str(tmp_path)}}
    file = tmp_path / "wazuh-server.yml"
    for events in (True, False):
        presence = {"events": events, "disconnected_after": after}
        file.write_text(yaml.safe_dump({"communications_api": {**api, "presence": presence}}))
        texts = [warning.render(file) for warning in load_config(file).warnings]
        assert any("may be told as lost" in text for text in texts) is (warned and events)
