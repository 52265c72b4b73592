"""The account and the certificates that the indexer's client uses."""

from __future__ import annotations

import base64
import logging
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.indexer.bench import ask, client_of, fakes
from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable
from wazuh_comms_trio.backends.opensearch.client.credentials import AccessError, make_ssl_context, read_account
from wazuh_comms_trio.config.backend_models import Indexer, IndexerSsl

# --- the account ---


async def test_basic_authentication(autojump_clock: MockClock) -> None:
    async with fakes("a") as nodes, client_of(nodes, username="ü", password="p:w") as client:  # noqa: S106
        await ask(client)
        expected = base64.b64encode("ü:p:w".encode()).decode()
        assert nodes["a"].headers["authorization"] == f"Basic {expected}"
    async with fakes("a") as nodes, client_of(nodes) as client:
        await ask(client)
        assert "authorization" not in nodes["a"].headers


async def test_a_password_file_that_changes(
    autojump_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "password"
    file.write_text("first-secret\n")
    right = "second-secret"
    async with fakes("a") as nodes, client_of(nodes, username="u", password_file=file) as client:
        node = nodes["a"]

        def judge(method: str, path: str) -> Any:
            expected = base64.b64encode(f"u:{right}".encode()).decode()
            return None if node.headers.get("authorization") == f"Basic {expected}" else (401, "Unauthorized")

        node.faults.whole = judge
        with pytest.raises(IndexerUnavailable, match="401"):
            await client.json("GET", "/")
        file.write_text("second-secret")
        assert await ask(client, 3) == 3
        file.unlink()
        assert await ask(client, 3) == 3  # the one that works is kept
        assert "account: refused" in caplog.text
        assert "account: works again" in caplog.text
        assert "secret" not in caplog.text
        assert "secret" not in repr(client._account)


async def test_an_account_that_is_refused_is_not_hammered_with(autojump_clock: MockClock) -> None:
    """Each check of a password is dear to the indexer, and wrong ones may lock the account."""
    async with fakes("a") as nodes, client_of(nodes, username="u", password="p") as client:  # noqa: S106
        node = nodes["a"]
        node.faults.whole = lambda method, path: (401, "Unauthorized")
        for _ in range(100):
            with pytest.raises(IndexerUnavailable, match=r"401|refuses our account") as caught:
                await client.json("GET", "/")
            assert caught.value.reply is not None
            assert caught.value.reply.status == 401
            await trio.sleep(0.1)
        assert len(node.requests) <= 11
        node.faults.whole = lambda method, path: None
        began = trio.current_time()
        while not await ask(client):  # noqa: ASYNC110  # nothing tells
            await trio.sleep(0.1)
        assert trio.current_time() - began < 1.2
        assert await ask(client, 10) == 10


def test_where_secrets_come_from(tmp_path: Path) -> None:
    def account(environment: dict[str, str] | None = None, **more: Any) -> str | None:
        header = read_account(Indexer(**more), environment or {}).authorization
        return None if header is None else base64.b64decode(header.removeprefix("Basic ")).decode()

    systemd = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert account() is None
    assert account(systemd) is None
    assert account(username="u") == "u:"
    (tmp_path / "mine").write_text(" of-the-file \r\n")
    assert account(username="u", password="p", password_file=tmp_path / "mine") == "u: of-the-file "  # noqa: S106
    assert account(systemd, username="u", password_file=Path("mine")) == "u: of-the-file "
    (tmp_path / "indexer.password").write_text("credential")
    assert account(systemd, username="u") == "u:credential"
    assert account(systemd, username="u", password="p") == "u:credential"  # noqa: S106  # it stands in for it
    (tmp_path / "indexer.username").write_text("name\n")
    assert account(systemd) == "name:credential"
    assert account(systemd, username="u", password_file=Path("mine")) == "name: of-the-file "
    with pytest.raises(AccessError, match="No such file"):
        account(username="u", password_file=tmp_path / "missing")


def test_unusable_certificates_are_named(tmp_path: Path) -> None:
    missing, garbage = tmp_path / "missing.pem", tmp_path / "garbage.pem"
    garbage.write_text("garbage")
    assert make_ssl_context(IndexerSsl()) is None
    for bad in (missing, garbage):
        with pytest.raises(AccessError, match=bad.name):
            make_ssl_context(IndexerSsl(use_ssl=True, certificate_authorities=(bad,)))
        with pytest.raises(AccessError, match=bad.name):
            make_ssl_context(IndexerSsl(use_ssl=True, certificate_authorities_bundle=bad))
        with pytest.raises(AccessError, match=bad.name):
            make_ssl_context(IndexerSsl(use_ssl=True, certificate=bad, key=bad))
    assert make_ssl_context(IndexerSsl(use_ssl=True, certificate_authorities=(Path(""),))) is not None
