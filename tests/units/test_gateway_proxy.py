"""The reverse proxy: what apps get, what clients get back, and what happens when either side breaks."""

import asyncio
import contextlib
import socket
import struct

import aiohttp
import pytest
from aiohttp import web

from gateway_parts import KEY, OTHER_KEY, Client, World, answering, echo, free_port, gateway, read_request
from transom.region.gateway.decision import Endpoint

Seen = list[tuple[str, dict[str, list[str]], bytes]]
GET = b"GET /apps/shop/ HTTP/1.1\r\nHost: a\r\nX-Api-Key: tsm_acme\r\n"


async def test_an_app_gets_the_request_and_who_sent_it():
    async with gateway() as world:
        seen: Seen = []
        await world.app(echo(seen))
        client = await world.client()
        status, headers, body = await client.ask(
            "/apps/shop/a%20b?q=1",
            "Accept: x",
            "Cookie: a=1",
            "Cookie: b=2",
            "X-Forwarded-For: 10.9.8.7",
            "X-Forwarded-For: 10.9.8.6",
            method="PUT",
            body=b"hello",
        )
        assert (status, body) == (200, b"PUT /a%20b?q=1 HTTP/1.1|hello")
        assert "date" in headers
        first, got, body = seen[0]
        assert (first, body) == ("PUT /a%20b?q=1 HTTP/1.1", b"hello")
        assert got == {
            "host": ["gw.example"],
            "accept": ["x"],
            "cookie": ["a=1", "b=2"],
            "content-length": ["5"],
            "x-forwarded-for": ["10.9.8.7, 10.9.8.6, 127.0.0.1"],
            "x-forwarded-host": ["gw.example"],
            "x-forwarded-proto": ["http"],
            "x-forwarded-prefix": ["/apps/shop"],
            "x-transom-tenant": ["acme"],
            "x-transom-key": ["ci"],
            "x-transom-scopes": ["read write"],
            "x-transom-virtual-cluster": ["vc1"],
        }


async def test_what_a_client_must_not_say_is_left_out():
    async with gateway() as world:
        seen: Seen = []
        await world.app(echo(seen))
        client = await world.client()
        forged = (
            *(
                "X-Transom-Tenant: evil",
                "X-Transom-Admin: 1",
                "x_transom_tenant: evil",
                "X-Transom_Key: evil",
            ),
            *(
                "X-Forwarded-Proto: https",
                "X-Forwarded-Host: evil",
                "X-Forwarded-Prefix: /evil",
                "Forwarded: for=e",
            ),
            *("X_Forwarded_For: evil", "X_Api_Key: tsm_other"),
            *("Connection: X-Mine, Host, Content-Length", "X-Mine: evil", "X-Too: evil"),
            *("Connection: X-Too", "Connection: keep-alive", "Keep-Alive: 5"),
            *("TE: trailers", "Trailer: x", "Proxy-Authorization: evil", "Proxy-Connection: evil"),
        )
        assert (await client.ask("/apps/shop/", *forged))[0] == 200
        got = seen[0][1]
        assert set(got) == {
            *("host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-prefix"),
            *("x-transom-tenant", "x-transom-key", "x-transom-scopes", "x-transom-virtual-cluster"),
        }
        assert "evil" not in str(got)


async def test_what_an_app_says_to_its_neighbour_alone_is_left_out():
    async with gateway() as world:
        said = b"Connection: X-One\r\nX-One: a\r\nX-Two: b\r\nX-Three: c\r\nConnection: X-Two"
        await world.app(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + said + b"\r\n\r\n"))
        _, got, _ = await (await world.client()).ask("/apps/shop/")
        assert set(got) == {"date", "x-three", "content-length"}


async def test_keys_are_not_forwarded_but_an_app_s_own_authorization_is():
    async with gateway() as world:
        seen: Seen = []
        await world.app(echo(seen))
        client = await world.client()
        await client.ask("/apps/shop/")
        await client.ask("/apps/shop/", "X-Api-Key: tsm_acme", key=None)
        await client.ask("/apps/shop/", "X-Api-Key: tsm_acme", "Authorization: Basic abc", key=None)
        assert "tsm_" not in str(seen)
        assert [got.get("authorization") for _, got, _ in seen] == [None, None, ["Basic abc"]]


async def test_connections_to_apps_are_kept_and_shared_by_one_tenant_only():
    async with gateway() as world:
        shop, other = (
            await world.app(echo(name="S")),
            await world.app(echo(name="O"), app="b", tenant="other"),
        )
        # Told by mistake that both have one address: still nobody uses the other's connection.
        world.endpoints.instances["other", "b"] = (shop,)
        for key, app in ((KEY, "shop"), (OTHER_KEY, "b"), (KEY, "shop"), (OTHER_KEY, "b")):
            client = await world.client()
            assert (await client.ask(f"/apps/{app}/", key=key))[0] == 200
        assert len(world.app_writers) == 2
        assert world.server._desk.upstreams.idle == 2
        assert other.port


async def test_kept_connections_end_when_they_are_not_used():
    async with gateway(upstream_idle_seconds=4) as world:
        await world.app(echo())
        client = await world.client()
        assert (await client.ask("/apps/shop/"))[0] == 200
        world.pass_time(5)
        await world.until(lambda: world.server._desk.upstreams.idle == 0)
        assert world.server._desk.upstreams._backends == {}
        assert (await client.ask("/apps/shop/"))[0] == 200
        assert len(world.app_writers) == 2


async def test_only_so_many_connections_are_kept():
    go_on = asyncio.Event()
    async with gateway(upstream_idle_max=2) as world:
        await world.app(answering(b"HTTP/1.1 204 No\r\n\r\n", then_close=False, after=go_on))
        clients = [await world.client() for _ in range(5)]
        asked = [asyncio.create_task(client.ask("/apps/shop/")) for client in clients]
        await world.until(lambda: len(world.app_writers) == 5)
        go_on.set()
        assert [answer[0] for answer in await asyncio.gather(*asked)] == [204] * 5
        assert world.server._desk.upstreams.idle == 2


BODIES = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nTr: x\r\n\r\n",  # noqa: E501
    "until the end": b"HTTP/1.1 200 OK\r\n\r\nhello",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nhello",
    "informed first": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",  # noqa: E501
    "told to go on": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
}


@pytest.mark.parametrize("name", BODIES)
async def test_an_answer_comes_whole_however_its_end_is_known(name: str):
    async with gateway() as world:
        await world.app(answering(BODIES[name]))
        client = await world.client()
        for _ in range(2):
            status, headers, body = await client.ask("/apps/shop/")
            if status == 103:
                assert headers["link"] == "x"
                status, headers, body = await client.answer()
            assert (status, body) == (200, b"hello")
        old = await world.client()
        await old.send(GET.replace(b"1.1", b"1.0") + b"Connection: keep-alive\r\n\r\n")
        status, headers, body = await old.answer()
        assert (status, body, "transfer-encoding" in headers) == (200, b"hello", False)
        known = "length" in str(headers)
        assert headers["connection"] == ("keep-alive" if known else "close")


BODILESS = {
    "HEAD": ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
    "HEAD, chunked": ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "204": ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
    "204 with a length": ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"),
    "304": ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
}


@pytest.mark.parametrize("name", BODILESS)
async def test_answers_without_a_body(name: str):
    method, data = BODILESS[name]
    async with gateway() as world:
        await world.app(answering(data, then_close=False))
        client = await world.client()
        for _ in range(3):
            status, headers, _ = await client.ask("/apps/shop/", method=method)
            assert status == int(data[9:12])
            assert ("content-length" in headers) == (name in {"HEAD", "304"})
        assert len(world.app_writers) == 1
        assert (await client.ask("/decide"))[0] == 200


async def test_hop_by_hop_headers_of_answers_are_left_out():
    async with gateway() as world:
        data = (
            b"HTTP/1.1 200 OK\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nSet-Cookie: a\r\n"
        )
        await world.app(answering(data + b"Date: then\r\nContent-Length: 0\r\n\r\n"))
        client = await world.client()
        status, headers, _ = await client.ask("/apps/shop/", "X-Transom-Knows: 1")
        assert (status, set(headers)) == (200, {"set-cookie", "date", "content-length", "transom-knows"})
        assert headers["date"] == "then"
        assert (await client.ask("/decide"))[0] == 200  # it was the app's connection that closed


async def test_large_bodies_stream_both_ways():
    async with gateway() as world:
        await world.app(echo())
        client = await world.client()
        body = bytes(range(256)) * 20_000
        assert (await client.ask("/apps/shop/", method="POST", body=body))[2][-len(body) :] == body
        await client.send(GET.replace(b"GET", b"POST") + b"Transfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(body), 70_000):
            piece = body[start : start + 70_000]
            await client.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        await client.send(b"0\r\n\r\n")
        assert (await client.answer())[2][-len(body) :] == body


async def test_an_answer_begins_before_its_request_has_ended():
    async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while size := int(await reader.readline(), 16):
            piece = await reader.readexactly(size + 2)
            writer.write(b"%x\r\n%s" % (size, piece))
        writer.write(b"0\r\n\r\n")

    async with gateway() as world:
        await world.app(mirror)
        client = await world.client()
        await client.send(GET.replace(b"GET", b"POST") + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await client.head()
        assert await client.reader.readexactly(6) == b"1\r\na\r\n"
        await client.send(b"1\r\nb\r\n")
        assert await client.reader.readexactly(6) == b"1\r\nb\r\n"
        await client.send(b"0\r\n\r\n")
        assert await client.closed() == b"0\r\n\r\n"


async def test_a_client_that_waits_to_be_told_is_told():
    async with gateway() as world:
        seen: Seen = []
        await world.app(echo(seen))
        client = await world.client()
        await client.send(GET.replace(b"GET", b"POST") + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert (await client.head())[0] == 100
        await client.send(b"hello")
        assert (await client.answer())[::2] == (200, b"POST / HTTP/1.1|hello")
        assert "expect" not in seen[0][1]
        await client.send(
            b"POST /apps/shop/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
        status, headers, _ = await client.answer()  # refused before anything was uploaded
        assert (status, headers["connection"]) == (401, "close")


async def test_a_slow_client_pauses_its_app_and_nothing_piles_up():
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent += 65_536

    async with gateway(buffer_bytes=32_768) as world:
        await world.app(endless)
        client = await world.client(limit=1)
        await client.send(GET + b"\r\n")
        (connection,) = world.connections
        await world.until(lambda: connection.full)
        exchange = connection.handler
        assert exchange is not None
        upstream = exchange._upstream  # pyright: ignore[reportAttributeAccessIssue]
        assert not upstream.transport.is_reading()
        assert connection.transport.get_write_buffer_size() < 600_000
        before = sent
        for _ in range(200):
            await client.reader.read(1 << 16)
        await world.until(lambda: sent > before)  # it goes on when the client does
        await world.until(lambda: connection.full)
        # But not for ever: sockets' own buffers may take a little more now and then, and then no more.
        await world.until(lambda: world.pass_time(31) or world.server.connections == 0)


async def test_a_slow_app_pauses_its_client_and_nothing_piles_up():
    go_on = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        await read_request(reader)
        writer.write(b"HTTP/1.1 204 No\r\n\r\n")

    async with gateway(buffer_bytes=32_768) as world:
        await world.app(deaf)
        client = await world.client()
        body = b"x" * 30_000_000
        asked = asyncio.create_task(client.ask("/apps/shop/", method="POST", body=body))
        (connection,) = world.connections
        await world.until(lambda: connection.waits_for_app)
        assert not connection.transport.is_reading()
        upstream = connection.handler._upstream
        assert upstream.transport.get_write_buffer_size() < 600_000
        go_on.set()
        assert (await asked)[0] == 204


async def test_instances_share_the_load():
    go_on = asyncio.Event()
    async with gateway() as world:
        for _ in range(3):
            await world.app(answering(b"HTTP/1.1 204 No\r\n\r\n", then_close=False, after=go_on))
        clients = [await world.client() for _ in range(9)]
        asked = [asyncio.create_task(client.ask("/apps/shop/")) for client in clients]
        await world.until(lambda: len(world.app_writers) == 9)
        backends = world.server._desk.upstreams._backends.values()
        assert [backend.outstanding for backend in backends] == [3, 3, 3]
        go_on.set()
        await asyncio.gather(*asked)
        assert [backend.outstanding for backend in backends] == [0, 0, 0]


async def test_no_instance_is_503():
    async with gateway() as world:
        world.decider.owners["shop"] = "acme"
        client = await world.client()
        status, headers, _ = await client.ask("/apps/shop/")
        assert (status, headers["retry-after"]) == (503, "1")
        await world.app(echo())
        assert (await client.ask("/apps/shop/"))[0] == 200


async def test_another_instance_is_asked_when_one_does_not_accept():
    async with gateway() as world:
        dead = Endpoint("dead", "127.0.0.1", free_port())
        await world.app(echo())
        alive = world.endpoints.instances["acme", "shop"]
        world.endpoints.instances["acme", "shop"] = (dead, *alive)
        client = await world.client()
        for _ in range(20):
            status, _, body = await client.ask("/apps/shop/", method="POST", body=b"once")
            assert (status, body) == (200, b"POST / HTTP/1.1|once")
        assert world.server._desk.stats.upstream_errors["connect"] == 1  # then it was passed over
        world.endpoints.instances["acme", "shop"] = (dead,)
        assert (await client.ask("/apps/shop/"))[0] == 502  # but never all of them


async def test_an_instance_that_accepts_too_late_is_passed_over(monkeypatch: pytest.MonkeyPatch):
    async with gateway(connect_seconds=2) as world:
        slow = Endpoint("slow", "127.0.0.1", free_port())
        await world.app(echo())
        alive = world.endpoints.instances["acme", "shop"]
        world.endpoints.instances["acme", "shop"] = (slow,)
        upstreams = world.server._desk.upstreams
        really, hung = upstreams.connect, asyncio.Event()

        async def connect(backend: object) -> object:
            if backend.endpoint is slow:
                hung.set()
                await asyncio.Event().wait()
            return await really(backend)

        monkeypatch.setattr(upstreams, "connect", connect)
        client = await world.client()
        asked = asyncio.create_task(client.ask("/apps/shop/", method="POST", body=b"once"))
        await hung.wait()
        world.endpoints.instances["acme", "shop"] = (slow, *alive)
        world.pass_time(3)
        assert (await asked)[::2] == (200, b"POST / HTTP/1.1|once")


class Flaky:
    """An app that answers once on each connection and dies with the second request, or before it."""

    def __init__(self) -> None:
        self.got: Seen = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.got.append(await read_request(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        self.got.append(await read_request(reader))
        writer.transport.abort()


@pytest.mark.parametrize(
    ("method", "body", "status"),
    [
        ("GET", b"", 200),
        ("DELETE", b"", 200),
        ("POST", b"", 502),
        ("PATCH", b"", 502),
        ("PUT", b"x", 502),
    ],
)
async def test_only_what_is_safe_is_sent_again(method: str, body: bytes, status: int):
    async with gateway() as world:
        app = Flaky()
        await world.app(app)
        client = await world.client()
        assert (await client.ask("/apps/shop/"))[0] == 200
        assert (await client.ask("/apps/shop/2", method=method, body=body))[0] == status
        assert len(app.got) == (3 if status == 200 else 2)
        assert (await client.ask("/apps/shop/"))[0] == 200  # the client's connection is as good as before


async def test_a_fresh_connection_that_dies_is_502():
    async def dying(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)

    async with gateway() as world:
        await world.app(dying)
        client = await world.client()
        assert (await client.ask("/apps/shop/"))[0] == 502
        assert len(world.app_writers) == 1


BROKEN = {
    "not HTTP": b"hello there\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "another encoding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    "a folded header": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
    "no such status": b"HTTP/1.1 099 OK\r\n\r\n",
    "a status of no class": b"HTTP/1.1 999 OK\r\nContent-Length: 2\r\n\r\nhi",
    "an upgrade nobody wanted": b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhi",
    "a switch to nothing": b"HTTP/1.1 101 S\r\n\r\n",
    "a head without end": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000,
    "half a head": b"HTTP/1.1 200 OK\r\nContent-",
    "only information": b"HTTP/1.1 103 Early Hints\r\n\r\n",
}


@pytest.mark.parametrize("name", BROKEN)
async def test_an_answer_that_cannot_be_passed_on_is_502(name: str):
    async with gateway() as world:
        await world.app(answering(BROKEN[name]))
        client = await world.client()
        status, headers, body = await client.ask("/apps/shop/")
        while status == 103:
            status, headers, body = await client.answer()
        assert (status, b"bad_gateway" in body) == (502, True)
        assert (await client.ask("/decide"))[0] == 200
        assert headers


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense",
    ],
)
async def test_an_answer_that_breaks_off_does_not_look_whole(data: bytes):
    async with gateway() as world:
        await world.app(answering(data))
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientPayloadError):  # noqa: PT012
                async with session.get(
                    f"http://127.0.0.1:{world.port}/apps/shop/", headers={"X-Api-Key": "tsm_acme"}
                ) as answer:
                    assert answer.status == 200
                    await answer.read()


async def test_an_answer_without_a_length_that_is_torn_off_is_torn_off_for_the_client_too():
    go_on = asyncio.Event()

    async def torn(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await writer.drain()
        await go_on.wait()
        reset(writer)

    async with gateway() as world:
        await world.app(torn)
        client = await world.client()
        await client.send(GET.replace(b"1.1", b"1.0") + b"\r\n")
        await client.head()
        assert await client.reader.readexactly(5) == b"hello"
        go_on.set()
        with pytest.raises(ConnectionResetError):
            await client.reader.read()


def reset(writer: asyncio.StreamWriter) -> None:
    made = writer.get_extra_info("socket")
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.mark.parametrize("more", [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", b"junk", b"\x00"])
async def test_more_than_the_answer_is_not_taken_for_another(more: bytes):
    async with gateway() as world:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
        await world.app(answering(answer + more, then_close=False))
        client = await world.client()
        for _ in range(3):
            assert (await client.ask("/apps/shop/"))[::2] == (200, b"hi")
        assert len(world.app_writers) == 3  # such a connection is not used again


async def test_what_an_app_says_unasked_ends_its_connection():
    async with gateway() as world:
        await world.app(echo())
        client = await world.client()
        assert (await client.ask("/apps/shop/"))[0] == 200
        world.app_writers[0].write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
        await world.until(lambda: world.server._desk.upstreams.idle == 0)
        assert (await client.ask("/apps/shop/"))[2] == b"GET / HTTP/1.1|"


async def test_a_body_where_there_is_none_is_not_passed_on():
    async with gateway() as world:
        await world.app(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", then_close=False))
        client = await world.client()
        for _ in range(2):
            assert (await client.ask("/apps/shop/", method="HEAD"))[0] == 200
        assert (await client.ask("/decide"))[0] == 200


async def test_an_app_that_does_not_answer_has_its_time():
    async with gateway(answer_seconds=60) as world:
        await world.app(answering(b"", after=asyncio.Event()))
        client = await world.client()
        asked = asyncio.create_task(client.ask("/apps/shop/"))
        await world.until(lambda: world.app_writers)
        await world.until(lambda: world.connections[0].current.instance)
        world.pass_time(61)
        assert (await asked)[0] == 504
        assert (await client.ask("/decide"))[0] == 200


async def test_an_answer_that_stops_coming_is_cut():
    async def stalling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await asyncio.Event().wait()

    async with gateway(answer_seconds=60) as world:
        await world.app(stalling)
        client = await world.client()
        await client.send(GET + b"\r\n")
        await client.head()
        assert await client.reader.readexactly(5) == b"hello"
        world.pass_time(61)
        assert await client.closed() == b""


async def test_an_app_that_refuses_a_body_early_is_heard():
    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await writer.drain()
        await asyncio.Event().wait()

    async with gateway() as world:
        await world.app(early)
        client = await world.client()
        await client.send(GET.replace(b"GET", b"POST") + b"Content-Length: 9999999\r\n\r\n" + b"x" * 1000)
        status, headers, body = await client.answer()
        assert (status, headers["connection"], body) == (413, "close", b"no")
        assert await client.closed() == b""


async def test_the_slow_way_of_deciding_loses_no_body():
    async with gateway() as world:
        await world.app(echo())
        world.decider.later = True
        client = await world.client()
        for size in (0, 10, 300_000):
            _, _, body = await client.ask("/apps/shop/", method="POST", body=b"x" * size)
            assert body == b"POST / HTTP/1.1|" + b"x" * size


async def test_clients_at_once_never_see_each_other_s_answers():
    async with gateway() as world:
        for app, tenant in (("a", "acme"), ("b", "other")):
            for _ in range(2):
                await world.app(echo(name=app), app=app, tenant=tenant)

        async def run(number: int) -> None:
            client = await world.client()
            app, key = (("a", KEY), ("b", OTHER_KEY))[number % 2]
            for turn in range(20):
                wanted = f"{number}-{turn}"
                other = "ab"[(number + 1) % 2]
                assert (await client.ask(f"/apps/{other}/{wanted}", key=key))[0] == 404
                _, _, body = await client.ask(
                    f"/apps/{app}/{wanted}", method="POST", body=b"x" * turn, key=key
                )
                assert body == f"{app}POST /{wanted} HTTP/1.1|".encode() + b"x" * turn

        async with asyncio.TaskGroup() as group:
            for number in range(12):
                group.create_task(run(number))


# WebSocket


@contextlib.asynccontextmanager
async def websocket_app(world: World):
    async def serve(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=("chat",))
        if not socket.can_prepare(request):
            return web.Response(text="plain")
        await socket.prepare(request)
        await socket.send_str(f"{request.path} {request.headers['x-transom-tenant']}")
        async for message in socket:
            if message.data == "bye":
                break
            await (socket.send_bytes if message.type is aiohttp.WSMsgType.BINARY else socket.send_str)(
                message.data
            )
        await socket.close()
        return socket

    app = web.Application()
    app.router.add_get("/{path:.*}", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    world.endpoints.instances["acme", "live"] = (Endpoint("live-0", "127.0.0.1", port),)
    world.decider.owners["live"] = "acme"
    try:
        yield
    finally:
        await runner.cleanup()


async def test_a_websocket_goes_through():
    async with gateway() as world, websocket_app(world), aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{world.port}/apps/live/chat"
        headers = {"X-Api-Key": "tsm_acme"}
        async with session.ws_connect(url, headers=headers, protocols=("chat",)) as socket:
            assert socket.protocol == "chat"
            assert await socket.receive_str() == "/chat acme"
            for size in (1, 1000, 300_000):
                await socket.send_bytes(b"x" * size)
                assert await socket.receive_bytes() == b"x" * size
            world.pass_time(500)
            await socket.send_str("still here")
            assert await socket.receive_str() == "still here"
            await socket.send_str("bye")
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(url, headers={"X-Api-Key": "tsm_other"})
        assert refused.value.status == 404


async def test_a_silent_websocket_has_its_time_and_leaving_ends_both_sides():
    async with gateway(tunnel_idle_seconds=600) as world, websocket_app(world):
        url = f"http://127.0.0.1:{world.port}/apps/live/chat"
        async with aiohttp.ClientSession(headers={"X-Api-Key": "tsm_acme"}) as session:
            socket = await session.ws_connect(url)
            await socket.receive_str()
            world.pass_time(601)
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSED
            socket = await session.ws_connect(url)
            await socket.receive_str()
        await world.until(lambda: world.server.connections == 0)
        backends = world.server._desk.upstreams._backends.values()
        assert [backend.outstanding for backend in backends] == [0]


async def test_a_websocket_that_is_refused_by_its_app_is_an_answer_and_the_end():
    async with gateway() as world:
        seen: Seen = []
        await world.app(echo(seen))
        client = await world.client()
        await client.send(
            GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n" + GET + b"\r\n"
        )
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await client.closed() == b""
        assert len(seen) == 1
        assert seen[0][1]["upgrade"] == ["websocket"]
        assert seen[0][1]["connection"] == ["Upgrade"]


async def test_bytes_that_follow_an_upgrade_reach_the_app_after_it_agreed():
    async def raw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello ")
        writer.write(await reader.readexactly(5))
        await writer.drain()
        await asyncio.Event().wait()

    async with gateway() as world:
        await world.app(raw)
        client: Client = await world.client()
        await client.send(GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\nea")
        await asyncio.sleep(0)
        await client.send(b"rly")
        assert (await client.head())[0] == 101
        assert await client.reader.readexactly(11) == b"hello early"
