"""Keys and certificates that a configuration names: do they exist, fit each other, and last?"""

from __future__ import annotations

import os
import re
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from wazuh_comms_trio.config.models import CommunicationsApi, Config, Ssl, Token
from wazuh_comms_trio.config.reader import Reader
from wazuh_comms_trio.config.sections.operators import Operators
from wazuh_comms_trio.config.tls import server_context

#: A certificate is warned about from this time before its end.
EXPIRES_SOON: Final = timedelta(days=30)
_SMALLEST_RSA: Final = 2048
_LARGEST_FILE: Final = 1 << 20
#: A revoked certificate takes 50 bytes, and some programs write each as text before that.
_LARGEST_LIST: Final = 1 << 26
_API: Final = "communications_api"
_KEY: Final = f"{_API}.ssl.key"
_CERT: Final = f"{_API}.ssl.cert"
_CA: Final = f"{_API}.ssl.ca"
_CRL: Final = f"{_API}.ssl.crl"
_PEM_CRL: Final = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)
_OPERATORS: Final = f"{_API}.operators"
_SHORTEST_TOKEN: Final = 16
_VERIFY_KEYS: Final = f"{_API}.token.verify_keys"
_TOKEN_KEY: Final = f"{_API}.token.private_key"


class FileProblem(Exception):
    """A file can't be used; the text is a sentence that follows its path."""


def check_files(reader: Reader, config: Config, *, now: datetime | None = None) -> None:
    """Notes what is wrong with the files of ``communications_api.ssl`` and ``.token``. ``now`` is for tests."""
    ssl = config.communications_api.ssl
    key = _key(reader, ssl.key, ssl.keyfile_password, _KEY)
    chain = _certificates(reader, ssl.cert, _CERT)
    now = now or datetime.now(UTC)
    for position, certificate in enumerate(chain):
        name = "the certificate" if position == 0 else f"number {position + 1} of its certificates"
        _note_dates(reader, _CERT, certificate, name, now, "agents that verify it will not connect")
    if ssl.use_ca and ssl.ca is not None:
        authorities = _certificates(reader, ssl.ca, _CA)
        for certificate in authorities:
            _note_dates(
                reader, _CA, certificate, "the CA's certificate", now, "agents with certificates of it get nowhere"
            )
        if ssl.crl is not None and authorities and reader.sound(_CRL):
            _crl(reader, ssl.crl, authorities, now)
    if key and chain and _public(key) != _public(chain[0]):
        reader.problem_at(_KEY, f'"{ssl.key}" is not accepted: it isn\'t the key of the certificate {ssl.cert}')
    elif key and chain and reader.sound(f"{_API}.ssl"):
        _context(reader, ssl)
    _token_key(reader, config, key)
    _operators(reader, config.communications_api.operators, now)


def read_token_file(path: Path) -> str:
    """The operators' token. Raises ``FileProblem``."""
    try:
        token = _read(path).decode("ascii").strip()
    except UnicodeDecodeError:
        raise FileProblem("has characters that no header may have") from None
    if len(token) < _SHORTEST_TOKEN or not token.isprintable() or " " in token:
        raise FileProblem(f"has no token: one line of at least {_SHORTEST_TOKEN} characters without blanks")
    return token


def _operators(reader: Reader, operators: Operators | None, now: datetime) -> None:
    if operators is None:
        return
    if operators.token_file is not None and reader.sound(_OPERATORS):
        try:
            read_token_file(operators.token_file)
        except FileProblem as problem:
            reader.problem_at(f"{_OPERATORS}.token_file", f'"{operators.token_file}" {problem}')
    if operators.ssl is None:
        return
    key = _key(reader, operators.ssl.key, None, f"{_OPERATORS}.ssl.key")
    chain = _certificates(reader, operators.ssl.cert, f"{_OPERATORS}.ssl.cert")
    if operators.ssl.ca is not None:
        _certificates(reader, operators.ssl.ca, f"{_OPERATORS}.ssl.ca")
    if key and chain:
        if _public(key) != _public(chain[0]):
            text = f'"{operators.ssl.key}" is not accepted: it isn\'t the key of the certificate {operators.ssl.cert}'
            reader.problem_at(f"{_OPERATORS}.ssl.key", text)
        effect = "who verifies it can't read metrics and status"
        _note_dates(reader, f"{_OPERATORS}.ssl.cert", chain[0], "the certificate", now, effect)


def _crl(reader: Reader, file: Path, authorities: list[x509.Certificate], now: datetime) -> None:
    try:
        lists = read_crls(file)
    except FileProblem as problem:
        reader.problem_at(_CRL, f'"{file}" {problem}')
        return
    own = lists_of(authorities, lists)
    if not own:
        reader.problem_at(_CRL, f'"{file}" is not accepted: no list in it is of a CA of `ca`, so that no agent gets in')
    for issuer, of_one in own.items():
        if not all(any(_may_have_signed(authority, crl) for authority in authorities) for crl in of_one):
            listed = issuer.rfc4514_string()
            text = f"its list of {listed} isn't signed by a CA of `ca` that may sign one, so that no agent gets in"
            reader.problem_at(_CRL, f'"{file}" is not accepted: {text}')
    issuers = {authority.issuer for authority in authorities if authority.issuer != authority.subject}
    for name in dict.fromkeys(authority.subject for authority in authorities):
        if own and name not in own and name not in issuers:  # only who issues agents' certificates needs one
            text = f"has no list of {name.rfc4514_string()}, a CA of `ca`: agents with certificates of it get nowhere"
            reader.warning_at(_CRL, f'"{file}" {text}')
    if reader.sound(_CRL):
        for of_one_key in lists_of_keys(authorities, lists):
            _note_list_dates(reader, of_one_key, now)
        _note_namesakes(reader, file, [each for each in authorities if each.subject not in issuers], own)


def _note_namesakes(
    reader: Reader,
    file: Path,
    authorities: list[x509.Certificate],
    lists: dict[x509.Name, list[x509.CertificateRevocationList]],
) -> None:
    """Of several CAs with one name, such as a CA and the one that follows it, each needs a list signed by its own
    key. (A renewed certificate with the same key doesn't.)"""
    for authority in authorities:
        of_the_name = lists.get(authority.subject, [])
        if of_the_name and not any(_may_have_signed(authority, crl) for crl in of_the_name):
            which = f"{authority.subject.rfc4514_string()} with the serial number {authority.serial_number:X}"
            text = f"its list isn't signed by the CA {which}, which is in `ca`, too: agents with certificates of it get"
            reader.warning_at(_CRL, f'"{file}": {text} nowhere')


def _note_list_dates(reader: Reader, lists: list[x509.CertificateRevocationList], now: datetime) -> None:
    """Of the lists of one key any that is in force will do."""
    begun = [crl for crl in lists if crl.last_update_utc <= now]
    if not begun:
        start = f"{min(crl.last_update_utc for crl in lists):%Y-%m-%d %H:%M} UTC"
        text = f"the list of revoked certificates isn't valid before {start}; no agent gets in until then"
        reader.warning_at(_CRL, text)
    elif (end := max(map(end_of_list, begun))) <= now:
        text = f"the list of revoked certificates expired on {end:%Y-%m-%d %H:%M} UTC; no agent gets in"
        reader.warning_at(_CRL, text)


def lists_of(
    authorities: list[x509.Certificate], lists: list[x509.CertificateRevocationList]
) -> dict[x509.Name, list[x509.CertificateRevocationList]]:
    """The lists of these CAs, by their names; others keep nobody out."""
    own = {authority.subject for authority in authorities}
    found: dict[x509.Name, list[x509.CertificateRevocationList]] = {}
    for crl in lists:
        if crl.issuer in own:
            found.setdefault(crl.issuer, []).append(crl)
    return found


def lists_of_keys(
    authorities: list[x509.Certificate], lists: list[x509.CertificateRevocationList]
) -> list[list[x509.CertificateRevocationList]]:
    """The lists that each key of these CAs has signed, if any. Of several of one key OpenSSL takes one that
    is in force, wherever it stands."""
    signed = [[crl for crl in lists if _may_have_signed(authority, crl)] for authority in authorities]
    return [found for place, found in enumerate(signed) if found and found not in signed[:place]]


def end_of_list(crl: x509.CertificateRevocationList) -> datetime:
    """The greatest date where a list has no end."""
    return crl.next_update_utc or datetime.max.replace(tzinfo=UTC)


def _may_have_signed(authority: x509.Certificate, crl: x509.CertificateRevocationList) -> bool:
    """As OpenSSL asks it for each agent."""
    if authority.subject != crl.issuer:
        return False
    try:
        if not authority.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign:
            return False
    except x509.ExtensionNotFound:
        pass
    except ValueError:
        return False
    try:
        return crl.is_signature_valid(authority.public_key())  # type: ignore[arg-type]  # others raise
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return False


def read_crls(path: Path) -> list[x509.CertificateRevocationList]:
    """The revocation lists of a file, at least one. Raises ``FileProblem``."""
    try:
        found = [x509.load_pem_x509_crl(block) for block in _PEM_CRL.findall(_read(path, _LARGEST_LIST))]
    except ValueError:
        found = []
    if not found:
        raise FileProblem("has no list of revoked certificates in PEM")
    return found


def _token_key(reader: Reader, config: Config, tls_key: PrivateKeyTypes | None) -> None:
    ssl, path = config.communications_api.ssl, config.communications_api.token.private_key
    for file in config.communications_api.token.verify_keys:
        try:
            read_public_key(file)
        except FileProblem as problem:
            reader.problem_at(_VERIFY_KEYS, f'"{file}" {problem}')
    if path is None:
        if config.communications_api.backend == "wazuh":
            reader.warning_at(
                _TOKEN_KEY,
                "is unset, so that the TLS key signs agents' tokens: of several nodes each needs the same key, or the "
                "others' in token.verify_keys, before a new TLS key signs, too",
            )
        if tls_key and (sentence := unfit_for_tokens(tls_key)):
            text = f"\"{ssl.key}\" can't sign agents' tokens: {sentence}; name such a key in token.private_key"
            reader.problem_at(_KEY, text)
        return
    key = _key(reader, path, None, _TOKEN_KEY)
    if key and (sentence := unfit_for_tokens(key)):
        reader.problem_at(_TOKEN_KEY, f'"{path}" is not accepted: {sentence}')
    following = next_key_file(path)
    if os.path.lexists(following):  # a key that isn't in force yet stops nothing
        try:
            public_half(_read(following))
        except FileProblem as problem:
            reader.warning_at(_TOKEN_KEY, f'"{following}", which is to sign next, {problem}; it isn\'t trusted')


def signing_key(api: CommunicationsApi) -> tuple[Path, str | None]:
    """The file of the key that signs tokens, and the key's password."""
    if api.token.private_key is not None:
        return api.token.private_key, None
    return api.ssl.key, api.ssl.keyfile_password


def next_key_file(private_key: Path) -> Path:
    """The file of the key that is to sign after this one: its tokens are good already."""
    return private_key.with_name(f"{private_key.name}.next")


def read_next_key(token: Token) -> tuple[Path, bytes] | None:
    """The file of the key that is to sign next, and its public half in PEM. None: there is none, or it can't be used,
    which ``check_files`` says. Blocks."""
    if token.private_key is None:
        return None
    file = next_key_file(token.private_key)
    try:
        return file, public_half(_read(file))
    except FileProblem:
        return None


def public_half(data: bytes, password: str | None = None) -> bytes:
    """The public half of a private key that can sign tokens, both in PEM. Raises ``FileProblem``."""
    key = _parse_private_key(data, password)
    if (sentence := unfit_for_tokens(key)) is not None:
        raise FileProblem(f"is not accepted: {sentence}")
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def read_public_key(path: Path) -> bytes:
    """A public key that can have signed tokens, of a public key or a certificate, in PEM. Raises ``FileProblem``."""
    data = _read(path)
    try:
        certificate = x509.load_pem_x509_certificate(data) if b"CERTIFICATE-" in data else None
        key = load_pem_public_key(data) if certificate is None else certificate.public_key()
    except Exception:
        private = b"PRIVATE KEY-" in data
        sentence = "is a private key: only public keys belong here" if private else "isn't a public key in PEM"
        raise FileProblem(sentence) from None
    if not _signs_tokens(key):
        raise FileProblem(f"is no key that signs tokens: EC P-256, or RSA of at least {_SMALLEST_RSA} bits")
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _signs_tokens(key: object) -> bool:
    """Whether tokens can have been signed with this public key's private half."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, ec.SECP256R1)
    return isinstance(key, rsa.RSAPublicKey) and key.key_size >= _SMALLEST_RSA


def unfit_for_tokens(key: PrivateKeyTypes) -> str | None:
    """A sentence, or None for a key that can sign tokens."""
    if _signs_tokens(key.public_key()):
        return None
    if isinstance(key, ec.EllipticCurvePrivateKey):
        found = f"an EC key on {key.curve.name}"
    elif isinstance(key, rsa.RSAPrivateKey):
        found = f"an RSA key of {key.key_size} bits"
    else:
        found = f"a key of type {type(key).__name__.strip('_').removesuffix('PrivateKey')}"
    return f"it is {found}, and tokens are signed with EC P-256 (ES256) or RSA of at least {_SMALLEST_RSA} bits (RS256)"


def read_private_key(path: Path, password: str | None) -> PrivateKeyTypes:
    """Reads a private key. Raises ``FileProblem``."""
    return _parse_private_key(_read(path), password)


def _parse_private_key(data: bytes, password: str | None) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(data, None)
    except TypeError:  # it is encrypted
        if not password:
            raise FileProblem("is encrypted: that is taken of ssl.key alone, and needs ssl.keyfile_password") from None
    except Exception:
        raise FileProblem("isn't a private key in PEM") from None
    try:
        return load_pem_private_key(data, password.encode())
    except Exception:
        raise FileProblem("can't be decrypted with ssl.keyfile_password") from None


def read_certificates(path: Path) -> list[x509.Certificate]:
    """The certificates of a file, at least one. Raises ``FileProblem``."""
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError:
        raise FileProblem("has no certificate in PEM") from None


def _read(path: Path, most: int = _LARGEST_FILE) -> bytes:
    try:
        if stat.S_ISREG(path.stat().st_mode):
            with path.open("rb") as file:
                return file.read(most)
    except OSError as error:
        raise FileProblem(f"can't be read: {error.strerror}") from None
    raise FileProblem("isn't a file")


def _key(reader: Reader, file: Path, password: str | None, path: str) -> PrivateKeyTypes | None:
    if not reader.sound(path):
        return None
    try:
        key = read_private_key(file, password)
    except FileProblem as problem:
        reader.problem_at(path, f'"{file}" {problem}')
        return None
    if file.stat().st_mode & stat.S_IROTH:
        reader.warning_at(path, f'"{file}" can be read by everybody on this machine; `chmod o-rwx` ends that')
    return key


def _certificates(reader: Reader, file: Path, path: str) -> list[x509.Certificate]:
    if not reader.sound(path):
        return []
    try:
        return read_certificates(file)
    except FileProblem as problem:
        reader.problem_at(path, f'"{file}" {problem}')
        return []


def _note_dates(
    reader: Reader, path: str, certificate: x509.Certificate, name: str, now: datetime, effect: str
) -> None:
    """A certificate that isn't valid yet is called that, however soon it will expire."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < start:
        text = f"{name} isn't valid before {start:%Y-%m-%d %H:%M} UTC; {effect} until then"
    elif now >= end:
        text = f"{name} expired on {end:%Y-%m-%d %H:%M} UTC; {effect}"
    elif now >= end - EXPIRES_SOON:
        days = (end - now).days
        text = f"{name} expires on {end:%Y-%m-%d %H:%M} UTC, in {days} day{'' if days == 1 else 's'}"
    else:
        return
    reader.warning_at(path, text)


def _context(reader: Reader, ssl: Ssl) -> None:
    """What only OpenSSL can tell: a key too small for its security level, a curve that it doesn't take ..."""
    try:
        server_context(ssl)
    except OSError as error:
        words = str(error.args[-1] if error.args else error)
        reader.problem_at(_CERT, f'"{ssl.cert}" with its key is not taken by OpenSSL: {words}')


def _public(holder: PrivateKeyTypes | x509.Certificate) -> bytes:
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
