"""A region's log for other regions, over HTTP: the only way in, so that nobody far away holds its locks.

Every request names a key; a key has rights for its topics and nothing else. Nothing is held while talking
to a client: a request is read whole, then the log is asked, then the answer is written; and a reader that
waits is let go when its client leaves. Next on the data's way: `remote`.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from transom.logs import wire
from transom.logs.protocol import Entry, Log
from transom.model.errors import (
    UNREADABLE,
    ForbiddenError,
    InvalidError,
    Problem,
    TransomError,
    UnauthorizedError,
    UnreachableError,
)
from transom.runtime.http import AsgiApp, Receive, Scope, Send
from transom.runtime.secret_files import matches
from transom.runtime.telemetry import get_logger

T = TypeVar("T")
log = get_logger(__name__)

_ENTRIES_MAX = 10_000
_CLIENT_SECONDS = 60.0
"""How long a client may take to send its request, or to take an answer."""


@dataclass(frozen=True)
class Rights:
    """Which topics a key may read and which it may append to; "*" stands for all.

    `links`: it may begin links, which takes fences, and make, widen and truncate the topics it appends to.
    Who has that can end another's link, so only links have it.
    """

    read: frozenset[str] = frozenset()
    append: frozenset[str] = frozenset()
    links: bool = False


class _TooLargeError(Exception):
    """The body is over the limit."""


class _GoneError(Exception):
    """The client left, or takes too long: there is nobody to answer."""


def log_server(served: Log, keys: Mapping[str, str], rights: Mapping[str, Rights]) -> AsgiApp:
    """An ASGI app in front of `served`.

    `keys` maps the name of each key to its SHA-256 (`runtime.secret_files.hash_secret`), `rights` the name
    to what the key may do; a key without rights may do nothing.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        with contextlib.suppress(_GoneError):
            status, body = await _answer(served, keys, rights, scope, receive)
            await _send(send, status, body)

    return app


async def _answer(
    served: Log, keys: Mapping[str, str], rights: Mapping[str, Rights], scope: Scope, receive: Receive
) -> tuple[int, bytes]:
    try:
        headers = dict(scope["headers"])
        name = _authenticate(headers, keys)
        kind = wire.OPERATIONS.get(scope["path"].removeprefix(wire.PATH))
        if kind is None or scope["method"] != "POST":
            raise InvalidError(f"request {scope['method']} {scope['path']}", [_no_operation()])
        body = await _body(receive)
        request = msgspec.msgpack.decode(body, type=kind)
        desk = _Desk(served, name, rights.get(name, Rights()))
        return 200, wire.encode(await desk.answer(request, receive))
    except TransomError as error:
        return wire.encode_error(error)
    except UNREADABLE as error:
        return wire.encode_error(InvalidError("request", [Problem("", str(error))]))
    except _TooLargeError:
        limit = Problem("", f"is over {wire.BODY_BYTES_MAX} bytes; send it in parts")
        return 413, wire.encode_error(InvalidError("request", [limit]))[1]
    except OSError as error:
        return wire.encode_error(UnreachableError(f"the log failed: {error}"))


def _no_operation() -> Problem:
    return Problem("", f"expected POST {wire.PATH} and one of {', '.join(wire.OPERATIONS)}")


def _authenticate(headers: Mapping[bytes, bytes], keys: Mapping[str, str]) -> str:
    scheme, _, secret = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if scheme.lower() == "bearer" and secret:
        # All are compared, so that the time taken does not tell which came near.
        found = [name for name, hashed in keys.items() if matches(secret, hashed)]
        if found:
            return found[0]
    raise UnauthorizedError("the log's server does not know this key; see the key file of this link")


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(_CLIENT_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _GoneError
                body += message.get("body", b"")
                if len(body) > wire.BODY_BYTES_MAX:
                    raise _TooLargeError
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise _GoneError from None


async def _send(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", wire.CONTENT_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    try:
        async with asyncio.timeout(_CLIENT_SECONDS):
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
    except TimeoutError:
        raise _GoneError from None


@dataclass(frozen=True)
class _Desk:
    """Answers the requests of one key, within its rights."""

    served: Log
    key: str
    rights: Rights

    async def answer(self, request: wire.Request, receive: Receive) -> Any:  # noqa: C901, PLR0911  # a case each
        match request:
            case wire.Create():
                self._check_links("make topics")
                self._check("append", self.rights.append, [topic.name for topic in request.topics])
                return await self.served.create(request.topics)
            case wire.Topics():
                infos = await self.served.topics()
                return {name: info for name, info in infos.items() if self._sees(name)}
            case wire.Append():
                self._check("append", self.rights.append, {message.topic for message in request.batch})
                return await self.served.append(request.batch, fence=request.fence)
            case wire.Read():
                return await self._read(request, receive)
            case wire.GetBounds():
                self._check("read or append", self.rights.read | self.rights.append, [request.topic])
                return await self.served.bounds(request.topic)
            case wire.Truncate():
                self._check_links("truncate topics")
                self._check("append", self.rights.append, [request.topic])
                return await self.served.truncate(request.topic, request.partition, request.before)
            case wire.TakeFence():
                self._check_links("take fences")
                return await self.served.take_fence(request.name)
            case wire.Join():
                self._check("read", self.rights.read, request.topics)
                return await self.served.join(
                    request.group, request.member, request.topics, session_seconds=request.session_seconds
                )
            case wire.Commit():
                self._check("read", self.rights.read, {at.topic for at, _ in request.offsets})
                return await self.served.commit(request.membership, dict(request.offsets))
            case wire.Committed():
                offsets = await self.served.committed(request.group)
                return [(at, offset) for at, offset in offsets.items() if _has(self.rights.read, at.topic)]

    async def _read(self, request: wire.Read, receive: Receive) -> list[Entry]:
        self._check("read", self.rights.read, {at.topic for at, _ in request.positions})
        wait_seconds = min(max(0.0, request.wait_seconds), wire.WAIT_SECONDS_MAX)
        reading = self.served.read(
            dict(request.positions), most=min(request.most, _ENTRIES_MAX), wait_seconds=wait_seconds
        )
        return list(await _unless_gone(reading, receive) if wait_seconds > 0 else await reading)

    def _sees(self, topic: str) -> bool:
        return _has(self.rights.read, topic) or _has(self.rights.append, topic)

    def _check(self, right: str, held: frozenset[str], topics: Iterable[str]) -> None:
        for topic in topics:
            if not _has(held, topic):
                raise ForbiddenError(f"key {self.key!r} has no right to {right} topic {topic!r} of this log")

    def _check_links(self, what: str) -> None:
        if not self.rights.links:
            raise ForbiddenError(f"key {self.key!r} is no link's, so it may not {what}")


def _has(held: frozenset[str], topic: str) -> bool:
    return topic in held or "*" in held


async def _unless_gone(call: Coroutine[Any, Any, T], receive: Receive) -> T:
    """What `call` returns. It is cancelled, and awaited, when the client leaves first: `_GoneError`."""
    answer = asyncio.ensure_future(call)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise _GoneError
        return answer.result()
    finally:
        answer.cancel()
        gone.cancel()
        await asyncio.gather(answer, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
