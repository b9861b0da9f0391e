"""What was allowed when it began ends when it would be allowed no more: WebSockets, long answers, uploads."""

import asyncio
from hashlib import sha256

import pytest

from context_parts import a_key, a_world, key_record, route_record
from gateway_parts import KEY, Client, World, gateway, read_request
from transom.region.gateway.decision import Decision, Refusal
from transom.region.gateway.fakes import FakeDecider
from transom.region.gateway.frames import Frames

GET = b"GET /apps/shop/ HTTP/1.1\r\nHost: a\r\nX-Api-Key: tsm_acme\r\n"
UPGRADE = GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
HELLO = b"\x81\x05hello"
BY_POLICY = b"\x88\x02\x03\xf0"

REVOKED = Refusal(401, None, "invalid_token", "this key was revoked")
ENDING = {
    "revoked": REVOKED,
    "suspended": Refusal(403, None, "tenant_suspended", "is suspended"),
    "the app is gone": Refusal(404, None, "no_such_app", "no such app"),
    "too old for its tenant": Refusal(503, None, "stale", "too old"),
}
ALLOWED_ON = {"cannot be told": Refusal(503, None, "cannot_tell", "try again"), "allowed": None}


class Changing(FakeDecider):
    """Says what it is told to say of every key, and has to look it up if it is `later`."""

    says: Decision | None = None

    def _decision(self, key: bytes, app: str) -> Decision:
        return self.says or super()._decision(key, app)


def change(world: World, says: Decision | None) -> None:
    world.decider.__class__ = Changing
    world.decider.says = says  # pyright: ignore[reportAttributeAccessIssue]


def tell(world: World, key: bytes = KEY) -> None:
    for told in world.decider.listeners:
        told(sha256(key).digest())


async def started(world: World, sends: bytes, request: bytes = GET + b"\r\n") -> Client:
    """A client whose request lasts, and is known to; the app has answered `sends` and goes on."""

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(sends)
        await writer.drain()
        await reader.read()

    await world.app(app)
    client = await world.client()
    await client.send(request)
    if sends:
        await client.head()
    await world.until(lambda: world.decider.asked)
    world.pass_time(1.0)
    await world.until(lambda: world.server._lasting._known)
    await world.until(lambda: len(world.decider.asked) >= 2)
    return client


async def rounds(world: World, count: int = 3) -> None:
    """As many looks at what lasts, but not so long that all are asked about again."""
    for _ in range(count):
        sleeping = world.clock.sleeping
        world.pass_time(0.5)
        await world.until(lambda: world.clock.sleeping >= sleeping)  # noqa: B023


@pytest.mark.parametrize("later", [False, True], ids=["at hand", "looked up"])
async def test_a_websocket_is_closed_when_its_key_is_revoked(*, later: bool) -> None:
    async with gateway() as world:
        client = await started(world, SWITCH + HELLO, UPGRADE)
        assert await client.reader.readexactly(7) == HELLO
        change(world, REVOKED)
        world.decider.later = later
        tell(world)
        await rounds(world, 1)
        assert await client.closed() == BY_POLICY
        await world.until(lambda: not world.server.connections)


async def test_within_a_frame_nothing_is_put_in() -> None:
    async with gateway() as world:
        client = await started(world, SWITCH + HELLO + HELLO[:4], UPGRADE)
        change(world, REVOKED)
        tell(world)
        await rounds(world, 1)
        assert await client.closed() == HELLO + HELLO[:4]


async def test_an_answer_breaks_off_visibly_when_its_key_is_revoked() -> None:
    async with gateway() as world:
        client = await started(world, CHUNKED)
        change(world, REVOKED)
        tell(world)
        await rounds(world, 1)
        assert await client.closed() == b"5\r\nhello\r\n", "no last chunk"


async def test_a_request_without_an_answer_yet_is_refused() -> None:
    async with gateway() as world:
        client = await started(world, b"", GET.replace(b"GET", b"POST") + b"Content-Length: 9\r\n\r\nbody")
        change(world, REVOKED)
        tell(world)
        await rounds(world, 1)
        status, headers, body = await client.answer()
        assert (status, headers["connection"]) == (401, "close")
        assert b"revoked" in body


@pytest.mark.parametrize("says", ENDING.values(), ids=ENDING)
async def test_what_nobody_tells_of_is_noticed_after_some_seconds(says: Decision) -> None:
    async with gateway() as world:
        client = await started(world, SWITCH, UPGRADE)
        change(world, says)
        tell(world, b"another")
        await rounds(world, 3)
        assert world.server.connections == 1
        await rounds(world, 10)
        assert await client.closed() == BY_POLICY


@pytest.mark.parametrize("says", ALLOWED_ON.values(), ids=ALLOWED_ON)
async def test_what_is_allowed_or_cannot_be_told_goes_on(says: Decision | None) -> None:
    async with gateway() as world:
        client = await started(world, SWITCH, UPGRADE)
        change(world, says)
        tell(world)
        asked = len(world.decider.asked)
        await rounds(world, 12)
        assert len(world.decider.asked) >= asked + 2
        assert world.server.connections == 1
        await client.send(b"x")


async def test_a_change_heard_of_before_a_request_was_seen_to_last_counts() -> None:
    async with gateway() as world:

        async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(SWITCH)
            await reader.read()

        await world.app(app)
        client = await world.client()
        await client.send(UPGRADE)
        await client.head()
        change(world, REVOKED)
        tell(world)
        await rounds(world, 3)
        assert await client.closed() == BY_POLICY


async def test_who_listens_hears_of_a_key_when_it_is_refused_already() -> None:
    key, heard = a_key(), []
    async with a_world(key_record(key, 1), route_record("acme", "shop", 1)) as world:
        assert await world.status(key, "shop") == 200

        def told(digest: bytes) -> None:
            heard.append((digest, world.decider.decide_now(key, "shop", "GET")))

        world.decider.listen(told)
        await world.put(key_record(key, 5, revoked=True))
    ((digest, decision),) = heard
    assert digest == sha256(key).digest()
    assert decision is not None
    assert decision.status == 401


FRAMES = (HELLO, b"\x82\x7e\x01\x00" + b"x" * 256, b"\x82\x7f" + (70_000).to_bytes(8) + b"x" * 70_000,
          b"\x89\x00", b"\x81\x85mask12345")  # fmt: skip


@pytest.mark.parametrize("piece", [1, 3, 1000, 1_000_000])
def test_frames_are_followed_however_they_are_cut(piece: int) -> None:
    stream = b"".join(FRAMES)
    ends = {len(b"".join(FRAMES[:number])) for number in range(len(FRAMES) + 1)}
    frames, at = Frames(), 0
    while at < len(stream):
        frames.follow(stream[at : at + piece])
        at = min(at + piece, len(stream))
        assert frames.between == (at in ends)
