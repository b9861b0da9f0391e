"""The log's server and client: keys and rights, limits, errors across the wire, clients that vanish."""

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from transom.logs import wire
from transom.logs.memory import MemoryLog
from transom.logs.protocol import Log, Message, Topic, TopicPartition
from transom.logs.remote import RemoteLog
from transom.logs.server import Rights, log_server
from transom.model.errors import (
    FencedError,
    ForbiddenError,
    GenerationError,
    InvalidError,
    NotFoundError,
    OutOfRangeError,
    Problem,
    StorageFullError,
    TransomError,
    UnauthorizedError,
    UnknownTopicError,
    UnreachableError,
)
from transom.runtime.clock import ManualClock
from transom.runtime.http import AsgiApp, serve
from transom.runtime.secret_files import hash_secret

WHERE = TopicPartition("status", 0)
KEYS = {name: f"{name}-secret" for name in ("admin", "reader", "writer", "link", "none")}
RIGHTS = {
    "admin": Rights(frozenset("*"), frozenset("*"), links=True),
    "reader": Rights(read=frozenset({"status"})),
    "writer": Rights(append=frozenset({"desired"})),
    "link": Rights(append=frozenset({"desired"}), links=True),
}


@contextlib.asynccontextmanager
async def serving(app: AsgiApp, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(serve(app, "127.0.0.1", 0, tls=tls, ready=port.set_result))
    try:
        yield await port
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


@pytest.fixture
async def kept() -> MemoryLog:
    kept = MemoryLog(ManualClock())
    await kept.create([Topic("status"), Topic("desired")])
    return kept


@pytest.fixture
async def url(kept: MemoryLog) -> AsyncIterator[str]:
    app = log_server(kept, {name: hash_secret(key) for name, key in KEYS.items()}, RIGHTS)
    async with serving(app) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
async def client(url: str) -> AsyncIterator[Callable[[str], RemoteLog]]:
    async with contextlib.AsyncExitStack() as stack:

        def connect(key: str) -> RemoteLog:
            log = RemoteLog(url, KEYS.get(key, key))
            stack.push_async_callback(log.close)
            return log

        yield connect


Connect = Callable[[str], RemoteLog]


async def test_an_unknown_key_is_refused(client: Connect, kept: MemoryLog):
    for wrong in ("guess", "admin-secre", "admin-secret "):
        with pytest.raises(UnauthorizedError):
            await client(wrong).append([Message("status", b"k", b"v")])
    assert await kept.bounds("status") == {0: (0, 0)}


async def test_a_request_without_a_key_is_refused_before_its_body_is_read(url: str):
    async with aiohttp.ClientSession() as session, session.post(f"{url}/log/v1/append") as response:
        assert response.status == 401
        assert isinstance(wire.decode_error(await response.read()), UnauthorizedError)


async def test_a_key_has_rights_for_its_topics_and_nothing_else(client: Connect, kept: MemoryLog):
    reader, writer, link, nobody = client("reader"), client("writer"), client("link"), client("none")
    await kept.append([Message("status", b"k", b"v"), Message("desired", b"k", b"v")])
    membership = await reader.join("g", "m", ["status"])
    allowed: list[Any] = [
        reader.read({WHERE: 0}),
        reader.bounds("status"),
        reader.commit(membership, {WHERE: 1}),
        writer.append([Message("desired", b"k", b"v")]),
        writer.bounds("desired"),
        link.create([Topic("desired")]),
        link.take_fence("w"),
        link.truncate("desired", 0, 1),
    ]
    for call in allowed:
        await call
    desired = TopicPartition("desired", 0)
    refused: list[tuple[Any, str]] = [
        (reader.read({WHERE: 0, desired: 1}), "desired"),
        (reader.append([Message("status", b"k", b"v")]), "status"),
        (link.truncate("status", 0, 1), "status"),
        (link.create([Topic("desired"), Topic("mine")]), "mine"),
        (reader.join("g", "m", ["desired"]), "desired"),
        (reader.bounds("desired"), "desired"),
        # Any of these could end the link of another.
        (writer.take_fence("w"), "fence"),
        (writer.create([Topic("desired", partitions=2)]), "make"),
        (writer.truncate("desired", 0, 1), "truncate"),
        (writer.read({desired: 1}), "desired"),
        (writer.append([Message("desired", b"k", b"v"), Message("status", b"k", b"v")]), "status"),
        (writer.commit(membership, {WHERE: 1}), "status"),
        (nobody.bounds("status"), "status"),
    ]
    for call, named in refused:
        with pytest.raises(ForbiddenError, match=named):
            await call
    assert set(await reader.topics()) == {"status"}
    assert set(await writer.topics()) == {"desired"}
    assert await nobody.topics() == {}
    assert await reader.committed("g") == {WHERE: 1}
    assert await writer.committed("g") == {}
    assert await kept.bounds("status") == {0: (0, 1)}
    assert await kept.bounds("desired") == {0: (1, 2)}


@pytest.mark.parametrize(
    "error",
    [
        InvalidError("a thing", [Problem("a.b", "is wrong"), Problem("", "and more")]),
        OutOfRangeError("t", 1, 2, 3, 4),
        UnknownTopicError("t"),
        NotFoundError("gone"),
        FencedError("fenced"),
        GenerationError("moved on"),
        ForbiddenError("no"),
        StorageFullError("full"),
        UnreachableError("away"),
        UnauthorizedError("who"),
    ],
)
def test_an_error_crosses_with_its_class_and_fields(error: TransomError):
    status, body = wire.encode_error(error)
    back = wire.decode_error(body)
    assert status >= 400
    assert type(back) is type(error)
    assert (str(back), vars(back)) == (str(error), vars(error))


@pytest.mark.parametrize(
    "body", [b"", b"<html>", wire.encode({"error": "OSError", "arguments": []}), b"\x81"]
)
def test_what_is_no_error_of_ours_is_not_taken_for_one(body: bytes):
    assert wire.decode_error(body) is None


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_16_mebibytes_is_refused_while_it_is_read(url: str, *, announced: bool):
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 1 << 30:
            sent += 1 << 20
            yield b"x" * (1 << 20)

    headers = {"authorization": f"Bearer {KEYS['admin']}"}
    if announced:
        headers["content-length"] = str(1 << 30)
    async with aiohttp.ClientSession(headers=headers) as session:
        try:
            async with session.post(f"{url}/log/v1/append", data=endless()) as response:
                assert response.status == 413
        except aiohttp.ClientOSError:
            pass  # closed on us while we were still sending: refused as well
        assert sent < 1 << 28


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", wire.encode({"batch": 7}), wire.encode({"batch": [{"topic": 1}]})]
)
async def test_a_body_that_is_no_request_is_refused(url: str, body: bytes):
    headers = {"authorization": f"Bearer {KEYS['admin']}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{url}/log/v1/append", data=body) as response,
    ):
        assert response.status == 400
        assert isinstance(wire.decode_error(await response.read()), InvalidError)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "log/v1/append"), ("POST", "log/v1/drop"), ("POST", "")]
)
async def test_what_is_no_operation_is_refused_and_told(url: str, method: str, path: str):
    headers = {"authorization": f"Bearer {KEYS['admin']}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(method, f"{url}/{path}") as response,
    ):
        assert response.status == 400
        assert "append" in str(wire.decode_error(await response.read()))


async def test_nobody_there_is_unreachable():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        log = RemoteLog(f"http://127.0.0.1:{taken.getsockname()[1]}", "k")
        with pytest.raises(UnreachableError):
            await log.topics()
        await log.close()


async def test_a_server_that_says_nothing_or_hangs_up_is_unreachable():
    hangs_up = asyncio.Event()

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hangs_up.wait()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    log = RemoteLog(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "k", timeout_seconds=0.05)
    with pytest.raises(UnreachableError, match="within"):
        await log.topics()
    hangs_up.set()
    await log.close()
    log = RemoteLog(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "k")
    with pytest.raises(UnreachableError, match=r"cannot reach the log at http://\S+: Server disconnected$"):
        await log.topics()
    await log.close()
    server.close()
    await server.wait_closed()


async def test_an_answer_that_is_not_a_logs_is_unreachable():
    async def other(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"hello"})

    async with serving(other) as port:
        log = RemoteLog(f"http://127.0.0.1:{port}", "k")
        with pytest.raises(UnreachableError, match="no answer"):
            await log.topics()
        await log.close()


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1:1", "http://region.example:80", "ftp://127.0.0.1", "127.0.0.1:1"]
)
def test_a_key_never_leaves_this_machine_unencrypted(url: str):
    with pytest.raises(InvalidError):
        RemoteLog(url, "k")


async def test_a_stopping_server_lets_a_waiting_client_go(kept: MemoryLog):
    app = log_server(kept, {"admin": hash_secret("s")}, RIGHTS)
    async with contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving(app))
        log = RemoteLog(f"http://127.0.0.1:{port}", "s")
        waiting = asyncio.create_task(log.read({WHERE: 0}, wait_seconds=60))
        await _until(lambda: len(kept._changed._waiters) == 1)
        async with asyncio.timeout(10):
            await stack.aclose()
            with pytest.raises(UnreachableError):
                await waiting
        await log.close()
    assert not kept._changed._waiters


async def test_a_failure_inside_the_log_is_no_answer_and_the_server_goes_on(kept: MemoryLog, url: str):
    log = RemoteLog(url, KEYS["admin"])
    kept.bounds = _broken  # type: ignore[method-assign]
    with pytest.raises(UnreachableError):
        await log.bounds("status")
    assert list(await log.append([Message("status", b"k", b"v")])) == [0]
    await log.close()


async def _broken(_topic: str) -> Any:
    raise RuntimeError("a bug")


async def test_over_tls_with_a_certificate_of_ones_own(tmp_path: Path, kept: MemoryLog):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificate can be made here")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=log"
    names = "-addext subjectAltName=IP:127.0.0.1"
    command = ["openssl", *make.split(), *names.split(), "-keyout", str(key), "-out", str(certificate)]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context(cafile=str(certificate))
    async with serving(log_server(kept, {"admin": hash_secret("s")}, RIGHTS), ours) as port:
        log: Log = RemoteLog(f"https://127.0.0.1:{port}", "s", tls=trusting)
        assert list(await log.append([Message("status", b"k", b"v")])) == [0]
        await log.close()
        strict = RemoteLog(f"https://127.0.0.1:{port}", "s")
        with pytest.raises(
            UnreachableError,
            match=r"its certificate is not trusted: self.signed certificate( in certificate chain)?$",
        ):
            await strict.topics()
        await strict.close()


async def test_who_does_not_speak_tls_is_said_to_be_that() -> None:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    plain = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with plain:
        log = RemoteLog(f"https://127.0.0.1:{plain.sockets[0].getsockname()[1]}", "s")
        with pytest.raises(UnreachableError, match="what listens there does not speak TLS"):
            await log.topics()
        await log.close()


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while True:
            if true():
                return
            await asyncio.sleep(0)
