"""Keys, certificates and TLS settings: what is refused, and what is warned about."""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from wazuh_comms_trio.config.load import LoadedConfig, load_config
from wazuh_comms_trio.config.problems import ConfigError
from wazuh_comms_trio.config.tls import server_context
from wazuh_comms_trio.daemon.worker.environment import load_keys
from wazuh_comms_trio.services.authentication.tokens import TokenKeys, read_token

PASSWORD = "secret words"  # noqa: S105  # of a key made for the test


@frozen
class Pair:
    """A key and its certificate, written by ``make_pair``."""

    key: Path
    cert: Path


def write_pair(
    folder: Path, key: Any, *, days: float = 365, starts: float = -1, password: str | None = None, name: str = "server"
) -> Pair:
    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=starts))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )
    encryption: KeySerializationEncryption = NoEncryption()
    if password is not None:
        encryption = BestAvailableEncryption(password.encode())
    pair = Pair(folder / f"{name}.key.pem", folder / f"{name}.pem")
    pair.key.touch(mode=0o600)
    pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    pair.cert.write_bytes(certificate.public_bytes(Encoding.PEM))
    return pair


@pytest.fixture(scope="module")
def ec_key() -> PrivateKeyTypes:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def rsa_key() -> PrivateKeyTypes:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def pair(tmp_path: Path, ec_key: PrivateKeyTypes) -> Pair:
    return write_pair(tmp_path, ec_key)


Load = Callable[..., LoadedConfig]


@pytest.fixture
def load_ssl(tmp_path: Path) -> Load:
    def load_it(pair: Pair, more: str = "", rest: str = "") -> LoadedConfig:
        file = tmp_path / "c.yml"
        file.write_text(
            f"communications_api:\n  backend: embedded\n  ssl: {{key: {pair.key}, cert: {pair.cert}{more}}}\n{rest}"
        )
        return load_config(file)

    return load_it


def said(error: pytest.ExceptionInfo[ConfigError]) -> list[tuple[str, str]]:
    return [(problem.path.removeprefix("communications_api."), problem.text) for problem in error.value.problems]


def warned(loaded: LoadedConfig) -> list[tuple[str, str]]:
    return [(warning.path.removeprefix("communications_api."), warning.text) for warning in loaded.warnings]


def test_sound_pair(load_ssl: Load, pair: Pair) -> None:
    assert load_ssl(pair).warnings == ()


def test_rsa_pair(load_ssl: Load, tmp_path: Path, rsa_key: PrivateKeyTypes) -> None:
    assert load_ssl(write_pair(tmp_path, rsa_key)).warnings == ()


def test_missing_files_are_both_named(load_ssl: Load, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_ssl(Pair(tmp_path / "no.key", tmp_path / "no.pem"))
    found = said(caught)
    assert [path for path, _ in found] == ["ssl.cert", "ssl.key"]
    assert all("can't be read: No such file or directory" in text for _, text in found)


def test_files_are_looked_at_though_other_keys_are_wrong(load_ssl: Load, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_ssl(Pair(tmp_path / "no.key", tmp_path / "no.pem"), rest="  port: x\n")
    assert [path for path, _ in said(caught)] == ["ssl.cert", "ssl.key", "port"]


@pytest.mark.parametrize(
    "content", [b"", b"nothing", b"\xff\xfe", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_files_that_are_not_pem(load_ssl: Load, pair: Pair, content: bytes) -> None:
    pair.key.write_bytes(content)
    pair.cert.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_ssl(pair)
    assert [(path, text.partition('" ')[2]) for path, text in said(caught)] == [
        ("ssl.cert", "has no certificate in PEM"),
        ("ssl.key", "isn't a private key in PEM"),
    ]


def test_folder_in_place_of_a_file(load_ssl: Load, pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_ssl(Pair(tmp_path, pair.cert))
    assert said(caught) == [("ssl.key", f'"{tmp_path}" isn\'t a file')]


def test_key_of_another_certificate(load_ssl: Load, pair: Pair, tmp_path: Path) -> None:
    other = write_pair(tmp_path, ec.generate_private_key(ec.SECP256R1()), name="other")
    with pytest.raises(ConfigError) as caught:
        load_ssl(Pair(other.key, pair.cert))
    assert said(caught) == [
        ("ssl.key", f'"{other.key}" is not accepted: it isn\'t the key of the certificate {pair.cert}')
    ]


@pytest.mark.parametrize(
    ("days", "starts", "words"),
    [
        (29.5, -1, "in 29 days"),
        (1.5, -1, "in 1 day"),
        (0.5, -1, "in 0 days"),
        (-0.5, -5, "the certificate expired on"),
        (400, 2, "the certificate isn't valid before"),
        (20, 2, "the certificate isn't valid before"),  # and will expire soon after
    ],
)
def test_certificate_that_does_not_last(
    load_ssl: Load, tmp_path: Path, ec_key: PrivateKeyTypes, days: float, starts: float, words: str
) -> None:
    ((path, text),) = warned(load_ssl(write_pair(tmp_path, ec_key, days=days, starts=starts)))
    assert path == "ssl.cert"
    assert words in text


def test_certificate_of_31_days_is_fine(load_ssl: Load, tmp_path: Path, ec_key: PrivateKeyTypes) -> None:
    assert load_ssl(write_pair(tmp_path, ec_key, days=31)).warnings == ()


@pytest.mark.parametrize(("mode", "warns"), [(0o600, False), (0o640, False), (0o604, True), (0o644, True)])
def test_key_that_others_can_read(load_ssl: Load, pair: Pair, mode: int, warns: bool) -> None:
    pair.key.chmod(mode)
    found = warned(load_ssl(pair))
    assert [path for path, _ in found] == (["ssl.key"] if warns else [])


ENCRYPTED = "is encrypted: that is taken of ssl.key alone, and needs ssl.keyfile_password"


def test_encrypted_key(load_ssl: Load, tmp_path: Path, ec_key: PrivateKeyTypes) -> None:
    pair = write_pair(tmp_path, ec_key, password=PASSWORD)
    loaded = load_ssl(pair, f", keyfile_password: {PASSWORD}")
    assert server_context(loaded.config.communications_api.ssl).get_ca_certs() == []
    with pytest.raises(ConfigError) as caught:
        load_ssl(pair)
    assert said(caught) == [("ssl.key", f'"{pair.key}" {ENCRYPTED}')]
    with pytest.raises(ConfigError) as caught:
        load_ssl(pair, ", keyfile_password: hunter2")
    assert said(caught) == [("ssl.key", f'"{pair.key}" can\'t be decrypted with ssl.keyfile_password')]


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (lambda: ec.generate_private_key(ec.SECP384R1()), "it is an EC key on secp384r1"),
        (ed25519.Ed25519PrivateKey.generate, "it is a key of type Ed25519"),
        (lambda: rsa.generate_private_key(65537, 1024), "it is an RSA key of 1024 bits"),
    ],
)
def test_token_key_of_another_type(
    load_ssl: Load, pair: Pair, tmp_path: Path, key: Callable[[], Any], words: str
) -> None:
    token = write_pair(tmp_path, key(), name="token").key
    with pytest.raises(ConfigError) as caught:
        load_ssl(pair, rest=f"  token: {{private_key: {token}}}\n")
    ((path, text),) = said(caught)
    assert path == "token.private_key"
    assert words in text
    assert "EC P-256 (ES256) or RSA" in text


def test_tls_key_that_cannot_sign_tokens_needs_another(
    load_ssl: Load, tmp_path: Path, rsa_key: PrivateKeyTypes
) -> None:
    pair = write_pair(tmp_path, ec.generate_private_key(ec.SECP384R1()))
    with pytest.raises(ConfigError) as caught:
        load_ssl(pair)
    ((path, text),) = said(caught)
    assert path == "ssl.key"
    assert "name such a key in token.private_key" in text
    token = write_pair(tmp_path, rsa_key, name="token").key
    assert load_ssl(pair, rest=f"  token: {{private_key: {token}}}\n").warnings == ()


def test_public_keys_of_other_nodes(load_ssl: Load, pair: Pair, tmp_path: Path, ec_key: PrivateKeyTypes) -> None:
    public = tmp_path / "public.pem"
    public.write_bytes(ec_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    settings = load_ssl(pair, rest=f"  token: {{verify_keys: [{public}, {pair.cert}]}}\n").config.communications_api
    keys, _ = load_keys(settings)
    other = TokenKeys.from_pem(ec_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert read_token(keys, other.mint("0194857f-39b5-7bfb-a7bc-c5c6835f03d1", "f", 1_750_000_000).encode())
    for file, words in (
        (tmp_path / "missing", "No such file"),
        (pair.key, "only public keys belong here"),
        (tmp_path / "c.yml", "isn't a public key in PEM"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_ssl(pair, rest=f"  token: {{verify_keys: {file}}}\n")
        ((path, text),) = said(caught)
        assert path == "token.verify_keys"
        assert words in text


def test_nodes_on_an_indexer_should_share_a_key(pair: Pair, tmp_path: Path) -> None:
    file = tmp_path / "wazuh.yml"
    file.write_text(f"communications_api:\n  backend: wazuh\n  ssl: {{key: {pair.key}, cert: {pair.cert}}}\n")
    (warning,) = [each for each in load_config(file).warnings if each.path.endswith("token.private_key")]
    assert "of several nodes each needs the same key" in warning.text


def test_client_certificates(load_ssl: Load, pair: Pair, tmp_path: Path) -> None:
    context = server_context(load_ssl(pair, f", use_ca: true, ca: {pair.cert}").config.communications_api.ssl)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert load_ssl(pair, f", ca: {tmp_path / 'missing'}").warnings == ()  # not used
    for more, words in (
        (f", ca: {tmp_path / 'missing'}", "No such file"),
        (f", ca: {pair.key}", "no certificate"),
        ("", "is missing"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_ssl(pair, f", use_ca: true{more}")
        ((path, text),) = said(caught)
        assert path == "ssl.ca"
        assert words in text


@pytest.mark.parametrize(
    ("protocol", "lowest", "highest"),
    [
        ("auto", ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3),
        ("TLS", ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3),
        ("TLSv1.2", ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2),
        ("TLSv1.3", ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3),
        ("TLSv1.1", ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_1),
        ("TLSv1", ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1),
    ],
)
def test_protocols(load_ssl: Load, pair: Pair, protocol: str, lowest: ssl.TLSVersion, highest: ssl.TLSVersion) -> None:
    loaded = load_ssl(pair, f", ssl_protocol: {protocol}")
    old = protocol in ("TLSv1", "TLSv1.1")
    assert [path for path, _ in warned(loaded)] == (["ssl.ssl_protocol"] if old else [])
    context = server_context(loaded.config.communications_api.ssl)
    tried = (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    agreed = {version for version in tried if agree(version, context, pair)}
    assert agreed == {version for version in tried if lowest <= version <= highest}


def agree(version: ssl.TLSVersion, server_side: ssl.SSLContext, pair: Pair) -> bool:
    """Whether a client of exactly this version and this context complete a handshake, in memory."""
    client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_side.check_hostname = False
    client_side.load_verify_locations(pair.cert)
    client_side.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        client_side.minimum_version = client_side.maximum_version = version
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    waiting = [client_side.wrap_bio(down, up), server_side.wrap_bio(up, down, server_side=True)]
    for _ in range(10):
        for peer in list(waiting):
            try:
                peer.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
            waiting.remove(peer)
    return not waiting


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (", ssl_ciphers: 'TLS_AES_256_GCM_SHA384'", "suites of TLS 1.3 can't be chosen"),
        (", ssl_ciphers: 'ECDHE+AESGCM:!TLS_AES_128_CCM_SHA256'", "suites of TLS 1.3 can't be chosen"),
        (", ssl_ciphers: 'NONSENSE'", "selects none"),
        (", ssl_ciphers: 'ECDHE+AESGCM\u00e9'", "selects none"),
    ],
)
def test_ciphers_that_are_refused(load_ssl: Load, pair: Pair, more: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_ssl(pair, more)
    ((path, text),) = said(caught)
    assert path == "ssl.ssl_ciphers"
    assert words in text


def test_ciphers_for_old_versions_only(load_ssl: Load, pair: Pair) -> None:
    ciphers = ", ssl_ciphers: 'ECDHE-ECDSA-AES256-GCM-SHA384'"
    loaded = load_ssl(pair, ciphers)
    ((path, text),) = warned(loaded)
    assert path == "ssl.ssl_ciphers"
    assert "TLS 1.3, which stays allowed" in text
    chosen = {cipher["name"] for cipher in server_context(loaded.config.communications_api.ssl).get_ciphers()}
    assert {name for name in chosen if not name.startswith("TLS_")} == {"ECDHE-ECDSA-AES256-GCM-SHA384"}
    assert load_ssl(pair, ciphers + ", ssl_protocol: TLSv1.2").warnings == ()
    ((_, text),) = warned(load_ssl(pair, ciphers + ", ssl_protocol: TLSv1.3"))
    assert "has no effect" in text


def test_a_key_for_the_indexer_without_its_certificate_is_warned_about(pair: Pair) -> None:
    def warnings(indexer: str) -> list[str]:
        text = f"communications_api: {{ssl: {{key: {pair.key}, cert: {pair.cert}}}}}\nindexer: {{ssl: {{{indexer}}}}}\n"
        loaded = load_config("wazuh-server.yml", text=text, check_files=False)
        return [problem.render(loaded.file) for problem in loaded.warnings]

    assert warnings(f"key: {pair.key}, certificate: {pair.cert}") == []
    (warning,) = warnings(f"key: {pair.key}")
    assert "indexer.ssl.certificate: is missing: without it `key` is of no use" in warning
