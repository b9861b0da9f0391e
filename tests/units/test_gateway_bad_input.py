"""What no client should send: smuggled requests, floods, slow clients. Clear answers, bounded memory."""

import asyncio
import contextlib

import pytest

from gateway_parts import answering, echo, gateway

HEAD = b"GET /apps/shop/ HTTP/1.1\r\nHost: a\r\nX-Api-Key: tsm_acme\r\n"
POST = b"POST /apps/shop/ HTTP/1.1\r\nHost: a\r\nX-Api-Key: tsm_acme\r\n"
SMUGGLED = b"GET /apps/shop/smuggled HTTP/1.1\r\nHost: a\r\nX-Api-Key: tsm_acme\r\n\r\n"

BAD = {
    "both lengths": POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "both lengths, turned": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "two lengths": POST + b"Content-Length: 0\r\nContent-Length: 90\r\n\r\n" + SMUGGLED,
    "the same length twice": POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx" + SMUGGLED,
    "a list of lengths": POST + b"Content-Length: 0, 0\r\n\r\n" + SMUGGLED,
    "a signed length": POST + b"Content-Length: +5\r\n\r\n" + SMUGGLED,
    "a hexadecimal length": POST + b"Content-Length: 0x5\r\n\r\n" + SMUGGLED,
    "an empty length": POST + b"Content-Length:\r\n\r\n" + SMUGGLED,
    "an endless length": POST + b"Content-Length: 99999999999999999999999\r\n\r\n" + SMUGGLED,
    "an encoding that is not chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked but not last": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked misspelt": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": POST.replace(b"1.1", b"1.0")
    + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "a folded header": HEAD + b"X: a\r\n b\r\n\r\n",
    "a header that begins with a space": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "a space before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "a name with strange letters": HEAD + b"\xc3\xa9: a\r\n\r\n",
    "a header without a name": HEAD + b": a\r\n\r\n",
    "a zero byte": HEAD + b"X: a\x00b\r\n\r\n",
    "a bare carriage return": HEAD + b"X: a\rY: b\r\n\r\n",
    "a bare line feed": HEAD + b"X: a\nY: b\r\n\r\n",
    "bare line feeds only": HEAD.replace(b"\r\n", b"\n") + b"\n",
    "no host": b"GET /apps/shop/ HTTP/1.1\r\nX-Api-Key: tsm_acme\r\n\r\n",
    "two hosts": HEAD + b"Host: b\r\n\r\n",
    "two keys": HEAD + b"Authorization: Bearer tsm_other\r\n\r\n",
    "two of one key header": HEAD + b"X-Api-Key: tsm_other\r\n\r\n",
    "two authorizations": b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic a\r\nAuthorization: Basic a\r\n\r\n",  # noqa: E501
    "two original addresses": b"GET /decide HTTP/1.1\r\nHost: a\r\nX-Original-URI: /a\r\nX-Original-URI: /b\r\n\r\n",  # noqa: E501
    "two methods": b"GET /decide HTTP/1.1\r\nHost: a\r\nX-Original-Method: A\r\nX-Original-Method: B\r\n\r\n",
    "a body behind an upgrade": POST
    + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 4\r\n\r\nabcd"
    + SMUGGLED,
    "CONNECT": b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2 by name": b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET /apps/shop/\r\n\r\n",
    "a version nobody knows": b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a method nobody knows": b"STEAL / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a space in the target": b"GET /apps/shop/ x HTTP/1.1\r\nHost: a\r\n\r\n",
    "a strange byte in the target": b"GET /apps/shop/\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "dots in the target": b"GET /apps/shop/../other/ HTTP/1.1\r\nHost: a\r\nX-Api-Key: tsm_acme\r\n\r\n",
    "nonsense": b"\x00\x01\x02\x03" * 100,
}
KEPT = {"dots in the target", "two keys"}
"""Read well and refused for what they say: the connection may go on."""


@pytest.mark.parametrize("name", BAD)
async def test_what_could_be_read_in_two_ways_is_refused(name: str):
    async with gateway() as world:
        reached: list[tuple[str, dict[str, list[str]], bytes]] = []
        await world.app(echo(reached))
        client = await world.client()
        await client.send(BAD[name])
        status, headers, _ = await client.answer()
        assert status in {400, 405, 413, 505}
        if name not in KEPT:
            assert headers["connection"] == "close"
            assert await client.closed() == b""
        assert reached == []


BAD_BODIES = {
    "a bad size": b"zz\r\nabc\r\n",
    "a size with a prefix": b"0x3\r\nabc\r\n",
    "a size too large": b"fffffffffffffffff\r\nabc",
    "a chunk longer than said": b"3\r\nabcdef\r\n0\r\n\r\n",
    "bare line feeds": b"3\nabc\n0\n\n",
    "a negative size": b"-1\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_BODIES)
@pytest.mark.parametrize("at_once", [1, 0])
async def test_a_body_that_cannot_be_read_reaches_its_end_nowhere(name: str, at_once: int):
    async with gateway() as world:
        reached: list[tuple[str, dict[str, list[str]], bytes]] = []
        await world.app(echo(reached))
        client = await world.client()
        head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
        if at_once:
            await client.send(head + BAD_BODIES[name] + SMUGGLED)
        else:
            await client.send(head + b"1\r\na\r\n")
            await world.until(lambda: world.app_writers)
            await client.send(BAD_BODIES[name] + SMUGGLED)
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (400, "close")
        assert await client.closed() == b""
        assert reached == []


async def test_other_upgrades_are_not_granted_and_hide_nothing():
    async with gateway() as world:
        reached: list[tuple[str, dict[str, list[str]], bytes]] = []
        await world.app(echo(reached))
        client = await world.client()
        await client.send(
            HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n"
            b"GET /apps/shop/next HTTP/1.1\r\nHost: a\r\nX-Api-Key: tsm_bad\r\n\r\n"
        )
        assert (await client.answer())[0] == 200
        assert (await client.answer())[0] == 401  # judged like any other
        assert [first for first, _, _ in reached] == ["GET / HTTP/1.1"]
        assert {"upgrade", "connection", "http2-settings"} & set(reached[0][1]) == set()


async def test_a_head_s_size_and_number_of_headers_are_limited():
    async with gateway(head_bytes=4096, headers_max=20) as world:
        for head in (
            b"".join(b"x-%d: a\r\n" % number for number in range(30)),
            b"X: " + b"y" * 5000 + b"\r\n",
        ):
            client = await world.client()
            await client.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n")
            assert (await client.answer())[0] == 431
            assert await client.closed() == b""
        client = await world.client()
        await client.send(b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.answer())[0] == 431


@pytest.mark.parametrize("flood", [b"x-a: " + b"b" * 90 + b"\r\n", b"y" * 97, b"x:\r\n"])
async def test_a_head_without_end_is_refused_before_it_fills_the_memory(flood: bytes):
    async with gateway() as world:
        client = await world.client()
        sent = b"GET / HTTP/1.1\r\nx: "
        await client.send(sent)
        with contextlib.suppress(ConnectionError):
            while not client.reader.at_eof() and len(client.reader._buffer) == 0 and len(sent) < 1 << 22:
                client.writer.write(flood * 50)
                sent += flood * 50
                await client.writer.drain()
                await asyncio.sleep(0)
        assert len(sent) < 1 << 22
        assert (await client.answer())[0] == 431


@pytest.mark.parametrize(
    "junk", [b"1;" + b"x" * 4000 + b"\r\na\r\n", b"1\r\na\r\n0\r\n" + b"t: u\r\n" * 4000]
)
async def test_what_surrounds_a_body_is_limited(junk: bytes):
    async with gateway(head_bytes=4096) as world:
        await world.app(echo())
        client = await world.client()
        await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for start in range(0, 10 * len(junk), 1000):
                client.writer.write((junk * 10)[start : start + 1000])
                await client.writer.drain()
                await asyncio.sleep(0)
        assert (await client.answer())[0] == 400
        assert await client.closed() == b""


async def test_a_head_that_never_ends_has_its_time():
    async with gateway(head_seconds=10) as world:
        silent, slow = await world.client(), await world.client()
        await slow.send(b"GET / HT")
        await world.until(lambda: any(each._head_bytes for each in world.connections))
        world.pass_time(8)
        await slow.send(b"TP/1.1\r\nHost: a\r\n")  # every byte counts, none gives more time
        await world.until(lambda: any(each._head_bytes > 20 for each in world.connections))
        world.pass_time(3)
        assert await silent.closed() == b""
        status, headers, _ = await slow.answer()
        assert (status, headers["connection"]) == (408, "close")
        assert await slow.closed() == b""


async def test_a_head_in_the_smallest_pieces_is_read_as_well():
    async with gateway() as world:
        reached: list[tuple[str, dict[str, list[str]], bytes]] = []
        await world.app(echo(reached))
        client = await world.client()
        data = POST + b"Content-Length: 5\r\n\r\nhello" + POST + b"Transfer-Encoding: chunked\r\n\r\n"
        data += b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nTrailer: x\r\n\r\n"
        for byte in data:
            await client.send(bytes([byte]))
            await asyncio.sleep(0)
        for _ in range(2):
            assert (await client.answer())[::2] == (200, b"POST / HTTP/1.1|hello")
        assert "trailer" not in reached[1][1]


async def test_a_body_that_stops_coming_has_its_time():
    async with gateway(body_idle_seconds=30) as world:
        await world.app(echo())
        client = await world.client()
        await client.send(POST + b"Content-Length: 5\r\n\r\nhe")
        await world.until(lambda: world.app_writers)
        world.pass_time(20)
        await client.send(b"l")
        await world.until(
            lambda: any(each.current and each.current.body_bytes == 3 for each in world.connections)
        )
        world.pass_time(20)
        await asyncio.sleep(0.01)
        world.pass_time(31)
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (408, "close")
        assert await client.closed() == b""


async def test_a_body_beyond_the_limit_is_refused_unread():
    async with gateway(body_bytes=1000) as world:
        reached: list[tuple[str, dict[str, list[str]], bytes]] = []
        await world.app(echo(reached))
        client = await world.client()
        await client.send(POST + b"Content-Length: 1001\r\n\r\n")
        assert (await client.answer())[0] == 413
        assert await client.closed() == b""
        client = await world.client()
        assert (await client.ask("/apps/shop/", method="POST", body=b"x" * 1000))[0] == 200
        client = await world.client()
        await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(20):
                await client.send(b"64\r\n" + b"x" * 100 + b"\r\n")
                await asyncio.sleep(0)
        assert (await client.answer())[0] == 413
        assert await client.closed() == b""
        assert len(reached) == 1


async def test_the_body_of_a_refused_request_is_not_taken_for_a_request():
    async with gateway() as world:
        client = await world.client()
        body = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
        status, headers, _ = await client.ask("/apps/shop/", method="POST", body=body, key=b"tsm_bad")
        assert (status, "connection" in headers) == (401, False)  # small: read away
        assert (await client.ask("/decide"))[0] == 200
        await client.send(b"POST /apps/shop/ HTTP/1.1\r\nHost: a\r\nContent-Length: 36\r\n\r\n" + body[:10])
        assert (await client.answer())[0] == 401
        await client.send(body[10:] + b"..")
        assert (await client.ask("/decide"))[0] == 200
        head = b"POST /apps/shop/ HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n"
        await client.send(head + body)
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (401, "close")
        assert await client.closed() == b""


async def test_a_client_that_takes_no_answers_is_read_no_more():
    async with gateway(buffer_bytes=16_384) as world:
        client = await world.client(limit=1)
        client.writer.transport.pause_reading()
        (connection,) = world.connections
        request = b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(20):
                while connection.transport.is_reading():
                    client.writer.write(request * 20)
                    await asyncio.sleep(0)
        assert connection.full
        assert connection.transport.get_write_buffer_size() < 1 << 20
        await world.until(lambda: world.pass_time(31) or world.server.connections == 0)


async def test_a_client_that_leaves_takes_its_request_along():
    async with gateway() as world:
        await world.app(answering(b"", after=asyncio.Event()))
        client = await world.client()
        await client.send(HEAD + b"\r\n")
        await world.until(lambda: world.app_writers)
        client.writer.transport.abort()
        await world.until(lambda: world.server.connections == 0)
        await world.until(lambda: world.app_writers[0].transport.is_closing() or _ended(world.app_writers[0]))


def _ended(writer: asyncio.StreamWriter) -> bool:
    writer.write(b"x")
    return writer.transport.is_closing()
