"""A CA of the tests, which issues certificates with any name and lists those that it revokes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

Pair = tuple[Path, Path]


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@define
class Authority:
    """Files are in ``folder``, which is its own. ``may_list``: its certificate says that it signs lists, too.
    ``key_ids``: what it signs says with which key, by which OpenSSL tells CAs of one name apart."""

    folder: Path
    name: str = "tests"
    may_list: bool = True
    key_ids: bool = False
    key: ec.EllipticCurvePrivateKey = field(factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    issued: int = 0

    @property
    def now(self) -> datetime:
        return datetime.now(UTC).replace(microsecond=0)

    def _signed(
        self, public: ec.EllipticCurvePublicKey, subject: x509.Name, *more: x509.ExtensionType
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(_name(self.name))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now - timedelta(days=1))
            .not_valid_after(self.now + timedelta(days=90))
        )
        if self.key_ids:
            more = (*more, x509.SubjectKeyIdentifier.from_public_key(public), self._key_id())
        for extension in more:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self.key, SHA256())

    def _key_id(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())

    def file(self) -> Path:
        """Its own certificate."""
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=self.may_list,
            encipher_only=False,
            decipher_only=False,
        )
        path = self.folder / "ca.pem"
        own = self._signed(self.key.public_key(), _name(self.name), x509.BasicConstraints(True, None), usage)
        path.write_bytes(own.public_bytes(Encoding.PEM))
        return path

    def issue(self, common_name: str = "", *, dns: Sequence[str] = (), uris: Sequence[str] = ()) -> Pair:
        """A client's certificate and key."""
        self.issued += 1
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(each) for each in dns]
        names += [x509.UniformResourceIdentifier(each) for each in uris]
        more = [x509.SubjectAlternativeName(names)] if names else []
        subject = _name(common_name) if common_name else x509.Name([])
        certificate = self._signed(key.public_key(), subject, *more)
        cert_file, key_file = self.folder / f"{self.issued}.pem", self.folder / f"{self.issued}.key"
        cert_file.write_bytes(certificate.public_bytes(Encoding.PEM))
        key_file.touch(mode=0o600)
        key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return cert_file, key_file

    def revoke(
        self,
        *pairs: Pair,
        file: str = "crl.pem",
        begins: timedelta = timedelta(days=-2),
        ends: timedelta = timedelta(days=30),
    ) -> Path:
        """A list of these."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name(self.name))
            .last_update(self.now + begins)
            .next_update(self.now + ends)
        )
        for certificate, _ in pairs:
            serial = x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(self.now).build()
            builder = builder.add_revoked_certificate(revoked)
        if self.key_ids:
            builder = builder.add_extension(self._key_id(), critical=False)
        path = self.folder / file
        path.write_bytes(builder.sign(self.key, SHA256()).public_bytes(Encoding.PEM))
        return path
