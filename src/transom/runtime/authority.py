"""A certificate authority of our own, for a server whose operator has brought no certificates.

It is made at the first start and signs nothing but this server's certificates, so that there is no moment at
which a key goes over a wire in the clear. Whoever is to trust the server is given `ca.pem`, which holds no
secret. The authority's key and certificate are one file, replaced as one: a crash leaves both or neither.

Certificates are as strict verifiers want them (RFC 5280, section 4.2; Python's VERIFY_X509_STRICT, Go's
crypto/x509): key identifiers, critical basic constraints and key usage, names in the subject's alternatives
only. P-256 (FIPS 186-5) is what every client of the API knows. The authority constrains no names: where a hub
is reached may change in ten years, and who trusts it does so for this hub alone.
Next on the data's way: `serving_tls` shows what is issued, and has it issued anew before it ends.
"""

import datetime as dt
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from transom.model.errors import InvalidError, Problem
from transom.runtime.certificates import general_name
from transom.runtime.secret_files import read_secret, write_private, write_public

_SKEW = dt.timedelta(hours=1)
"""Certificates begin in the past by this: other machines' clocks may be behind."""
_AUTHORITY_LASTS = dt.timedelta(days=3653)
_SERVER_LASTS = dt.timedelta(days=90)
_REPLACE = "remove it to have another made, whose ca.pem whoever is to trust the server must be given"


class Issued(NamedTuple):
    """A server's certificate with its key (PEM, secret), and when it begins and ends (seconds since 1970)."""

    pem: str
    begins: float
    ends: float


class Authority:
    """Signs certificates of servers. `ca_file` is what their clients are to trust."""

    def __init__(
        self, ca_file: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, what: str
    ) -> None:
        self.ca_file = ca_file
        self.certificate = certificate
        self._key = key
        self._what = what

    @property
    def ends(self) -> float:
        """When nothing that it has signed is good any more; seconds since 1970."""
        return self.certificate.not_valid_after_utc.timestamp()

    def issue(self, hosts: Iterable[str], now: float) -> Issued:
        """A new key, and its certificate for a server that is called by one of `hosts`, from `now` on.

        Raises `InvalidError` for a host that cannot stand in a certificate, and when the authority has ended.
        """
        if now >= self.ends:
            wrong = f"has ended on {self.certificate.not_valid_after_utc:%Y-%m-%d}; {_REPLACE}"
            raise InvalidError(self._what, [Problem("", wrong)])
        names: list[x509.GeneralName] = []
        problems: list[Problem] = []
        for host in dict.fromkeys(hosts):
            try:
                names.append(general_name(host))
            except ValueError:
                wrong = f"{host!r} cannot stand in a certificate; write it as its ASCII form (xn--…)"
                problems.append(Problem("", wrong))
        if problems:
            raise InvalidError("the server's names", problems)
        key = ec.generate_private_key(ec.SECP256R1())
        begins = dt.datetime.fromtimestamp(now, dt.UTC)
        ends = min(begins + _SERVER_LASTS, self.certificate.not_valid_after_utc)
        identifier = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        certificate = (
            _builder(
                _named("transom server"), self.certificate.subject, key.public_key(), begins - _SKEW, ends
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        return Issued(_pem(key, certificate), begins.timestamp(), ends.timestamp())


def ca_file_beside(path: Path) -> Path:
    """Where the certificate to trust is, of the authority in `path`."""
    return path.with_name("ca.pem")


def ensure_authority(path: Path, now: float) -> Authority:
    """The authority whose key and certificate are in `path` (PEM, mode 0600); made when there is none.
    `ca.pem` beside it holds the certificate alone afterwards.

    Raises `InvalidError` when a file cannot be made or read, is open to others, or holds something else.
    """
    what = f"certificate authority {path}"
    try:
        if not path.exists():
            write_private(path, _new_authority(now))
        authority = _read(what, path)
        certificate = authority.certificate.public_bytes(Encoding.PEM).decode()
        if not authority.ca_file.exists() or authority.ca_file.read_text("utf-8") != certificate:
            write_public(authority.ca_file, certificate)
    except OSError as error:
        raise InvalidError(what, [Problem("", f"cannot be made or read: {error}")]) from None
    return authority


def _read(what: str, path: Path) -> Authority:
    pem = read_secret(path).encode()
    try:
        key = load_pem_private_key(pem, password=None)
        certificate = x509.load_pem_x509_certificate(pem)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound):
        # What the library says could quote the file, so it is left out.
        key = certificate = constraints = None
    if (
        not isinstance(key, ec.EllipticCurvePrivateKey)
        or certificate is None
        or constraints is None
        or not constraints.ca
        or certificate.public_key() != key.public_key()
    ):
        wrong = "holds no EC private key with an authority's certificate, in PEM; put the right file back"
        raise InvalidError(what, [Problem("", f"{wrong}, or {_REPLACE}")])
    return Authority(ca_file_beside(path), key, certificate, what)


def _new_authority(now: float) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    # The name tells two authorities apart; how it begins is for people.
    name = _named(f"transom authority {x509.SubjectKeyIdentifier.from_public_key(public).digest.hex()[:12]}")
    begins = dt.datetime.fromtimestamp(now, dt.UTC)
    certificate = (
        _builder(name, name, public, begins - _SKEW, begins + _AUTHORITY_LASTS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _pem(key, certificate)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    begins: dt.datetime,
    ends: dt.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    """What a key may be used for: an authority's signs certificates, a server's proves who it is."""
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> str:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return (private + certificate.public_bytes(Encoding.PEM)).decode()
