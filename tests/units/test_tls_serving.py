"""A server's certificate while it serves: exchanged in time, and checked before it is shown."""

import asyncio
import contextlib
import datetime as dt
import os
import ssl
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from engines.certificates import Authority as Operator
from transom.model.errors import InvalidError
from transom.runtime.authority import ensure_authority
from transom.runtime.clock import ManualClock
from transom.runtime.http import serve
from transom.runtime.serving_tls import FromAuthority, FromFiles, ServerTls, operators_tls

DAY = 86_400.0
LOOK_SECONDS = 10.0
WHAT = "configuration of the hub"


async def hello(_scope, receive, send):
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


class Server:
    """A served certificate: `shown` to who connects now; `pass_time` moves the clock and has it looked at."""

    def __init__(self, tls: ServerTls, clock: ManualClock, ca_file: Path, port: int) -> None:
        self.tls, self.clock, self.ca_file, self.port = tls, clock, ca_file, port

    async def connected(self):
        client = ssl.create_default_context(cafile=self.ca_file)
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=client)

    async def shown(self) -> x509.Certificate:
        _, writer = await self.connected()
        seen = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return x509.load_der_x509_certificate(seen)

    async def pass_time(self, seconds: float) -> None:
        """Until the keeper has looked and sleeps again."""
        self.clock.advance(seconds)
        while not self.clock.sleeping:
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def serving(tls: ServerTls, clock: ManualClock, ca_file: Path):
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    tasks = [
        asyncio.create_task(serve(hello, "127.0.0.1", 0, tls=tls.context, ready=port.set_result)),
        asyncio.create_task(tls.keep()),
    ]
    server = Server(tls, clock, ca_file, await port)
    await server.pass_time(0)
    try:
        yield server
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    return await reader.readuntil(b"hi")


async def renewed_under_an_open_connection(folder: Path) -> None:
    clock = ManualClock(time.time() - 60 * DAY)
    authority = ensure_authority(folder / "authority.pem", clock.wall())
    tls = ServerTls(FromAuthority(authority, ["127.0.0.1"], folder / "server.pem", clock), clock)
    async with serving(tls, clock, authority.ca_file) as server:
        open_one = await server.connected()
        assert (await ask(*open_one)).startswith(b"HTTP/1.1 200")
        first = await server.shown()
        await server.pass_time(59 * DAY)
        assert await server.shown() == first
        await server.pass_time(1 * DAY + 1)
        second = await server.shown()
        assert second != first
        assert second.public_key() != first.public_key()
        assert second.not_valid_after_utc - first.not_valid_after_utc >= dt.timedelta(days=60)
        assert (await ask(*open_one)).startswith(b"HTTP/1.1 200"), "it stays as it was"
        await server.pass_time(LOOK_SECONDS)
        assert await server.shown() == second
        open_one[1].close()


@pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def test_a_certificate_is_exchanged_before_it_ends_and_no_connection_is_closed(
    tmp_path: Path, loop: Callable
):
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(renewed_under_an_open_connection(tmp_path))


class Files:
    """The operator's two files, as they are when a test begins; `put` exchanges them."""

    def __init__(self, folder: Path) -> None:
        self.operator = Operator(folder)
        self.cert, self.key = folder / "tls.crt", folder / "tls.key"
        self.number = 0

    def issued(self, hosts=("127.0.0.1",), **more) -> tuple[str, str]:
        """A key and a certificate."""
        self.number += 1
        text = self.operator.issue(f"server-{self.number}", hosts, **more).read_text()
        key, mark, certificate = text.partition("-----BEGIN CERTIFICATE-----")
        return key, mark + certificate

    def put(self, key: str = "", certificate: str = "") -> None:
        for file, text in ((self.key, key), (self.cert, certificate)):
            if text:
                draft = file.with_suffix(".new")
                draft.write_text(text)
                draft.rename(file)

    def taken(self, clock: ManualClock, host: str = "") -> ServerTls:
        return ServerTls(FromFiles(WHAT, self.cert, self.key, clock, host), clock)


async def test_the_operators_files_are_taken_when_they_change_and_only_when_they_fit(tmp_path: Path):
    files, clock = Files(tmp_path), ManualClock(time.time())
    files.put(*files.issued())
    async with serving(files.taken(clock), clock, files.operator.trust) as server:
        first = await server.shown()
        key, certificate = files.issued()
        files.put(certificate=certificate)  # the key follows a moment later
        await server.pass_time(LOOK_SECONDS)
        assert await server.shown() == first
        files.put(key=key)
        await server.pass_time(LOOK_SECONDS)
        second = await server.shown()
        assert second == x509.load_pem_x509_certificate(certificate.encode())

        files.put(*files.issued(valid_to=dt.timedelta(hours=-1)))
        await server.pass_time(LOOK_SECONDS)
        files.cert.unlink()
        await server.pass_time(LOOK_SECONDS)
        assert await server.shown() == second, "what is not fit to be shown is not"
        key, certificate = files.issued()
        files.put(key, certificate)
        await server.pass_time(LOOK_SECONDS)
        assert await server.shown() == x509.load_pem_x509_certificate(certificate.encode())


async def test_a_key_of_another_kind_leaves_nothing_of_the_one_before(tmp_path: Path):
    files, clock = Files(tmp_path), ManualClock(time.time())
    files.put(*of_ones_own(rsa.generate_private_key(65_537, 2048)))
    async with serving(files.taken(clock), clock, files.cert) as server:
        assert isinstance((await server.shown()).public_key(), rsa.RSAPublicKey)
        files.put(*of_ones_own(ec.generate_private_key(ec.SECP256R1())))
        await server.pass_time(LOOK_SECONDS)
        # This client would rather have RSA, if it were still there.
        client = ssl.create_default_context(cafile=files.cert)
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        client.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256")
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=client)
        assert writer.get_extra_info("cipher")[0].startswith("ECDHE-ECDSA")
        writer.close()


def of_ones_own(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, usage: x509.ObjectIdentifier | None = None
) -> tuple[str, str]:
    """A key, and a certificate for this machine that it has signed itself."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "one's own")])
    now = dt.datetime.now(dt.UTC)
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(loopback, critical=False)
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private.decode(), certificate


def encrypted() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")).decode()


def spoilt(files: Files, how: str) -> None:
    key, certificate = files.issued()
    other_key, other = files.issued()
    hour = dt.timedelta(hours=1)
    change = {
        "no certificate": lambda: files.put(key),
        "no key": lambda: files.put(certificate=certificate),
        "a certificate of nonsense": lambda: files.put(key, "nonsense"),
        "a key of nonsense": lambda: files.put("nonsense", certificate),
        "an encrypted key": lambda: files.put(encrypted(), certificate),
        "another's key": lambda: files.put(other_key, certificate),
        "the wrong order": lambda: files.put(other_key, certificate + other),
        "ended": lambda: files.put(*files.issued(valid_to=-hour)),
        "not yet": lambda: files.put(*files.issued(valid_from=hour)),
        "for clients": lambda: files.put(
            *of_ones_own(ec.generate_private_key(ec.SECP256R1()), ExtendedKeyUsageOID.CLIENT_AUTH)
        ),
        "another host's": lambda: files.put(*files.issued(["elsewhere.example.com"])),
        "too weak": lambda: files.put(*of_ones_own(rsa.generate_private_key(65_537, 1024))),  # noqa: S505
        "a folder": lambda: (files.put(key), files.cert.mkdir()),
    }
    change[how]()


WRONG = {
    "no certificate": r"tls_cert: \S+/tls.crt cannot be read: No such file",
    "no key": r"tls_key: \S+/tls.key cannot be read: No such file",
    "a certificate of nonsense": "tls_cert: .* holds no certificate in PEM",
    "a key of nonsense": "tls_key: .* holds no private key in PEM",
    "an encrypted key": "tls_key: .* is encrypted",
    "another's key": "tls_key: .* is not the key of the certificate in tls_cert",
    "the wrong order": "tls_cert: the server's own certificate, that of its key, must be the first",
    "ended": "tls_cert: .* has ended on .* UTC; have a new one made",
    "not yet": "tls_cert: .* is good from .* on; is this machine's clock right",
    "for clients": "tls_cert: .* is not for servers",
    "another host's": "tls_cert: .* does not name '127.0.0.1'",
    "too weak": "tls_cert: OpenSSL does not take .*key too small",
    "a folder": "tls_cert: .* cannot be read: Is a directory",
}


@pytest.mark.parametrize("how", WRONG)
def test_files_that_are_not_fit_are_named_before_anything_starts(tmp_path: Path, how: str):
    files = Files(tmp_path)
    spoilt(files, how)
    with pytest.raises(InvalidError, match=WRONG[how]) as refused:
        files.taken(ManualClock(time.time()), "" if how == "too weak" else "127.0.0.1")
    assert refused.value.what == WHAT
    assert "PRIVATE KEY" not in str(refused.value)


def test_every_mistake_is_told_at_once(tmp_path: Path):
    files = Files(tmp_path)
    files.put("nonsense", files.issued(["a.example"], valid_to=dt.timedelta(hours=-1))[1])
    with pytest.raises(InvalidError) as refused:
        files.taken(ManualClock(time.time()), "b.example")
    assert [problem.path for problem in refused.value.problems] == ["tls_key", "tls_cert", "tls_cert"]


def test_a_file_that_this_process_may_not_read_is_named(tmp_path: Path):
    if os.geteuid() == 0:
        pytest.skip("root may read every file")
    files = Files(tmp_path)
    files.put(*files.issued())
    files.key.chmod(0)
    with pytest.raises(InvalidError, match=r"tls_key: .* cannot be read: Permission denied"):
        files.taken(ManualClock(time.time()))


def test_without_files_there_is_no_tls(tmp_path: Path):
    assert operators_tls(WHAT, None, None, ManualClock()) is None


def test_a_server_file_that_cannot_be_written_is_named(tmp_path: Path):
    clock = ManualClock(time.time())
    authority = ensure_authority(tmp_path / "authority.pem", clock.wall())
    (tmp_path / "file").touch()
    with pytest.raises(InvalidError, match="cannot be written"):
        ServerTls(FromAuthority(authority, ["a"], tmp_path / "file" / "server.pem", clock), clock)
