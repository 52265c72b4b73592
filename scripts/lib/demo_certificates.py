"""A small CA and the server's certificate, EC P-256, for this machine's names."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 3650
SERVER_DAYS = 825
RENEW_BEFORE = timedelta(days=40)


def host_names() -> list[str]:
    """localhost and the host's own names."""
    names = ["localhost", socket.gethostname(), socket.getfqdn()]
    return [name for name in dict.fromkeys(names) if is_dns_name(name)]


def is_dns_name(name: str) -> bool:
    return 0 < len(name) <= 253 and name.isascii() and all(0 < len(part) <= 63 for part in name.split("."))


def make_certificates(folder: Path) -> None:
    """ca.pem, ca-key.pem, server.pem and server-key.pem. What is there and good stays; the server's certificate is
    made anew by the same CA when it ends soon, or when the host has another name."""
    folder.mkdir(mode=0o700, exist_ok=True)
    names = host_names()
    if is_good(folder, names):
        return
    if not (folder / "ca-key.pem").exists() or not (folder / "ca.pem").exists():
        make_ca(folder)
    make_server(folder, names)


def is_good(folder: Path, names: Sequence[str]) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate((folder / "server.pem").read_bytes())
        issuer = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        certificate.verify_directly_issued_by(issuer)
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    lasts = certificate.not_valid_after_utc > datetime.now(UTC) + RENEW_BEFORE
    return lasts and set(names) <= set(found.get_values_for_type(x509.DNSName)) and (folder / "server-key.pem").exists()


def builder(subject: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def make_ca(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = f"wazuh-comms demo CA on {socket.gethostname()}"[:64]
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        builder(name, issuer, key.public_key(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(signs_certificates=True), critical=True)
        .sign(key, SHA256())
    )
    write_pair(folder / "ca-key.pem", key, folder / "ca.pem", certificate)


def make_server(folder: Path, names: Sequence[str]) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    ca = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    ca_key = load_pem_private_key((folder / "ca-key.pem").read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    addresses = [x509.IPAddress(ip_address(text)) for text in ("127.0.0.1", "::1")]
    certificate = (
        builder("wazuh-comms", ca.subject, key.public_key(), SERVER_DAYS)
        .add_extension(x509.SubjectAlternativeName([*map(x509.DNSName, names), *addresses]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            ),
            critical=False,
        )
        .sign(ca_key, SHA256())
    )
    write_pair(folder / "server-key.pem", key, folder / "server.pem", certificate)


def write_pair(key_file: Path, key: ec.EllipticCurvePrivateKey, file: Path, certificate: x509.Certificate) -> None:
    key_file.unlink(missing_ok=True)
    descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    file.write_bytes(certificate.public_bytes(Encoding.PEM))
