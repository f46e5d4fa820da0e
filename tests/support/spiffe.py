"""Certificates of a mesh: an authority of its own, and workloads whose names are SPIFFE ids."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


class Mesh:
    """Writes certificates into a folder: each is `<name>.pem` with its key `<name>-key.pem`, the CA's `ca.pem`.

    They have all extensions that RFC 5280 asks for, as those of meshes do; `bare` ones do not, as of simple tools.
    """

    def __init__(self, folder: Path, *, bare: bool = False) -> None:
        self._folder, self._bare = folder, bare
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mesh")])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        usage = x509.KeyUsage(
            key_cert_sign=True,
            crl_sign=True,
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        authority = self._builder(self._name, self._key).add_extension(constraints, critical=True)
        if not bare:
            authority = authority.add_extension(usage, critical=True)
        self.ca = self._written("ca", authority.sign(self._key, hashes.SHA256()))

    def issue(self, name: str, *, uri: str | None = None, dns: str | None = None) -> tuple[Path, Path]:
        """Issue a certificate for a workload, and give the paths of it and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [] if uri is None else [x509.UniformResourceIdentifier(uri)]
        names += [] if dns is None else [x509.DNSName(dns)]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = self._written(name, builder.sign(self._key, hashes.SHA256()))
        path = self._folder / f"{name}-key.pem"
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificate, path

    def context(self, name: str, *, uri: str | None = None, dns: str | None = None) -> ssl.SSLContext:
        """Give what a client connects with that has a certificate of this mesh."""
        context = ssl.create_default_context(cafile=self.ca)
        context.check_hostname = False
        context.load_cert_chain(*self.issue(name, uri=uri, dns=dns))
        return context

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
        )
        if self._bare:
            return builder
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        issuers = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return builder.add_extension(own, critical=False).add_extension(issuers, critical=False)

    def _written(self, name: str, certificate: x509.Certificate) -> Path:
        path = self._folder / f"{name}.pem"
        path.write_bytes(certificate.public_bytes(Encoding.PEM))
        return path
