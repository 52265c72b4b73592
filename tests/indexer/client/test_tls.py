"""TLS towards the indexer: through a proxy that ends it in front of a real OpenSearch."""

from __future__ import annotations

import datetime
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trustme
from attrs import frozen

from tests.indexer.cluster import shared_node
from tests.indexer.harness import call, settings
from tests.indexer.proxy import proxy
from wazuh_comms_trio.backends.opensearch.admin.check import check_indexer
from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable, OpenSearchClient
from wazuh_comms_trio.config.backend_models import Indexer, IndexerHost, IndexerSsl

pytestmark = [pytest.mark.indexer, pytest.mark.real_clock]


@frozen
class Pki:
    folder: Path
    authority: trustme.CA
    ca: Path
    client: Path
    client_key: Path

    def server(self, *names: str, expired: bool = False, wants_client: bool = False) -> ssl.SSLContext:
        past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
        leaf = self.authority.issue_cert(*names, not_before=past, not_after=past) if expired else None
        leaf = leaf or self.authority.issue_cert(*names)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        leaf.configure_cert(context)
        if wants_client:
            context.verify_mode = ssl.CERT_REQUIRED
            self.authority.configure_trust(context)
        return context


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    authority = trustme.CA()
    made = Pki(tmp_path, authority, *(tmp_path / f"{name}.pem" for name in ("ca", "client", "client-key")))
    authority.cert_pem.write_to_path(made.ca)
    leaf = authority.issue_cert("daemon")
    leaf.cert_chain_pems[0].write_to_path(made.client)
    leaf.private_key_pem.write_to_path(made.client_key)
    return made


@asynccontextmanager
async def reach(context: ssl.SSLContext, host: str = "localhost", **tls: Any) -> AsyncIterator[Indexer]:
    """The settings that reach a real node behind TLS."""
    async with proxy(shared_node().port, context) as between:
        made = settings(between.port, ssl=IndexerSsl(use_ssl=True, **tls))
        yield attrs.evolve(made, hosts=(IndexerHost(host, between.port),))


async def version(indexer: Indexer) -> str:
    async with OpenSearchClient(indexer) as client:
        for _ in range(3):
            answer = await client.json("GET", "/")
    return str(answer["version"]["number"])


def expected_version() -> str:
    return str(call(shared_node().port, "GET", "/")["version"]["number"])


async def failure(indexer: Indexer) -> str:
    """What the client says, and what the operator's tool does; they agree."""
    with pytest.raises(IndexerUnavailable) as caught:
        await version(indexer)
    (finding,) = [each async for each in check_indexer(indexer) if each.what.startswith("connection")]
    assert finding.level == "problem"
    return f"{caught.value} -> {finding.remedy}"


async def test_a_ca_file_or_a_bundle(pki: Pki) -> None:
    for tls in ({"certificate_authorities": (pki.ca,)}, {"certificate_authorities_bundle": pki.ca}):
        async with reach(pki.server("localhost"), **tls) as indexer:
            assert await version(indexer) == expected_version()


async def test_a_large_exchange(pki: Pki) -> None:
    async with (
        reach(pki.server("localhost"), certificate_authorities=(pki.ca,)) as indexer,
        OpenSearchClient(indexer) as client,
    ):
        body = b"".join(b'{"create":{"_index":"tls","_id":"%d"}}\n{"t":"%b"}\n' % (n, b"x" * 2000) for n in range(400))
        for _ in range(2):
            reply = await client.request("POST", "/_bulk", body)
            assert reply.status == 200
            assert reply.body.count(b'"_id"') == 400


@pytest.mark.parametrize("known", [True, False])
async def test_an_address_in_place_of_a_name(pki: Pki, known: bool) -> None:
    names = ("localhost", "127.0.0.1") if known else ("localhost",)
    async with reach(pki.server(*names), "127.0.0.1", certificate_authorities=(pki.ca,)) as indexer:
        if known:
            assert await version(indexer) == expected_version()
        else:
            assert "certificate is not accepted: IP address mismatch" in await failure(indexer)


async def test_another_ca(pki: Pki) -> None:
    async with reach(pki.server("localhost")) as indexer:  # the system's
        assert "certificate_authorities must name the CA" in await failure(indexer)
    other = pki.folder / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    async with reach(pki.server("localhost"), certificate_authorities=(other,)) as indexer:
        assert "certificate is not accepted: unable to get local issuer" in await failure(indexer)


async def test_an_expired_certificate(pki: Pki) -> None:
    async with reach(pki.server("localhost", expired=True), certificate_authorities=(pki.ca,)) as indexer:
        assert "certificate is not accepted: certificate has expired" in await failure(indexer)


async def test_unverified(pki: Pki) -> None:
    context = pki.server("elsewhere", expired=True)
    async with reach(context, "127.0.0.1", verify_certificates=False) as indexer:
        assert await version(indexer) == expected_version()
        found = [each async for each in check_indexer(indexer)]
        assert "are not verified" in [each.text for each in found if each.level == "warning"]


async def test_a_client_certificate(pki: Pki, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    trusted: dict[str, Any] = {"certificate_authorities": (pki.ca,)}
    context = pki.server("localhost", wants_client=True)
    async with reach(context, **trusted, certificate=pki.client, key=pki.client_key) as indexer:
        assert await version(indexer) == expected_version()
    async with reach(context, **trusted) as indexer:
        assert "indexer.ssl" in await failure(indexer)
    assert "PRIVATE KEY" not in caplog.text


async def test_no_tls_where_it_is_expected_and_the_other_way_round(pki: Pki) -> None:
    async with reach(pki.server("localhost"), certificate_authorities=(pki.ca,)) as indexer:
        plain = attrs.evolve(indexer, ssl=IndexerSsl())
        assert "does it expect TLS" in await failure(plain)
    tls = IndexerSsl(use_ssl=True, certificate_authorities=(pki.ca,))
    assert "use_ssl" in await failure(settings(shared_node().port, ssl=tls))
