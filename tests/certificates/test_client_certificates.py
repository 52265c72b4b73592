"""``ssl.client_identity`` binds an agent's certificate to its token; ``ssl.crl`` keeps revoked ones out."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve
from cryptography import x509
from trio.testing import MockClock

from tests.certificates.authority import Authority, Pair
from tests.conftest import Certificates
from tests.http.server.listener import serving
from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.config.models import CommunicationsApi, Config, Ssl
from wazuh_comms_trio.config.problems import ConfigError
from wazuh_comms_trio.config.tls import server_context
from wazuh_comms_trio.daemon.key_files import key_files_in_memory, read_key_files
from wazuh_comms_trio.daemon.worker.environment import revocation_list
from wazuh_comms_trio.testing import ExchangeFailed, agent_tls, open_tls, stateless_event
from wazuh_comms_trio.testing.node.daemon import Daemon, daemon_config, open_daemon

UUID, OTHER = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1", "0194857f-39b5-7bfb-a7bc-c5c6835f03d2"
EVENTS = [stateless_event("m", "c", {"n": 1})]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    folder = tmp_path / "authority"
    folder.mkdir()
    return Authority(folder)


def config(authority: Authority, **changes: Any) -> Config:
    made = daemon_config()
    settings = evolve(made.communications_api.ssl, use_ca=True, ca=authority.file(), **changes)
    return daemon_config(ssl=settings)


async def outcome(daemon: Daemon, uuid: str, certificate: Pair, token: str | None = None) -> tuple[int, int | None]:
    """The statuses of a log-in, and of a request with ``token`` or what the log-in gave; None where there is none."""
    agent = daemon.client(uuid, certificate=certificate)
    logged_in = (await agent.authenticate()).status
    agent.token = token or agent.token
    return logged_in, None if agent.token is None else (await agent.post_stateless(EVENTS)).status


async def test_a_certificate_goes_with_the_agent_that_it_names(authority: Authority, autojump_clock: MockClock) -> None:
    own = [
        authority.issue(UUID),
        authority.issue(UUID.upper()),
        authority.issue("web-1", dns=["web-1.example", UUID]),
        authority.issue(uris=[f"urn:uuid:{UUID}"]),
        authority.issue(dns=[OTHER, UUID]),  # two agents on one host
    ]
    foreign = [
        authority.issue(OTHER),
        authority.issue("web-1"),
        authority.issue(f"{UUID}.example"),
        authority.issue(f"x{UUID}", uris=[f"https://example/{UUID}"]),
        authority.issue(),
    ]
    async with open_daemon(config(authority, client_identity="uuid")) as daemon:
        agent = await daemon.enrol_agent(UUID, certificate=own[0])
        assert (await agent.authenticate()).status == 200
        stolen = agent.token
        for pair in own:
            assert await outcome(daemon, UUID, pair) == (200, 204)
            assert await outcome(daemon, UUID.upper(), pair) == (200, 204)
        for pair in foreign:
            assert await outcome(daemon, UUID, pair, stolen) == (401, 403)
        thief = daemon.client(UUID, certificate=foreign[0])
        thief.token = stolen
        reply = await thief.poll()
        assert (reply.status, reply.json()["code"]) == (403, 2706)
        assert (await thief.get_group_file("default")).status == 403
        assert (await thief.alive()).status == 200  # which is nobody's


async def test_by_default_any_certificate_of_the_ca_goes_with_any_agent(
    authority: Authority, autojump_clock: MockClock
) -> None:
    async with open_daemon(config(authority)) as daemon:
        await daemon.enrol_agent(UUID)
        assert await outcome(daemon, UUID, authority.issue(OTHER)) == (200, 204)


async def refusal(settings: Ssl, certificate: Pair) -> str:
    """What a client with the certificate is told; nothing when it is let in."""
    async with serving(ssl_context=server_context(settings)) as server:
        try:
            stream = await open_tls(server.connect, agent_tls(certificate=certificate), host="localhost")
            # In TLS 1.3 the client is done before the server has seen its certificate.
            await stream.send_all(b"GET /api/v1/ HTTP/1.1\r\nHost: h\r\n\r\n")
            await stream.receive_some(1)
        except (trio.BrokenResourceError, ExchangeFailed) as error:
            return str(getattr(error.__cause__, "reason", "no reason"))
    return ""


REVOKED = "SSLV3_ALERT_CERTIFICATE_REVOKED"


async def test_revoked_certificates_are_kept_out(
    authority: Authority, certificates: Certificates, autojump_clock: MockClock
) -> None:
    good, bad = authority.issue(UUID), authority.issue(OTHER)
    crl = authority.revoke(bad)
    settings = Ssl(certificates.key, certificates.cert, use_ca=True, ca=authority.file(), crl=crl)
    assert await refusal(settings, good) == ""
    assert await refusal(settings, bad) == REVOKED
    assert await refusal(evolve(settings, crl=None), bad) == ""
    # A generation of workers has what the file held when it began, and the next one what it holds then.
    api = CommunicationsApi(settings)
    before = read_key_files(api)
    authority.revoke(good)
    for kept, expected in ((before, ["", REVOKED]), (read_key_files(api), [REVOKED, ""])):
        with key_files_in_memory(api, kept) as in_memory:
            assert [await refusal(in_memory.ssl, each) for each in (good, bad)] == expected
    authority.revoke(ends=timedelta(days=-1))
    assert await refusal(settings, good) != ""


def problems(folder: Path, certificates: Certificates, **ssl_keys: Any) -> tuple[list[str], list[str]]:
    """What is wrong with such a section, and what is warned about."""
    lines = {"key": certificates.key, "cert": certificates.cert, **ssl_keys}
    file = folder / "server.yml"
    text = "".join(
        f"    {name}: {str(value).lower() if isinstance(value, bool) else value}\n" for name, value in lines.items()
    )
    file.write_text(f"communications_api:\n  backend: embedded\n  ssl:\n{text}")
    try:
        loaded = load_config(file)
    except ConfigError as error:
        return [problem.render(file) for problem in error.problems], []
    return [], [warning.render(file) for warning in loaded.warnings]


def test_what_config_check_says(authority: Authority, certificates: Certificates, tmp_path: Path) -> None:
    ca, crl = authority.file(), authority.revoke()

    def found(**keys: Any) -> str:
        wrong, warned = problems(tmp_path, certificates, **keys)
        return "\n".join([*wrong, *warned])

    assert "crl" not in found(use_ca=True, ca=ca, crl=crl, client_identity="uuid")
    assert "needs `use_ca: true`" in found(crl=crl)
    assert "needs `use_ca: true`" in found(client_identity="uuid")
    assert "can't be read" in found(use_ca=True, ca=ca, crl=tmp_path / "missing.pem")
    assert "has no list of revoked certificates" in found(use_ca=True, ca=ca, crl=ca)
    (tmp_path / "bad.pem").write_text("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")
    assert "has no list of revoked certificates" in found(use_ca=True, ca=ca, crl=tmp_path / "bad.pem")
    other = Authority(tmp_path, name="another").revoke()
    assert "no list in it is of a CA of `ca`" in found(use_ca=True, ca=ca, crl=other)
    past = authority.revoke(file="past.pem", ends=timedelta(days=-1))
    assert "expired on" in found(use_ca=True, ca=ca, crl=past)


async def test_a_list_that_would_keep_everybody_out_is_refused_or_said(
    certificates: Certificates, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """What OpenSSL does with each is asked, too: of a list that is wrong it says so to each agent, and lets none in."""

    async def found(authority: Authority, crl: Path) -> tuple[str, bool, str]:
        """What is wrong, whether an agent gets in all the same, what is warned about."""
        keys: dict[str, Any] = {"use_ca": True, "ca": authority.file(), "crl": crl}
        wrong, warned = problems(tmp_path, certificates, **keys)
        settings = Ssl(certificates.key, certificates.cert, **keys)
        gets_in = await refusal(settings, authority.issue(UUID)) == ""
        return "\n".join(wrong), gets_in, "\n".join(warned)

    def made(folder: str, **options: Any) -> Authority:
        (tmp_path / folder).mkdir()
        return Authority(tmp_path / folder, **options)

    own = made("own")
    assert (await found(own, own.revoke()))[:2] == ("", True)

    rekeyed = made("rekeyed")  # the name is the same
    wrong, gets_in, _ = await found(own, rekeyed.revoke())
    assert "its list of CN=tests isn't signed by a CA of `ca`" in wrong
    assert not gets_in

    silent = made("silent", may_list=False)
    wrong, gets_in, _ = await found(silent, silent.revoke())
    assert "that may sign one, so that no agent gets in" in wrong
    assert not gets_in

    wrong, gets_in, warned = await found(own, own.revoke(begins=timedelta(days=1)))
    assert (wrong, gets_in) == ("", False)  # it passes by itself
    assert "isn't valid before" in warned

    # Two CAs, one list: the agents of one get in.
    other = made("other", name="other")
    list_of_other = other.revoke()
    both = own.file()
    both.write_text(both.read_text() + other.file().read_text())
    keys: dict[str, Any] = {"use_ca": True, "ca": both, "crl": list_of_other}
    wrong_keys, warnings = problems(tmp_path, certificates, **keys)
    assert wrong_keys == []
    assert any("has no list of CN=tests, a CA of `ca`" in warning for warning in warnings)
    settings = Ssl(certificates.key, certificates.cert, **keys)
    assert await refusal(settings, other.issue(UUID)) == ""
    assert await refusal(settings, own.issue(UUID)) != ""
    list_of_other.write_text(list_of_other.read_text() + own.revoke().read_text())
    assert not any("has no list" in warning for warning in problems(tmp_path, certificates, **keys)[1])
    assert await refusal(settings, own.issue(UUID)) == ""


async def test_each_of_two_cas_with_one_name_needs_a_list(
    certificates: Certificates, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A CA with a new key and its old name: OpenSSL keeps out the agents of the one that signed no list."""
    folders = [tmp_path / "old", tmp_path / "new"]
    for folder in folders:
        folder.mkdir()
    old, new = (Authority(folder, key_ids=True) for folder in folders)
    both = tmp_path / "both.pem"
    both.write_text(old.file().read_text() + new.file().read_text())
    crl = old.revoke()
    keys: dict[str, Any] = {"use_ca": True, "ca": both, "crl": crl}
    wrong, (warning,) = problems(tmp_path, certificates, **keys)
    assert wrong == []
    serial = x509.load_pem_x509_certificate((folders[1] / "ca.pem").read_bytes()).serial_number
    assert f"isn't signed by the CA CN=tests with the serial number {serial:X}" in warning
    settings = Ssl(certificates.key, certificates.cert, **keys)
    assert await refusal(settings, old.issue(UUID)) == ""
    assert await refusal(settings, new.issue(UUID)) != ""
    crl.write_text(crl.read_text() + new.revoke().read_text())
    assert problems(tmp_path, certificates, **keys) == ([], [])
    assert await refusal(settings, new.issue(UUID)) == ""
    crl.write_text(old.revoke().read_text() + new.revoke(ends=timedelta(days=-1)).read_text())
    wrong, (warning,) = problems(tmp_path, certificates, **keys)
    assert (wrong, "expired on" in warning) == ([], True)
    found = revocation_list(CommunicationsApi(settings))
    assert found is not None
    assert found.end < new.now.timestamp()
    assert await refusal(settings, old.issue(UUID)) == ""
    assert await refusal(settings, new.issue(UUID)) != ""


async def test_a_list_of_tens_of_thousands_is_read_whole(
    authority: Authority, certificates: Certificates, tmp_path: Path, autojump_clock: MockClock
) -> None:
    agent, revoked = authority.issue(UUID), authority.issue(OTHER)
    crl, ca = authority.revoke(revoked), authority.file()
    crl.write_text("    Serial Number: 01\n" * 100_000 + crl.read_text())  # `openssl crl -text` writes such lines first
    assert problems(tmp_path, certificates, use_ca=True, ca=ca, crl=crl) == ([], [])
    settings = Ssl(certificates.key, certificates.cert, use_ca=True, ca=ca, crl=crl)
    assert revocation_list(CommunicationsApi(settings)) is not None
    assert [await refusal(settings, each) == "" for each in (agent, revoked)] == [True, False]


async def test_of_several_lists_of_a_ca_one_in_force_will_do(
    authority: Authority, certificates: Certificates, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A newer list may be appended to the file, and lists of other CAs may be in it."""
    agent, revoked = authority.issue(UUID), authority.issue(OTHER)
    fresh = authority.revoke(revoked)
    past = authority.revoke(file="past.pem", ends=timedelta(hours=-1))
    coming = authority.revoke(file="coming.pem", begins=timedelta(days=1), ends=timedelta(days=9))
    (tmp_path / "foreign").mkdir()
    foreign = Authority(tmp_path / "foreign", name="foreign").revoke(ends=timedelta(hours=-1))
    file, ca = tmp_path / "lists.pem", authority.file()
    for lists in [(past, fresh), (fresh, past), (fresh, coming), (foreign, fresh)]:
        file.write_text("".join(each.read_text() for each in lists))
        assert problems(tmp_path, certificates, use_ca=True, ca=ca, crl=file) == ([], [])
        settings = Ssl(certificates.key, certificates.cert, use_ca=True, ca=ca, crl=file)
        assert await refusal(settings, agent) == ""
        assert await refusal(settings, revoked) != ""
        found = revocation_list(CommunicationsApi(settings))
        assert found is not None
        assert found.end - found.start == timedelta(days=32).total_seconds()


def test_the_end_of_a_list_is_known(authority: Authority, certificates: Certificates, tmp_path: Path) -> None:
    """Of several CAs' the one that ends first: its agents are kept out then."""
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", name="other")
    ca = authority.file()
    ca.write_text(ca.read_text() + other.file().read_text())
    settings = Ssl(certificates.key, certificates.cert, use_ca=True, ca=ca)
    assert revocation_list(CommunicationsApi(settings)) is None
    crl = authority.revoke()
    crl.write_text(crl.read_text() + other.revoke(ends=timedelta(days=1)).read_text())
    found = revocation_list(CommunicationsApi(evolve(settings, crl=crl)))
    assert found is not None
    assert found.end - found.start == timedelta(days=3).total_seconds()
    assert abs(found.end - (authority.now + timedelta(days=1)).timestamp()) < 60
    crl.write_text("")  # while it is written
    assert revocation_list(CommunicationsApi(evolve(settings, crl=crl))) is None
