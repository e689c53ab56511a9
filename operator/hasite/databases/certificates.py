"""A certificate authority for each database, and the certificates of its members and of the operator.

The authority lives in a Secret; a member's key is made here and travels over SSH to that member alone. Names are what
both sides check: a member's certificate names it and its address, the operator's ``hasite-operator``.
"""

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hasite.errors import Permanent

OPERATOR_NAME = "hasite-operator"
CA_CERTIFICATE, CA_KEY = "ca.crt", "ca.key"
"""Keys of the Secret."""

PERIOD = 100 * 86400
"""Seconds. In each period every member is looked at, and a certificate that would not last the next one is replaced."""

_MEMBER_DAYS = 400
_AUTHORITY_DAYS = 7300
_SKEW = datetime.timedelta(hours=1)
"""Machines whose clocks are behind must not take a new certificate for one of the future."""


@dataclass(frozen=True)
class Authority:
    """PEM. ``key`` never leaves the operator and the Secret."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True)
class Identity:
    """A certificate with its key, PEM."""

    certificate: bytes
    key: bytes


def rotation(now: float) -> int:
    """The number of the present period. Part of what a member should have, so that a new one leads to a look at it."""
    return int(now // PERIOD)


def new_authority(name: str, now: float) -> Authority:
    """``name``: for people."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _named(name[:64])
    builder = _builder(subject, subject, key.public_key(), now, _AUTHORITY_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(authority=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return Authority(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key))


def issue(authority: Authority, name: str, addresses: Sequence[str], now: float) -> Identity:
    """For servers and clients. Raises Permanent (reason ``AuthorityUnusable``)."""
    issuer, signer = _load(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_named(name), issuer.subject, key.public_key(), now, _MEMBER_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(authority=False), critical=True)
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = builder.add_extension(purposes, critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName(_names(name, addresses)), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
    )
    return Identity(_pem(builder.sign(signer, hashes.SHA256())), _key_pem(key))


def check(authority: Authority) -> Authority:
    """The same. Raises Permanent (AuthorityUnusable): it can't be read, or its two halves don't belong together."""
    _load(authority)
    return authority


def public_key_of(certificate: bytes) -> bytes | None:
    """As ``openssl pkey -pubout`` writes that of the private key which belongs to it; None: it is no certificate."""
    try:
        key = x509.load_pem_x509_certificate(certificate).public_key()
    except ValueError:
        return None
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def fits(certificate: bytes | None, authority: Authority, name: str, addresses: Sequence[str], now: float) -> bool:
    """Whether a member may keep the certificate that it has: of this authority, with these names, for long enough."""
    issuer, _ = _load(authority)
    try:
        held = x509.load_pem_x509_certificate(certificate or b"")
        held.verify_directly_issued_by(issuer)
        names = held.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:
        return False
    lasting = held.not_valid_after_utc.timestamp() - now >= 2 * PERIOD
    return lasting and held.subject == _named(name) and set(names) == set(_names(name, addresses))


def _load(authority: Authority) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate(authority.certificate)
        key = serialization.load_pem_private_key(authority.key, None)
    except ValueError as error:
        raise Permanent(f"the certificate authority cannot be read: {error}", "AuthorityUnusable") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise Permanent("the certificate authority's key is not that of its certificate", "AuthorityUnusable")
    return certificate, key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: float, days: int
) -> x509.CertificateBuilder:
    moment = datetime.datetime.fromtimestamp(int(now), datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - _SKEW)
        .not_valid_after(moment + datetime.timedelta(days=days))
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _names(name: str, addresses: Sequence[str]) -> list[x509.GeneralName]:
    return [x509.DNSName(name), *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses)]


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
