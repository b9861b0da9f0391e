"""Serving HTTP: addresses that are refused, heads that are too large, and stopping."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tls_parts import TRUST
from transom.model.errors import InvalidError
from transom.runtime.accepting import HttpLimits, Room
from transom.runtime.http import AsgiApp, serve


async def hello(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


async def started(app: AsgiApp) -> tuple[asyncio.Task[None], int]:
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    return asyncio.create_task(serve(app, "127.0.0.1", 0, ready=port.set_result)), await port


async def stopped(running: asyncio.Task[None]) -> None:
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        async with asyncio.timeout(20):
            await running
    assert len(asyncio.all_tasks()) == 1


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_port_in_use_is_named():
    running, port = await started(hello)
    with pytest.raises(InvalidError, match=f"port {port} is in use; stop what uses it or choose another"):
        await serve(hello, "127.0.0.1", port)
    await stopped(running)
    again = asyncio.create_task(serve(hello, "127.0.0.1", port))  # free at once when it was let go
    await asyncio.sleep(0)
    await stopped(again)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "region.example"])
async def test_plain_http_beyond_this_machine_is_refused(host: str):
    with pytest.raises(InvalidError, match="certificate"):
        await serve(hello, host, 0)


async def test_a_head_without_end_is_refused():
    running, port = await started(hello)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n")
    sent = 0
    with contextlib.suppress(ConnectionError):
        while not reader.at_eof() and sent < 1 << 24:
            writer.write(b"x-%d: " % sent + b"y" * 1000 + b"\r\n")
            await writer.drain()
            sent += 1000
    assert sent < 1 << 23
    with contextlib.suppress(ConnectionError):
        assert (await reader.read()).startswith(b"HTTP/1.1 400")
    writer.close()
    await stopped(running)


async def test_a_connection_serves_many_requests():
    running, port = await started(hello)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(3):
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await reader.readuntil(b"hi")).startswith(b"HTTP/1.1 200")
    writer.close()
    await stopped(running)


# --- what clients cost ---------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def bounded(app: AsgiApp = hello, tls: Any = None, **limits: Any) -> AsyncIterator[int]:
    """A server with these limits; it leaves no task and no open file behind."""
    before, tasks = open_files(), len(asyncio.all_tasks())
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = serve(app, "127.0.0.1", 0, tls=tls, ready=port.set_result, limits=HttpLimits(**limits))
    running = asyncio.create_task(serving)
    yield await port
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    for _ in range(100):
        if open_files() == before and len(asyncio.all_tasks()) == tasks:
            return
        await asyncio.sleep(0.01)
    raise AssertionError((open_files() - before, asyncio.all_tasks()))


async def said(port: int, *sent: bytes) -> bytes:
    """All that a client hears that says this, and nothing more, until it is hung up on."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for each in sent:
            writer.write(each)
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionError):
                return await reader.read()
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("tls", [None, TRUST.server], ids=["plain", "tls"])
async def test_who_says_nothing_is_hung_up_on(tls: Any):
    async with bounded(tls=tls, head_seconds=0.05, handshake_seconds=0.05) as port:
        assert await said(port) == b""


async def test_who_does_not_end_the_handshake_is_hung_up_on():
    async with bounded(tls=TRUST.server, handshake_seconds=0.05) as port:
        assert await said(port, b"\x16\x03\x01\x02\x00") == b""


async def test_who_does_not_end_a_head_is_told_so():
    async with bounded(head_seconds=0.05) as port:
        assert (await said(port, b"GET / HTTP/1.1\r\n")).startswith(b"HTTP/1.1 408")
        again = await said(port, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"GET")
        assert again.startswith(b"HTTP/1.1 200")
        assert b"hiHTTP/1.1 408" in again


async def test_who_does_not_end_a_body_is_gone_for_the_app():
    heard: list[str] = []

    async def reading(_scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request" and message["more_body"]:
            heard.append(message["body"].decode())
        heard.append(message["type"])

    async with bounded(reading, body_seconds=0.05) as port:
        head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n"
        await said(port, head, b"half")
    assert heard[-1] == "http.disconnect"
    assert "".join(heard[:-1]) == "half"


async def test_who_does_not_take_an_answer_is_cut_off():
    gone = asyncio.Event()

    async def endless(_scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not gone.is_set():
            await send({"type": "http.response.body", "body": b"x" * (1 << 20), "more_body": True})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    await receive()
                    if (await receive())["type"] == "http.disconnect":
                        gone.set()

    async with bounded(endless, take_seconds=0.05) as port:
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        async with asyncio.timeout(20):
            await gone.wait()
        client.close()


async def test_who_waits_for_an_answer_is_not_hurried():
    begun, finish = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await finish.wait()
        await hello(scope, receive, send)

    limits = {"head_seconds": 0.01, "body_seconds": 0.01, "take_seconds": 0.01}
    async with bounded(slow, **limits) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await begun.wait()
        await said(port)  # another one's time passes meanwhile, and it is looked at
        finish.set()
        assert (await reader.readuntil(b"hi")).startswith(b"HTTP/1.1 200")
        writer.close()


@pytest.mark.parametrize("tls", [None, TRUST.server], ids=["plain", "tls"])
async def test_those_who_only_hold_connections_close_their_own(tls: Any):
    begun, finish = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/watch":
            begun.set()
            await finish.wait()
        await hello(scope, receive, send)

    async def asked(path: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        way = await asyncio.open_connection("127.0.0.1", port, ssl=TRUST.client if tls else None)
        way[1].write(b"GET %s HTTP/1.1\r\nhost: a\r\n\r\n" % path)
        return way

    most, crowd = 20, []
    async with bounded(app, tls=tls, connections=most) as port:
        watching = await asked(b"/watch")
        await begun.wait()
        for number in range(5 * most):
            crowd.append(socket.create_connection(("127.0.0.1", port)))
            if number % 3 == 0:
                crowd[-1].sendall(b"\x16\x03" if tls else b"GET / HT")
            await asyncio.sleep(0)
        another = await asked(b"/")
        assert (await another[0].readuntil(b"hi")).startswith(b"HTTP/1.1 200")
        finish.set()
        assert (await watching[0].readuntil(b"hi")).startswith(b"HTTP/1.1 200")
        for each in (another[1], watching[1]):
            each.transport.abort()
        for each in crowd:
            each.close()


def test_room_never_holds_more_than_the_most_and_the_busy_stay():
    class Held:
        was_cut = False

        def cut(self) -> None:
            self.was_cut = True

    room, busy = Room(3), Held()
    room.enter(busy)
    room.busy(busy)
    others = [Held() for _ in range(5)]
    for each in others:
        room.enter(each)
        assert len(room) <= 3
    assert [each.was_cut for each in (busy, *others)] == [False, True, True, True, False, False]
    room.busy(others[3])
    room.idle(others[3])
    room.enter(Held())
    assert (others[4].was_cut, others[3].was_cut) == (True, False), "it is the one that waits longest"
    room.leave(others[3])
    room.leave(others[3])
    assert len(room) == 2
    full = Room(1)
    full.enter(busy)
    full.busy(busy)
    late = Held()
    full.enter(late)
    assert (busy.was_cut, late.was_cut, len(full)) == (False, True, 1)


async def test_plain_http_where_tls_is_spoken_gets_a_readable_answer():
    async with bounded(tls=TRUST.server) as port:
        answer = await said(port, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert answer.endswith(b"Client sent an HTTP request to an HTTPS server.\n")
        assert await said(port, b"\x00\x00") == b""


async def test_stopping_closes_idle_waiting_and_stuck_connections():

    def app(how: str, begun: asyncio.Event, left: asyncio.Event) -> Callable[..., Awaitable[None]]:
        async def answer(_scope: Any, receive: Any, send: Any) -> None:
            await receive()
            begun.set()
            if how == "waiting":
                assert (await receive())["type"] == "http.disconnect"
                left.set()
            else:  # its client never takes the answer
                await send({"type": "http.response.start", "status": 200, "headers": []})
                for _ in range(100):
                    await send({"type": "http.response.body", "body": b"x" * (1 << 20), "more_body": True})

        return answer

    for how in ("waiting", "stuck"):
        begun, left = asyncio.Event(), asyncio.Event()
        before = open_files()
        running, port = await started(app(how, begun, left))
        client = socket.create_connection(("127.0.0.1", port))
        idle = socket.create_connection(("127.0.0.1", port))
        client.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await begun.wait()
        await stopped(running)
        await asyncio.sleep(0)
        assert open_files() == before + 2  # the two ends that are the clients'
        assert left.is_set() == (how == "waiting")
        client.close()
        idle.close()


async def test_stopping_lets_a_request_that_is_nearly_done_finish():
    begun, finish = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await finish.wait()
        await hello(scope, receive, send)

    running, port = await started(slow)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    await begun.wait()
    running.cancel()
    await asyncio.sleep(0)
    finish.set()
    assert (await reader.readuntil(b"hi")).startswith(b"HTTP/1.1 200")
    writer.close()
    await stopped(running)
