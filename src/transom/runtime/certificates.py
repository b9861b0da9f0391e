"""Certificates that somebody else has made for a server of ours: read, and checked before they are used.

What would make every client refuse the server, or OpenSSL the files, is found here, at the start, and named:
a file that cannot be read, a key that is not the certificate's, a certificate that has ended, is not for
servers, or names another host. Whether an authority that clients trust has signed it only they can tell.
Rules: RFC 5280 (fields and extensions), RFC 9525 (which names count). Next: `serving_tls` takes them.
"""

import ipaddress
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from transom.model.errors import InvalidError, Problem

_SERVERS = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}


def check_pair(what: str, cert: Path, key: Path, host: str, now: float) -> x509.Certificate:
    """The server's certificate in `cert` (PEM, the authorities between behind it), whose private key is in
    `key` (PEM), fit to be shown now (seconds since 1970) by a server that clients call `host`; "" for any.

    Raises `InvalidError` about `what`, whose fields `tls_cert` and `tls_key` name the files.
    """
    problems: list[Problem] = []
    chain = _certificates(cert, problems)
    private = _private_key(key, problems)
    if chain and private is not None:
        problems += _fits(chain, private, key)
    if chain:
        problems += (Problem("tls_cert", f"{cert} {wrong}") for wrong in _wrong_with(chain[0], host, now))
    if problems:
        raise InvalidError(what, problems)
    return chain[0]


def general_name(host: str) -> x509.GeneralName:
    """A host as it stands in a certificate. Raises `ValueError` when it is neither address nor ASCII name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def names_host(certificate: x509.Certificate, host: str) -> bool:
    """Whether clients that call the server `host` find it in the certificate (RFC 9525, section 6)."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    try:
        return ipaddress.ip_address(host) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        patterns = {name.lower() for name in names.get_values_for_type(x509.DNSName)}
        name = host.lower().rstrip(".")
        # A wildcard stands for one whole label, the leftmost.
        return not patterns.isdisjoint({name, "*." + name.partition(".")[2]})


def _certificates(file: Path, problems: list[Problem]) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())
    except OSError as error:
        problems.append(Problem("tls_cert", f"{file} cannot be read: {error.strerror}"))
    except ValueError:
        problems.append(Problem("tls_cert", f"{file} holds no certificate in PEM"))
    return []


def _private_key(file: Path, problems: list[Problem]) -> PrivateKeyTypes | None:
    # What the library says could quote the file, so it is left out.
    try:
        return load_pem_private_key(file.read_bytes(), password=None)
    except OSError as error:
        problems.append(Problem("tls_key", f"{file} cannot be read: {error.strerror}"))
    except TypeError:
        problems.append(Problem("tls_key", f"{file} is encrypted; a server needs its key as it is"))
    except (ValueError, UnsupportedAlgorithm):
        problems.append(Problem("tls_key", f"{file} holds no private key in PEM"))
    return None


def _fits(chain: list[x509.Certificate], private: PrivateKeyTypes, key: Path) -> list[Problem]:
    def of(holder: PrivateKeyTypes | x509.Certificate) -> bytes:
        return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    wanted = of(private)
    if of(chain[0]) == wanted:
        return []
    if any(of(other) == wanted for other in chain):
        return [Problem("tls_cert", "the server's own certificate, that of its key, must be the first")]
    return [Problem("tls_key", f"{key} is not the key of the certificate in tls_cert")]


def _wrong_with(certificate: x509.Certificate, host: str, now: float) -> list[str]:
    wrong: list[str] = []
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    today = datetime.fromtimestamp(now, UTC)
    if today < begins:
        wrong.append(f"is good from {begins:%Y-%m-%d %H:%M} UTC on; is this machine's clock right?")
    if today > ends:
        wrong.append(f"has ended on {ends:%Y-%m-%d %H:%M} UTC; have a new one made")
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        usage = None
    if usage is not None and _SERVERS.isdisjoint(usage):
        wrong.append("is not for servers (its extended key usage lacks serverAuth)")
    if host and not names_host(certificate, host):
        wrong.append(f"does not name {host!r}, where others are told to reach this process")
    return wrong
