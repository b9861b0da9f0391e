"""Serving HTTP: addresses that are refused, heads that are too large, and stopping."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from transom.model.errors import InvalidError
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
