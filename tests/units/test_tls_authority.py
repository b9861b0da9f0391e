"""A server's own authority: what it issues, as strict verifiers see it, and the files it is kept in."""

import asyncio
import shutil
import ssl
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from engines.certificates import Authority as Operator
from transom.model.errors import InvalidError
from transom.runtime.authority import ensure_authority
from transom.runtime.certificates import names_host
from transom.runtime.clock import SystemClock
from transom.runtime.serving_tls import FromAuthority, ServerTls

HOSTS = ("hub.example.com", "10.1.2.3", "localhost", "127.0.0.1", "::1")
NOW = time.time()
CERTIFICATE = "-----BEGIN CERTIFICATE-----"


def split(pem: str) -> tuple[str, x509.Certificate]:
    """The key and the certificate of one file."""
    key, mark, certificate = pem.partition(CERTIFICATE)
    return key, x509.load_pem_x509_certificate((mark + certificate).encode())


def extension(certificate: x509.Certificate, kind):
    return certificate.extensions.get_extension_for_class(kind)


def test_what_it_issues_has_the_extensions_that_strict_verifiers_want(tmp_path: Path):
    authority = ensure_authority(tmp_path / "authority.pem", NOW)
    _, server = split(authority.issue(HOSTS, NOW).pem)
    root = authority.certificate

    assert extension(root, x509.BasicConstraints).critical
    assert extension(root, x509.BasicConstraints).value == x509.BasicConstraints(ca=True, path_length=0)
    assert extension(root, x509.KeyUsage).critical
    assert extension(root, x509.KeyUsage).value.key_cert_sign
    assert not extension(root, x509.KeyUsage).value.digital_signature
    assert timedelta(days=3650) < root.not_valid_after_utc - datetime.fromtimestamp(NOW, UTC)

    assert extension(server, x509.BasicConstraints).value == x509.BasicConstraints(ca=False, path_length=None)
    assert extension(server, x509.KeyUsage).value.digital_signature
    assert not extension(server, x509.KeyUsage).value.key_cert_sign
    assert list(extension(server, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    names = extension(server, x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["hub.example.com", "localhost"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == [
        "10.1.2.3",
        "127.0.0.1",
        "::1",
    ]
    identifier = extension(root, x509.SubjectKeyIdentifier).value.digest
    assert extension(server, x509.AuthorityKeyIdentifier).value.key_identifier == identifier
    assert extension(server, x509.SubjectKeyIdentifier).value.digest != identifier
    for each in (root, server):
        key = each.public_key()
        assert isinstance(key, EllipticCurvePublicKey)
        assert isinstance(key.curve, SECP256R1)
        assert each.not_valid_before_utc.timestamp() < NOW - 3000, "other machines' clocks may be behind"
    assert server.not_valid_after_utc - datetime.fromtimestamp(NOW, UTC) <= timedelta(days=90)


@pytest.mark.parametrize(
    ("flag", "code"),
    [
        ("-verify_hostname hub.example.com", 0),
        ("-verify_ip 10.1.2.3", 0),
        ("-verify_ip ::1", 0),
        ("-verify_hostname example.com", 2),
        ("-verify_ip 10.1.2.4", 2),
    ],
)
def test_openssl_takes_it_for_its_hosts_alone(tmp_path: Path, flag: str, code: int):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    authority = ensure_authority(tmp_path / "authority.pem", NOW)
    (tmp_path / "server.pem").write_text(authority.issue(HOSTS, NOW).pem)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", *flag.split(),
               "-CAfile", str(authority.ca_file), str(tmp_path / "server.pem")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr


async def handshake(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> x509.Certificate:
    """One connection over loopback; the certificate that was shown for `host`."""

    async def close(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", 0, ssl=server) as listening:
        port = listening.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=host)
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        writer.close()
    return x509.load_der_x509_certificate(shown)


def strict(ca_file: Path) -> ssl.SSLContext:
    """A client as Python 3.13 makes it."""
    client = ssl.create_default_context(cafile=ca_file)
    client.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    client.set_alpn_protocols(["h2", "http/1.1"])
    return client


async def test_python_takes_it_for_its_hosts_alone(tmp_path: Path):
    authority = ensure_authority(tmp_path / "authority.pem", NOW)
    server = ServerTls(
        FromAuthority(authority, HOSTS, tmp_path / "server.pem", SystemClock()), SystemClock()
    ).context
    for host in HOSTS:
        await handshake(server, strict(authority.ca_file), host)
    for host in ("example.com", "127.0.0.2"):
        with pytest.raises(ssl.SSLCertVerificationError, match=r"mismatch|not valid for"):
            await handshake(server, strict(authority.ca_file), host)
    other = ensure_authority(tmp_path / "other" / "authority.pem", NOW)
    with pytest.raises(ssl.SSLCertVerificationError):
        await handshake(server, strict(other.ca_file), "localhost")
    old = strict(authority.ca_file)
    old.minimum_version, old.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, ssl.TLSVersion.TLSv1_2
    await handshake(server, old, "localhost")


def test_keys_are_for_their_owner_alone_and_the_authority_stays(tmp_path: Path):
    path = tmp_path / "authority.pem"
    first = ensure_authority(path, NOW)
    FromAuthority(first, HOSTS, tmp_path / "server.pem", SystemClock()).take()
    assert {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {
        "authority.pem": 0o600,
        "server.pem": 0o600,
        "ca.pem": 0o644,
    }
    assert "PRIVATE" not in first.ca_file.read_text()
    held = path.read_bytes()
    first.ca_file.write_text("something else")
    again = ensure_authority(path, NOW + 86_400)
    assert (again.certificate, path.read_bytes()) == (first.certificate, held)
    assert first.ca_file.read_text() in held.decode(), "it is put right"
    other = ensure_authority(tmp_path / "other.pem", NOW)
    assert other.certificate.subject != first.certificate.subject


@pytest.mark.parametrize(
    "how", ["empty", "nonsense", "no key", "no certificate", "a server's", "another's key"]
)
def test_a_file_that_holds_no_authority_is_named_and_left_alone(tmp_path: Path, how: str):
    path = tmp_path / "authority.pem"
    authority = ensure_authority(path, NOW)
    held = path.read_text()
    key, mark, certificate = held.partition(CERTIFICATE)
    issued = authority.issue(["a"], NOW).pem
    path.write_text(
        {
            "empty": "",
            "nonsense": "nonsense",
            "no key": mark + certificate,
            "no certificate": key,
            "a server's": issued,
            "another's key": split(issued)[0] + mark + certificate,
        }[how]
    )
    before = path.read_bytes()
    with pytest.raises(InvalidError, match=r"is empty|put the right file back, or remove it") as refused:
        ensure_authority(path, NOW)
    assert str(path) in str(refused.value)
    assert "PRIVATE" not in str(refused.value)
    assert path.read_bytes() == before


def test_an_authority_that_others_can_read_or_nobody_can_write_is_refused(tmp_path: Path):
    path = tmp_path / "authority.pem"
    ensure_authority(path, NOW)
    path.chmod(0o640)
    with pytest.raises(InvalidError, match="chmod 600"):
        ensure_authority(path, NOW)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidError, match="cannot be made or read"):
        ensure_authority(tmp_path / "file" / "authority.pem", NOW)


def test_an_authority_that_ends_issues_nothing_that_outlives_it(tmp_path: Path):
    authority = ensure_authority(tmp_path / "authority.pem", NOW)
    late = authority.issue(["a"], authority.ends - 86_400)
    assert late.ends == authority.ends
    with pytest.raises(InvalidError, match=r"has ended on .*; remove it to have another made"):
        authority.issue(["a"], authority.ends)


def test_a_host_that_cannot_stand_in_a_certificate_is_named(tmp_path: Path):
    authority = ensure_authority(tmp_path / "authority.pem", NOW)
    with pytest.raises(InvalidError, match=r"'bücher.example' cannot stand in a certificate"):
        authority.issue(["a", "bücher.example"], NOW)


label = st.text("abcxyz019", min_size=1, max_size=5)
host = st.lists(label, min_size=2, max_size=4).map(".".join)


@given(named=host, asked=host)
def test_a_name_stands_for_itself_and_a_wildcard_for_one_label(
    tmp_path_factory: pytest.TempPathFactory, named: str, asked: str
):
    operator = Operator(tmp_path_factory.mktemp("operator"))
    plain = split(operator.issue("plain", [named]).read_text())[1]
    wild = split(operator.issue("wild", ["*." + named]).read_text())[1]
    assert names_host(plain, named.upper() + ".")
    assert names_host(plain, asked) == (asked == named)
    assert names_host(wild, "a." + named)
    assert not names_host(wild, named)
    assert not names_host(wild, "a.b." + named)
    assert not names_host(wild, "127.0.0.1")
