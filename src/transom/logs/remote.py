"""Another region's log, through its server: the same promises over the network.

A call that was cut off may or may not have happened (`UnreachableError`); appending under a fence, or
checking the end first, tells. Next on the data's way: `links`.
"""

import io
import ssl
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from transom.logs import rules, wire
from transom.logs.protocol import (
    Bounds,
    Entry,
    Fence,
    Membership,
    Message,
    Topic,
    TopicInfo,
    TopicPartition,
)
from transom.model.errors import UNREADABLE, InvalidError, Problem, UnauthorizedError, UnreachableError
from transom.runtime.connecting import cause_of
from transom.runtime.http import is_loopback

T = TypeVar("T")

_ANSWER_BYTES_MAX = 32 * rules.MEBIBYTE
_CHUNK_BYTES = 1 << 16
_CONNECT_SECONDS = 5.0
_KEEP_ALIVE_SECONDS = 30.0  # shorter than the server's
_CONNECTIONS_MAX = 100


class RemoteLog:
    """`Log` through the server at `url` (`https://host:port`; plain http on this machine only).

    `key` is a link's key. `tls` says whom to trust, by default what the system trusts. Each answer is due
    within `timeout_seconds`, and what a read waits. Raises `InvalidError` for any other address.
    """

    def __init__(
        self, url: str, key: str, *, tls: ssl.SSLContext | None = None, timeout_seconds: float = 10.0
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise InvalidError(f"log address {url!r}", [Problem("", "expected https://HOST:PORT")])
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            what = "would send the key unencrypted to another machine; use https"
            raise InvalidError(f"log address {url!r}", [Problem("", what)])
        self._url = url.rstrip("/")
        self._key = key
        self._tls = tls
        self._timeout_seconds = timeout_seconds
        self._session: aiohttp.ClientSession | None = None

    @property
    def trouble(self) -> str:
        """See `Log.trouble`: every call says so itself."""
        return ""

    async def create(self, topics: Sequence[Topic]) -> None:
        """See `Log.create`."""
        await self._call(wire.Create(list(topics)), None)

    async def topics(self, names: Collection[str] | None = None) -> Mapping[str, TopicInfo]:
        """See `Log.topics`; those that the key has a right to."""
        return rules.named(await self._call(wire.Topics(), dict[str, TopicInfo]), names)

    async def append(self, batch: Sequence[Message], *, fence: Fence | None = None) -> Sequence[int]:
        """See `Log.append`."""
        rules.check_batch(batch)
        return await self._call(wire.Append(list(batch), fence), list[int])

    async def read(
        self, positions: Mapping[TopicPartition, int], *, most: int = 1000, wait_seconds: float = 0.0
    ) -> Sequence[Entry]:
        """See `Log.read`."""
        remaining = max(wait_seconds, 0.0)
        while True:
            wait = min(remaining, wire.WAIT_SECONDS_MAX)
            request = wire.Read(list(positions.items()), most, wait)
            entries = await self._call(request, list[Entry], wait)
            remaining -= wait
            if entries or remaining <= 0:
                return entries

    async def bounds(self, topic: str) -> Mapping[int, Bounds]:
        """See `Log.bounds`."""
        return await self._call(wire.GetBounds(topic), dict[int, Bounds])

    async def truncate(self, topic: str, partition: int, before: int) -> None:
        """See `Log.truncate`."""
        await self._call(wire.Truncate(topic, partition, before), None)

    async def take_fence(self, name: str) -> Fence:
        """See `Log.take_fence`."""
        return await self._call(wire.TakeFence(name), Fence)

    async def join(
        self, group: str, member: str, topics: Sequence[str], *, session_seconds: float = 10.0
    ) -> Membership:
        """See `Log.join`."""
        return await self._call(wire.Join(group, member, list(topics), session_seconds), Membership)

    async def commit(self, membership: Membership, offsets: Mapping[TopicPartition, int]) -> None:
        """See `Log.commit`."""
        await self._call(wire.Commit(membership, list(offsets.items())), None)

    async def committed(self, group: str) -> Mapping[TopicPartition, int]:
        """See `Log.committed`."""
        return dict(await self._call(wire.Committed(group), wire.Offsets))

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _call(self, request: wire.Request, answer: type[T] | None, wait_seconds: float = 0.0) -> T:
        """Post `request` and decode what comes back as `answer`, or raise the error it holds."""
        timeout = aiohttp.ClientTimeout(
            total=self._timeout_seconds + wait_seconds,
            sock_connect=min(_CONNECT_SECONDS, self._timeout_seconds),
        )
        url = f"{self._url}{wire.PATH}{wire.NAMES[type(request)]}"
        try:
            async with self._connected().post(
                url, data=io.BytesIO(wire.encode(request)), timeout=timeout, allow_redirects=False
            ) as response:
                status, body = response.status, await _body(response)
        except TimeoutError:
            raise UnreachableError(f"log {self._url} did not answer within {timeout.total:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise UnreachableError(f"cannot reach the log at {self._url}: {cause_of(error)}") from None
        if status == 200:  # noqa: PLR2004
            try:
                return msgspec.msgpack.decode(body, type=answer)
            except UNREADABLE as error:
                raise UnreachableError(f"log {self._url} answered what is no answer: {error}") from None
        if (told := wire.decode_error(body)) is not None:
            raise told
        if status == 401:  # noqa: PLR2004
            raise UnauthorizedError(f"log {self._url} refused the key")
        raise UnreachableError(f"log {self._url} answered with HTTP status {status}")

    def _connected(self) -> aiohttp.ClientSession:
        """One session for all calls; made by the first, because it needs the running loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    ssl=self._tls or True, limit=_CONNECTIONS_MAX, keepalive_timeout=_KEEP_ALIVE_SECONDS
                ),
                headers={"authorization": f"Bearer {self._key}", "content-type": wire.CONTENT_TYPE},
            )
        return self._session


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        body += chunk
        if len(body) > _ANSWER_BYTES_MAX:
            raise aiohttp.ClientPayloadError(f"the answer is over {_ANSWER_BYTES_MAX} bytes")
    return bytes(body)
