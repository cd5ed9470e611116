"""
TLS of a server: a certificate from files, or one that it signs itself.

The libraries are the extra ``tls``, imported when TLS is asked for.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from llmdsim.config import Config

ORGANISATION = "llmdsim"
KEY_SIZE = 4096
VALID = timedelta(days=3650)


def wanted(config: Config) -> bool:
    """Whether a server shall speak TLS."""
    return config.self_signed_certs or bool(config.ssl_certfile)


def secured(config: Config, factory: Any) -> Any:
    """A protocol factory behind TLS 1.2 or newer. Raises ValueError, one line, where that cannot be had."""
    try:
        from OpenSSL.crypto import Error
        from twisted.internet.ssl import CertificateOptions, PrivateCertificate, TLSVersion
        from twisted.protocols.tls import TLSMemoryBIOFactory
    except ImportError as problem:
        raise ValueError(f"TLS needs the extra tls ({problem})") from None
    pem = self_signed() if config.self_signed_certs else _files(config)
    try:
        leaf = PrivateCertificate.loadPEM(pem)
        options = CertificateOptions(
            privateKey=leaf.privateKey.original,
            certificate=leaf.original,
            extraCertChain=_chain(pem),
            raiseMinimumTo=TLSVersion.TLSv1_2,
        )
    except (Error, ValueError) as problem:
        raise ValueError(f"{config.ssl_certfile}, {config.ssl_keyfile}: no certificate and key ({problem})") from None
    return TLSMemoryBIOFactory(options, False, factory)


def self_signed() -> bytes:
    """A new key and certificate for ``localhost`` and the loopback addresses, in PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = rsa.generate_private_key(65537, KEY_SIZE)
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION)])
    now = datetime.now(timezone.utc)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + VALID)
    builder = builder.add_extension(_loopback(), critical=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    plain = serialization.NoEncryption()
    written = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    return written + builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _loopback() -> Any:
    from ipaddress import ip_address

    from cryptography import x509

    addresses = [x509.IPAddress(ip_address(address)) for address in ("127.0.0.1", "::1")]
    return x509.SubjectAlternativeName([x509.DNSName("localhost"), *addresses])


def _files(config: Config) -> bytes:
    try:
        return Path(config.ssl_keyfile).read_bytes() + b"\n" + Path(config.ssl_certfile).read_bytes()
    except OSError as problem:
        raise ValueError(f"{problem.filename}: {problem.strerror}") from None


def _chain(pem: bytes) -> list[Any]:
    """The certificates after the first, which vouch for it."""
    from OpenSSL.crypto import FILETYPE_PEM, load_certificate

    begin = b"-----BEGIN CERTIFICATE-----"
    return [load_certificate(FILETYPE_PEM, begin + part) for part in pem.split(begin)[2:]]
