"""The local certificate authority: a leaf per service and one for the gateway, renewed when they grow old."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.chassis.config import TRUST_DOMAIN
from services.chassis.durable import write_whole

AUTHORITY_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(hours=24)  # as in k8s/components/cert-manager
RENEW_BEFORE = timedelta(hours=8)
AUTHORITY_RENEW_BEFORE = timedelta(days=30)


def ensure_certificates(folder: Path, names: Sequence[str], now: datetime | None = None) -> None:
    """Make ca.pem, and <name>.pem with <name>.key for each name, unless good ones are there (mode 0600)."""
    when = now or datetime.now(UTC)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority, key = _authority(folder, when)
    for name in names:
        if not _is_good(folder / f"{name}.pem", when):
            leaf_key = ec.generate_private_key(ec.SECP256R1())
            leaf = _leaf(name, leaf_key.public_key(), authority, key, when)
            write_whole(folder / f"{name}.key", _pem(leaf_key))
            write_whole(folder / f"{name}.pem", leaf.public_bytes(serialization.Encoding.PEM))


def _is_good(path: Path, now: datetime, margin: timedelta = RENEW_BEFORE) -> bool:
    if not path.exists() or not path.with_suffix(".key").exists():
        return False
    return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc > now + margin


def _authority(folder: Path, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    if _is_good(folder / "ca.pem", now, AUTHORITY_RENEW_BEFORE):
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes()), key
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Kehu local authority")])
    builder = _builder(name, name, key.public_key(), now, AUTHORITY_LIFE)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    for leaf in folder.glob("*.pem"):
        leaf.unlink()  # signed by an authority that is no more
    write_whole(folder / "ca.key", _pem(key))
    write_whole(folder / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM))
    return certificate, key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + life)


def _leaf(
    name: str,
    public_key: ec.EllipticCurvePublicKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> x509.Certificate:
    """Return a certificate whose URI is the SPIFFE id that the services check."""
    alternatives = x509.SubjectAlternativeName(
        [
            x509.UniformResourceIdentifier(f"spiffe://{TRUST_DOMAIN}/{name}"),
            x509.DNSName(f"{name}.{TRUST_DOMAIN}"),
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ]
    )
    usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, authority.subject, public_key, now, LEAF_LIFE)
    signs = x509.KeyUsage(True, False, False, False, False, False, False, False, False)  # digitalSignature alone
    for extension in (x509.BasicConstraints(ca=False, path_length=None), signs, alternatives, usages):
        is_limit = isinstance(extension, x509.BasicConstraints | x509.KeyUsage)
        builder = builder.add_extension(extension, critical=is_limit)
    return builder.sign(authority_key, hashes.SHA256())


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
