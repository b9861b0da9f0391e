"""The decision endpoint, the gateway's own pages, connections and how they end."""

import asyncio
import contextlib
import json
import ssl
from pathlib import Path

import pytest

from gateway_parts import ACME, KEY, OTHER_KEY, SLOW_KEY, Client, World, answering, echo, gateway
from transom.model.errors import InvalidError
from transom.region.gateway.access_log import AccessLog
from transom.region.gateway.crowd import Crowd
from transom.region.gateway.decision import Decision, Refusal
from transom.region.gateway.fakes import FakeDecider, FakeEndpoints
from transom.region.gateway.server import GatewayServer
from transom.runtime.clock import ManualClock, SystemClock
from transom.runtime.randomness import Randomness
from transom.runtime.telemetry import exposition

IDENTITY = {
    "x-transom-tenant": "acme",
    "x-transom-key": "ci",
    "x-transom-scopes": "read write",
    "x-transom-virtual-cluster": "vc1",
}


async def test_envoy_asks_with_the_path_behind_the_prefix():
    async with gateway() as world:
        world.decider.owners["shop"] = "acme"
        client = await world.client()
        status, headers, body = await client.ask("/decide/apps/shop/x?q=1", method="PUT")
        assert (status, body) == (200, b"")
        assert {name: headers.get(name) for name in IDENTITY} == IDENTITY
        assert world.decider.asked == [(KEY, "shop", "PUT")]


async def test_nginx_and_traefik_ask_with_headers():
    async with gateway() as world:
        world.decider.owners["shop"] = "acme"
        client = await world.client()
        for uri, method in (
            ("X-Original-URI", "X-Original-Method"),
            ("X-Forwarded-Uri", "X-Forwarded-Method"),
        ):
            status, headers, _ = await client.ask("/decide", f"{uri}: /apps/shop/x", f"{method}: PATCH")
            assert (status, headers["x-transom-tenant"]) == (200, "acme")
        assert world.decider.asked == [(KEY, "shop", "PATCH")] * 2


async def test_all_identity_headers_are_there_even_when_empty():
    """A proxy overwrites what a client sent only with headers that it gets."""
    async with gateway() as world:
        _, headers, _ = await (await world.client()).ask("/decide", key=OTHER_KEY)
        assert headers["x-transom-virtual-cluster"] == headers["x-transom-scopes"] == ""


@pytest.mark.parametrize("later", [0, 1])
async def test_refusals_say_why(later: int):
    async with gateway() as world:
        world.decider.owners["shop"] = "acme"
        world.decider.later = bool(later)
        client = await world.client()
        status, headers, body = await client.ask("/decide/apps/shop/", key=None)
        assert (status, headers["www-authenticate"]) == (401, 'Bearer realm="transom"')
        status, headers, body = await client.ask("/decide/apps/shop/", key=b"tsm_bad")
        assert headers["www-authenticate"] == 'Bearer realm="transom", error="invalid_token"'
        assert json.loads(body) == {"error": "invalid_token", "message": "the key is not known"}
        assert headers["content-type"] == "application/json"
        status, _, body = await client.ask("/decide/apps/shop/", key=OTHER_KEY)
        assert (status, json.loads(body)["error"]) == (404, "not_found")
        assert (await client.ask("/decide/apps/shop/", key=KEY))[0] == 200


@pytest.mark.parametrize(
    ("decision", "status", "header", "value"),
    [
        (
            Refusal(403, ACME, "insufficient_scope", "no"),
            403,
            "www-authenticate",
            'Bearer realm="transom", error="insufficient_scope"',
        ),
        (Refusal(503, None, "unavailable", "no"), 503, "retry-after", "1"),
        (Refusal(503, None, "unavailable", "no", 7), 503, "retry-after", "7"),
        (Refusal(429, ACME, "rate_limited", "no", 3), 429, "retry-after", "3"),
    ],
)
async def test_other_refusals(decision: Decision, status: int, header: str, value: str):
    async with gateway() as world:
        world.decider._decision = lambda key, app: decision  # pyright: ignore[reportAttributeAccessIssue]
        answer = await (await world.client()).ask("/decide/apps/shop/")
        assert (answer[0], answer[1][header]) == (status, value)
        assert world.server.errors == (1 if status == 503 else 0)


async def test_a_decider_that_raises_lets_nobody_in_and_ends_nothing():
    async with gateway() as world:

        async def broken(key: bytes, app: str, method: str) -> Decision:
            raise RuntimeError("broken")

        world.decider.later, world.decider.decide = True, broken
        client = await world.client()
        assert (await client.ask("/decide"))[0] == 503
        world.decider.later = False
        assert (await client.ask("/decide"))[0] == 200


async def test_a_slow_decision_is_given_up_and_not_taken_for_another():
    async with gateway(answer_seconds=5) as world:
        forgotten = asyncio.Event()

        async def never(key: bytes, app: str, method: str) -> Decision:
            try:
                return await asyncio.get_running_loop().create_future()
            finally:
                forgotten.set()

        world.decider.later, world.decider.decide = True, never
        client = await world.client()
        asked = asyncio.create_task(client.ask("/decide"))
        await world.until(lambda: world.decider.asked)
        world.pass_time(6)
        assert (await asked)[0] == 503
        await forgotten.wait()
        gone = await world.client()
        forgotten.clear()
        await gone.send(b"GET /decide HTTP/1.1\r\nHost: a\r\n\r\n")
        await world.until(lambda: len(world.decider.asked) == 2)
        gone.writer.transport.abort()
        await forgotten.wait()  # nobody waits for an answer that nobody will read


async def test_a_head_asked_for_has_no_body():
    async with gateway() as world:
        client = await world.client()
        status, headers, _ = await client.ask("/decide/apps/none/", method="HEAD")
        assert (status, int(headers["content-length"]) > 0) == (404, True)
        assert (await client.ask("/decide"))[0] == 200  # the next answer begins where it should


async def test_a_decision_reads_no_body():
    """nginx may keep the client's Content-Length without its body: waiting would take the next request."""
    async with gateway() as world:
        client = await world.client()
        status, headers, _ = await client.ask("/decide", "Content-Length: 5")
        assert (status, headers["connection"]) == (200, "close")
        assert await client.closed() == b""
        client = await world.client()
        await client.send(
            b"POST /decide HTTP/1.1\r\nHost: a\r\nContent-Length: 28\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n"
        )
        assert (await client.answer())[0] == 401
        assert await client.closed() == b""


async def test_too_many_requests_of_a_key():
    async with gateway() as world:
        client = await world.client()
        assert (await client.ask("/decide", key=SLOW_KEY))[0] == 200
        status, headers, body = await client.ask("/decide", key=SLOW_KEY)
        assert (status, headers["retry-after"], json.loads(body)["error"]) == (429, "1", "rate_limited")
        assert (await client.ask("/decide", key=KEY))[0] == 200
        world.pass_time(1.5)
        assert (await client.ask("/decide", key=SLOW_KEY))[0] == 200


async def test_what_the_gateway_knows_is_told_on_demand():
    async with gateway() as world:
        client = await world.client()
        _, headers, _ = await client.ask("/decide", "X-Transom-Knows: 1")
        assert headers["transom-knows"] == "revision=7"
        assert "transom-knows" not in (await client.ask("/decide"))[1]
        assert (await client.ask("/decide", "X-Transom-Knows: 1", key=None))[1]["transom-knows"]


async def test_own_pages():
    async with gateway() as world:
        client = await world.client()
        assert (await client.ask("/healthz", key=None))[::2] == (200, b'{"status":"ok"}')
        assert (await client.ask("/readyz", key=None))[::2] == (503, b'{"status":"filling"}')
        assert (await client.ask("/metrics"))[0] == 404, "not for clients"
        body = exposition()
        assert b'transom_gateway_requests_total{route="own",status="5xx"} 1.0' in body
        assert b"transom_gateway_connections 1.0" in body
        assert b'transom_gateway_request_seconds_bucket{le="+Inf",route="own"} 2.0' in body
        assert (await client.ask("/healthz", method="POST"))[1]["allow"] == "GET, HEAD"
        assert (await client.ask("/nothing"))[0] == 404
        assert world.decider.asked == []
    assert b"transom_gateway_requests" not in exposition()


async def test_pipelined_requests_are_answered_in_order_each_as_who_it_is():
    async with gateway(pipelined_max=100) as world:
        world.decider.owners.update(a="acme", b="other")
        await world.app(echo(name="A"), app="a", tenant="acme")
        await world.app(echo(name="B"), app="b", tenant="other")
        client = await world.client()
        wanted: list[tuple[int, bytes]] = []
        sent = b""
        for number in range(40):
            app, key = "ab"[number % 2], (KEY, OTHER_KEY, b"tsm_bad")[number % 3]
            path = f"/{'decide/apps' if number % 5 == 0 else 'apps'}/{app}/{number}"
            body = b"x" * (number % 7)
            sent += f"POST {path} HTTP/1.1\r\nHost: g\r\nX-Api-Key: {key.decode()}\r\n".encode()
            sent += b"" if number % 5 == 0 else b"Content-Length: %d\r\n" % len(body)
            sent += b"\r\n" + (b"" if number % 5 == 0 else body)
            owner = {KEY: "a", OTHER_KEY: "b"}.get(key)
            status = 401 if owner is None else 404 if owner != app else 200
            shown = f"{app.upper()}POST /{number} HTTP/1.1|".encode() + body
            wanted.append((status, shown if status == 200 and number % 5 else b""))
        await client.send(sent)
        for status, shown in wanted:
            got, _, body = await client.answer()
            assert (got, body if shown or got == 200 else b"") == (status, shown)


async def test_only_so_many_requests_are_taken_from_one_read():
    async with gateway(pipelined_max=8) as world:
        client = await world.client()
        await client.send(b"GET /decide HTTP/1.1\r\nHost: a\r\nX-Api-Key: tsm_acme\r\n\r\n" * 50)
        answers = [await client.answer() for _ in range(8)]
        assert [status for status, _, _ in answers] == [200] * 8
        assert "connection" not in answers[6][1]
        assert answers[7][1]["connection"] == "close"
        assert await client.closed() == b""
        assert len(world.decider.asked) == 8


async def test_while_one_request_is_under_way_no_more_is_read():
    go_on = asyncio.Event()
    async with gateway() as world:
        await world.app(answering(b"HTTP/1.1 204 No\r\n\r\n", then_close=False, after=go_on))
        client = await world.client()
        await client.send(b"GET /apps/shop/ HTTP/1.1\r\nHost: a\r\nX-Api-Key: tsm_acme\r\n\r\n")
        (connection,) = world.connections
        await world.until(lambda: connection.current is not None)
        client.writer.write(b"GET /decide HTTP/1.1\r\nHost: a\r\nX: %s\r\n\r\n" % (b"y" * 10_000) * 2000)
        await world.until(lambda: not connection.transport.is_reading())
        waiting = len(connection._queue)
        assert 0 < waiting < 64
        go_on.set()
        assert (await client.answer())[0] == 204
        assert (await client.answer())[0] == 401


async def test_versions_and_connections():
    async with gateway() as world:
        client = await world.client()
        await client.send(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert (await client.answer())[1]["connection"] == "close"
        assert await client.closed() == b""
        client = await world.client()
        for _ in range(2):
            await client.send(b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert (await client.answer())[1]["connection"] == "keep-alive"
        assert (await client.ask("/healthz", "Connection: close"))[1]["connection"] == "close"
        assert await client.closed() == b""


async def test_an_absolute_target_is_its_path_when_it_names_the_host():
    async with gateway() as world:
        client = await world.client()
        assert (await client.ask("http://gw.example/healthz"))[0] == 200
        assert (await client.ask("http://elsewhere/healthz"))[0] == 404
        assert (await client.ask("*", method="OPTIONS"))[0] == 404


async def test_idle_connections_are_closed_in_time():
    async with gateway(idle_seconds=20) as world:
        client = await world.client()
        assert (await client.ask("/healthz"))[0] == 200
        world.pass_time(19)
        assert (await client.ask("/healthz"))[0] == 200
        world.pass_time(21)
        assert await client.closed() == b""


async def busy(world: World, client: Client | None = None) -> Client:
    """A client whose request is under way."""
    asked = len(world.decider.asked)
    client = client or await world.client()
    await client.send(b"GET /apps/shop/ HTTP/1.1\r\nHost: a\r\nX-Api-Key: tsm_acme\r\n\r\n")
    await world.until(lambda: len(world.decider.asked) > asked)
    return client


async def told_that_there_are_too_many(client: Client) -> None:
    status, headers, _ = await client.answer()
    assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
    assert await client.closed() == b""
    client.writer.close()


async def test_connections_beyond_the_limit_are_told_so():
    async with gateway(connections_max=2) as world:
        await world.app(answering(b"", after=asyncio.Event()))
        clients = [await busy(world) for _ in range(2)]
        for _ in range(3):
            await told_that_there_are_too_many(await world.client())
        clients[0].writer.close()
        await world.until(lambda: world.server.connections == 1)
        assert (await (await world.client()).ask("/healthz"))[0] == 200


async def test_who_waits_makes_room_and_nobody_whose_request_is_under_way():
    async with gateway(connections_max=4, idle_seconds=75, head_seconds=10) as world:
        await world.app(answering(b"", after=asyncio.Event()))
        working = await busy(world)
        old, young, slow = [await world.client() for _ in range(3)]
        assert (await old.ask("/healthz"))[0] == 200
        world.pass_time(3)
        await world.until(lambda: world.server._desk.now == 3)
        assert (await young.ask("/healthz"))[0] == 200
        await slow.send(b"GET /healthz HTTP/1.1\r\nHos")
        await world.until(lambda: any(each._head_bytes for each in world.connections))
        newer = await busy(world)
        assert await slow.closed() == b""
        again = await world.client()
        assert await old.closed() == b"", "the one that has waited longer"
        await busy(world, young)
        await busy(world, again)
        await told_that_there_are_too_many(await world.client())
        newer.writer.close()
        await world.until(lambda: world.server.connections == 3)
        assert (await (await world.client()).ask("/healthz"))[0] == 200
        assert not working.reader.at_eof()


async def test_one_address_holds_a_quarter_and_a_front_all():
    async with gateway(connections_max=8, fronts=("127.0.0.9",)) as world:
        await world.app(answering(b"", after=asyncio.Event()))
        other = await world.client(local_addr=("127.0.0.2", 0))  # would be closed before any that has spoken
        await world.until(lambda: world.server.connections == 1)
        idle = await world.client()
        assert (await idle.ask("/healthz"))[0] == 200
        await busy(world)
        await busy(world)
        assert await idle.closed() == b"", "its own make room"
        for _ in range(3):
            await told_that_there_are_too_many(await world.client())
        assert (await other.ask("/healthz"))[0] == 200
        fronts = [await world.client(local_addr=("127.0.0.9", 0)) for _ in range(5)]
        for front in fronts:
            assert (await front.ask("/healthz"))[0] == 200
        assert not other.reader.at_eof()


def test_a_customer_is_an_address_or_the_first_half_of_one():
    crowd = Crowd(8, ["10.0.0.0/8", "2001:db8::1"])
    names = [crowd._name(each) for each in ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2", "not an address")]
    assert names == ["192.0.2.1", "192.0.2.1", "192.0.2.2", "not an address"]
    assert (
        crowd._name("2001:db8:0:1::1")
        == crowd._name("2001:db8:0:1:ffff::2")
        != crowd._name("2001:db8:0:2::1")
    )
    assert crowd._name("10.1.2.3") == crowd._name("2001:db8::1") == ""
    assert crowd._name("2001:db8::2") != ""


async def test_stopping_lets_requests_under_way_end_and_closes_the_others():
    go_on = asyncio.Event()
    async with gateway() as world:
        await world.app(
            answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", then_close=False, after=go_on)
        )
        idle, half, busy = [await world.client() for _ in range(3)]
        assert (await idle.ask("/healthz"))[0] == 200
        await half.send(b"GET /apps/shop/ HTTP/1.1\r\nHos")
        asked = asyncio.create_task(busy.ask("/apps/shop/"))
        await world.until(lambda: len(world.decider.asked) == 1)
        world.running.cancel()
        assert await idle.closed() == b""
        assert await half.closed() == b""
        with pytest.raises(ConnectionRefusedError):
            await world.client()
        assert not world.running.done()
        go_on.set()
        status, headers, body = await asked
        assert (status, headers["connection"], body) == (200, "close", b"hi")
        assert await busy.closed() == b""
        with pytest.raises(asyncio.CancelledError):
            await world.running


async def test_stopping_takes_no_longer_than_it_may():
    async with gateway(drain_seconds=5) as world:
        await world.app(answering(b"", after=asyncio.Event()))
        client = await world.client()
        await client.send(b"GET /apps/shop/ HTTP/1.1\r\nHost: a\r\nX-Api-Key: tsm_acme\r\n\r\n")
        await world.until(lambda: world.decider.asked)
        world.running.cancel()
        await world.until(lambda: world.server._desk.draining)
        world.pass_time(4)
        await asyncio.sleep(0.01)
        assert not world.running.done()
        world.pass_time(2)
        assert await client.closed() == b""
        with pytest.raises(asyncio.CancelledError):
            await world.running


async def test_stopping_twice_is_at_once():
    async with gateway() as world:
        await world.app(answering(b"", after=asyncio.Event()))
        client = await world.client()
        await client.send(b"GET /apps/shop/ HTTP/1.1\r\nHost: a\r\nX-Api-Key: tsm_acme\r\n\r\n")
        await world.until(lambda: world.decider.asked)
        world.running.cancel()
        await world.until(lambda: world.server._desk.draining)
        world.running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await world.running
        assert await client.closed() == b""


async def test_plain_http_beyond_this_machine_is_refused():
    server = GatewayServer(
        FakeDecider({}, {}), FakeEndpoints(), clock=SystemClock(), randomness=Randomness(1)
    )
    with pytest.raises(InvalidError, match="certificate"):
        await server.serve("0.0.0.0", 0)


async def test_a_port_in_use_is_named():
    async with gateway() as world:
        server = GatewayServer(
            FakeDecider({}, {}), FakeEndpoints(), clock=SystemClock(), randomness=Randomness(1)
        )
        with pytest.raises(InvalidError, match="is in use"):
            await server.serve("127.0.0.1", world.port)


async def test_the_access_log_tells_all_but_secrets(tmp_path: Path):
    path, clock = tmp_path / "access.log", ManualClock()
    log = AccessLog(path, clock)
    async with gateway(access_log=log, clock=clock) as world:
        await world.app(echo())
        client = await world.client()
        await client.ask("/apps/shop/things?secret=1", method="POST", body=b"12345")
        await client.ask("/decide/apps/shop/tsm_acme0123/tsh_ada4/x?token=1", key=b"tsm_guess")
        await client.send(b"BAD\r\n\r\n")
        await client.closed()
        world.pass_time(1)
        await world.until(lambda: path.exists() and len(path.read_text().splitlines()) == 3)
        await (await world.client()).ask("/healthz")
    text = path.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) == 4  # the last one was written when the server stopped
    first = lines[0]
    assert first.pop("ms") >= 0
    assert first.pop("time").endswith("Z")
    assert first == {
        "client": "127.0.0.1",
        "method": "POST",
        "route": "proxy",
        "app": "shop",
        "path": "/apps/shop/things",
        "status": 200,
        "tenant": "acme",
        "key": "ci",
        "instance": "shop-0",
        "bytes_in": 5,
        "bytes_out": len("POST /things?secret=1 HTTP/1.1|12345"),
    }
    assert (lines[1]["status"], lines[1]["path"]) == (401, "/apps/shop/[secret]/[secret]/x")
    assert lines[2]["status"] == 400
    assert "tsm_" not in text
    assert "tsh_" not in text
    assert "secret=1" not in text
    assert log.dropped == 0


async def test_a_slow_disk_costs_lines_and_they_are_counted(tmp_path: Path):
    clock = ManualClock()
    log = AccessLog(tmp_path / "access.log", clock, waiting_max=3)
    async with gateway(access_log=log, clock=clock) as world:
        client = await world.client()
        for _ in range(5):
            assert (await client.ask("/healthz"))[0] == 200
        assert log.dropped == 2
        assert b"transom_gateway_access_log_dropped_total 2.0" in exposition()


async def test_a_disk_that_fails_costs_lines_only(tmp_path: Path):
    clock = ManualClock()
    log = AccessLog(tmp_path / "nowhere" / "access.log", clock)
    async with gateway(access_log=log, clock=clock) as world:
        client = await world.client()
        assert (await client.ask("/healthz"))[0] == 200
        world.pass_time(1)
        await world.until(lambda: log.dropped == 1)
        assert (await client.ask("/healthz"))[0] == 200


async def test_nothing_is_left_behind():
    before = open_files()
    async with gateway() as world:
        await world.app(echo())
        for _ in range(5):
            client = await world.client()
            assert (await client.ask("/apps/shop/"))[0] == 200
    await asyncio.sleep(0.01)
    assert len(asyncio.all_tasks()) == 1
    assert open_files() <= before


def open_files() -> int:
    return sum(1 for each in Path("/proc/self/fd").iterdir() if "socket" in _link(each))


def _link(path: Path) -> str:
    with contextlib.suppress(OSError):
        return str(path.readlink())
    return ""


async def test_tls_end_to_end(tmp_path: Path):
    cert = await certificate(tmp_path)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(cert)
    trust = ssl.create_default_context(cafile=str(cert))
    async with gateway(tls=server) as world:
        seen: list[tuple[str, dict[str, list[str]], bytes]] = []
        await world.app(echo(seen))
        client = await world.client(ssl=trust, server_hostname="localhost")
        status, _, body = await client.ask("/apps/shop/", method="POST", body=b"x" * 200_000)
        assert (status, len(body)) == (200, 200_000 + len("POST / HTTP/1.1|"))
        assert seen[0][1]["x-forwarded-proto"] == ["https"]
        await client.send(b"nonsense\r\n\r\n")
        assert (await client.answer())[0] == 400
        world.pass_time(3)  # TLS cannot be closed on one side: the client has this long to see its answer
        assert await client.closed() == b""


async def certificate(folder: Path) -> Path:
    """A certificate for localhost, signed by itself, with its key in the same file."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    making = await asyncio.create_subprocess_exec(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=localhost"),
        *("-addext", "subjectAltName=DNS:localhost"),
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await making.wait() == 0
    both = folder / "both.pem"
    both.write_text(cert.read_text() + key.read_text())
    return both
