"""A connection for whole batches: answers are read into the memory they stay in, requests sent from theirs.

aiokafka connects and says who we are (TLS, SASL); from then on the bytes are ours, because its own way copies
each of them several times. A broker answers a connection's requests in their order.
Source: the Kafka protocol guide, request headers 1 and 2. Next on the data's way: `kafka_cluster`.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka.conn import create_conn  # pyright: ignore[reportUnknownVariableType]
from aiokafka.errors import CorrelationIdError, IncompatibleBrokerVersion, KafkaConnectionError

from transom.logs.kafka_reaching import CLIENT_ID, REQUEST_SECONDS

Buffer = bytes | bytearray | memoryview

_SCRATCH_BYTES = 64 << 10
_ANSWER_BYTES_MAX = 256 << 20
"""No broker sends as much; who does is none."""
_SIZE = struct.Struct(">i")
_NAME = CLIENT_ID.encode()
_HEAD = struct.Struct(f">ihhih{len(_NAME)}s")
_CORRELATIONS = 1 << 31
_NO_TAGS = b"\0"


class Call(NamedTuple):
    """A kind of request: its number, its version, and whether that is in the flexible encoding (KIP-482)."""

    key: int
    version: int
    is_flexible: bool


class Stream(asyncio.BufferedProtocol):
    """A connection to one broker, once it is `opened`."""

    def __init__(self, connection: Any) -> None:
        self.closed = False
        self._connection = connection
        self._transport: Any = connection._writer.transport  # noqa: SLF001
        self._versions: Mapping[int, tuple[int, int]] = connection._versions  # noqa: SLF001
        self._waiting: deque[tuple[int, asyncio.Future[memoryview]]] = deque()
        self._correlation = 0
        self._scratch = bytearray(_SCRATCH_BYTES)
        self._filled = 0
        self._answer: memoryview | None = None
        """An answer that did not fit `_scratch`, of which `_filled` bytes are here."""

    @classmethod
    async def opened(cls, host: str, port: int, access: Mapping[str, Any]) -> "Stream":
        """A connection to the broker at `host` and `port`. Raises what aiokafka raises, and `OSError`."""
        connection: Any = await create_conn(host, port, client_id=CLIENT_ID, max_idle_ms=None, **access)
        connection._read_task.cancel()  # noqa: SLF001  # which would read what is for us
        stream = cls(connection)
        stream._transport.pause_reading()  # it asks who reads when it begins to
        stream._transport.set_protocol(stream)
        stream._transport.resume_reading()
        return stream

    def close(self) -> None:
        """Close it; who waits for an answer is told."""
        self.closed = True
        self._connection.close()
        while self._waiting:
            _, answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(KafkaConnectionError("the connection was closed"))

    async def ask(self, call: Call, body: Sequence[Buffer]) -> memoryview:
        """What the broker answers, from behind the correlation id. `body` is not to change before that.

        Raises `KafkaConnectionError`, `TimeoutError`, and `IncompatibleBrokerVersion`; but for the last, the
        request may have been carried out.
        """
        if self.closed:
            raise KafkaConnectionError("the connection was closed")
        least, most = self._versions.get(call.key, (0, -1))
        if not least <= call.version <= most:
            raise IncompatibleBrokerVersion(
                f"the broker takes versions {least} to {most} of request {call.key}, not {call.version}"
            )
        self._correlation = (self._correlation + 1) % _CORRELATIONS
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[memoryview] = loop.create_future()
        self._waiting.append((self._correlation, answer))
        self._transport.writelines([self._head(call, sum(map(len, body))), *body])
        late = loop.call_later(REQUEST_SECONDS, self._late, answer)
        try:
            return await answer
        finally:
            late.cancel()

    def _late(self, answer: asyncio.Future[memoryview]) -> None:
        if not answer.done():
            answer.set_exception(TimeoutError())
        self.close()  # what is behind it is late as well

    def _head(self, call: Call, size: int) -> bytes:
        tags = _NO_TAGS if call.is_flexible else b""
        size += _HEAD.size - _SIZE.size + len(tags)
        return _HEAD.pack(size, call.key, call.version, self._correlation, len(_NAME), _NAME) + tags

    # --- what the event loop calls ---

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where what comes next is to be put."""
        del sizehint
        held = memoryview(self._scratch) if self._answer is None else self._answer
        return held[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes have been put there."""
        self._filled += nbytes
        if self._answer is None:
            self._look_through()
        elif self._filled == len(self._answer):
            answer, self._answer, self._filled = self._answer, None, 0
            self._deliver(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """It ended."""
        del exc
        self.close()

    def _look_through(self) -> None:
        """Deliver what is whole in the scratch; have the rest go on where it has room."""
        at = 0
        while not self.closed and self._filled - at >= _SIZE.size:
            (size,) = _SIZE.unpack_from(self._scratch, at)
            if not _SIZE.size <= size <= _ANSWER_BYTES_MAX:
                self.close()
                return
            begin, end = at + _SIZE.size, at + _SIZE.size + size
            if end > self._filled:
                if end - at > _SCRATCH_BYTES // 2:
                    self._answer = memoryview(bytearray(size))
                    self._filled -= begin
                    self._answer[: self._filled] = self._scratch[begin : begin + self._filled]
                    return
                break
            self._deliver(memoryview(self._scratch[begin:end]))
            at = end
        self._filled -= at
        self._scratch[: self._filled] = self._scratch[at : at + self._filled]

    def _deliver(self, answer: memoryview) -> None:
        correlation, asked = self._waiting.popleft() if self._waiting else (-1, None)
        (got,) = _SIZE.unpack_from(answer)
        if asked is None or got != correlation:
            if asked is not None and not asked.done():
                asked.set_exception(CorrelationIdError(f"answer {got} came, {correlation} was due"))
            self.close()
        elif not asked.done():  # who asked may have been cancelled
            asked.set_result(answer[_SIZE.size :])
