"""The way to a Kafka cluster: connections, who leads what, and trying again while brokers come and go.

aiokafka's client keeps connections, credentials and the list of brokers; what is asked, of whom, and what an
answer means is decided here and in the modules beside; `kafka_reaching` says why nobody answers. Next on the
data's way: `kafka_topics`, `kafka_fetch`, `kafka_produce`, `kafka_groups`.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any, TypeVar

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError
from aiokafka.protocol.coordination import FindCoordinatorRequest
from prometheus_client import Counter, Gauge, Histogram

from transom.logs import kafka_api as api
from transom.logs.kafka_address import KafkaAddress
from transom.logs.kafka_reaching import CLIENT_ID, FAILURES, REQUEST_SECONDS, explain, said, why_away
from transom.logs.kafka_stream import Buffer, Call, Stream
from transom.logs.protocol import TopicPartition
from transom.model.errors import (
    ForbiddenError,
    InvalidError,
    Problem,
    UnknownTopicError,
    UnreachableError,
)
from transom.runtime.backoff import Backoff
from transom.runtime.clock import Clock
from transom.runtime.randomness import Randomness
from transom.runtime.tasks import OwnTasks
from transom.runtime.telemetry import metrics

T = TypeVar("T")

MAIN = 0
"""The lane of requests that are answered at once. Brokers answer the requests of a connection one after
another, so whoever lets a broker wait has a lane, which is a connection, of its own."""

_PATIENCE_SECONDS = 20.0
_NOTHING_WRONG = api.code_name(api.CONCURRENT_TRANSACTIONS)
"""What a coordinator answers while it still ends the transaction before: no trouble, only not yet."""
_LAYOUT_SECONDS = 30.0
_LEADERLESS_SECONDS = 0.2
_FIRST_RETRY_SECONDS = 0.004
_MOST_RETRY_SECONDS = 0.5

# What it logs, the errors raised here say better; at an outage it would say it many times a second.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


_failed_tries = Counter(
    "transom_kafka_failed_tries_total",
    "Requests to Kafka that failed and are tried again",
    ["broker", "error"],
    registry=metrics,
)
_waiting_calls = Gauge(
    "transom_kafka_waiting_calls",
    "Calls that failed at least once and are being tried again",
    ["kafka"],
    registry=metrics,
)
_request_seconds = Histogram(
    "transom_kafka_request_seconds",
    "How long brokers take for what they answer at once",
    ["broker"],
    buckets=(0.01, 0.1, 1, 10),
    registry=metrics,
)


class TransientError(Exception):
    """It did not work now; `KafkaCluster.retrying` tries again.

    `error` is why in a few words of which there are not many, `broker` whose error it is: both are counted.
    """

    def __init__(self, told: str, *, broker: str = "", error: str = "") -> None:
        super().__init__(told)
        self.broker, self.error = broker, error or told


class KafkaCluster:
    """One cluster. Connects with the first request, so that it can be made while no broker runs."""

    def __init__(
        self,
        address: KafkaAddress,
        clock: Clock,
        randomness: Randomness,
        *,
        password: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.address = address
        self.clock = clock
        self.brokers = 0
        self.id = ""
        """Which cluster it is, once it has said what topics it has."""
        self.tasks = OwnTasks()
        self._randomness = randomness
        self._tls = (tls or ssl.create_default_context()) if address.tls else None
        self._password = password
        self._client: Any = None
        self._connecting = asyncio.Lock()
        self._opening = asyncio.Lock()
        self._streams: dict[tuple[int, int], Stream] = {}
        self._layouts: dict[str, api.TopicLayout] = {}
        self._layouts_until = 0.0
        self._coordinators: dict[tuple[int, str], int] = {}
        self._troubles: dict[object, str] = {}
        """Why each call that is being tried again was not answered; the newest last."""

    @property
    def trouble(self) -> str:
        """See `Log.trouble`."""
        newest = next(reversed(self._troubles.values()), "")
        return newest and f"{self.address}: {newest}"

    async def close(self) -> None:
        """End what is under way, and close every connection."""
        await self.tasks.close()
        await self._disconnect()

    async def _disconnect(self) -> None:
        while self._streams:
            self._streams.popitem()[1].close()
        client, self._client = self._client, None
        if client is None:
            return
        try:
            await client.close()
        except FAILURES:
            client._sync_task = None  # noqa: SLF001  # which had ended by this error; its connections are still to be closed
            await client.close()

    # --- asking ---

    async def ask(self, node: int | None, request: Any, lane: int = MAIN) -> Any:
        """The answer of broker `node` (None: any) to `request`. Raises `TransientError`."""
        client = await self._connected()
        if node is None:
            node = client.get_random_node()
        if node is None or node < 0:
            self._forget()
            raise TransientError("no broker leads it now")
        broker = _broker(client, node)
        began = self.clock.monotonic()
        try:
            answer = await client.send(node, request, group=lane)
        except FAILURES as error:
            raise await self._unanswered(broker, error) from error
        if lane == MAIN:
            _request_seconds.labels(_named(broker)).observe(self.clock.monotonic() - began)
        return answer

    async def stream(self, node: int, call: Call, body: Sequence[Buffer], lane: int) -> memoryview:
        """The answer of broker `node` to a large request, or one with a large answer; see `Stream.ask`. Lanes
        of streams are others than those of `ask`. Raises `TransientError`.
        """
        client = await self._connected()
        broker = _broker(client, node)
        try:
            held = self._streams.get((node, lane))
            if held is None or held.closed:
                held = await self._open_stream(client, node, lane)
            return await held.ask(call, body)
        except FAILURES as error:
            raise await self._unanswered(broker, error) from error

    async def _open_stream(self, client: Any, node: int, lane: int) -> Stream:
        async with self._opening:
            held = self._streams.get((node, lane))
            if held is not None and not held.closed:
                return held
            broker = _broker(client, node)
            if broker is None:
                raise KafkaConnectionError(f"broker {node} is not known")
            try:
                held = self._streams[node, lane] = await Stream.opened(*broker, self._access())
            except FAILURES as error:
                client.force_metadata_update()  # it may be elsewhere by now
                raise NodeNotReadyError(f"broker {node}") from error
        return held

    async def _unanswered(self, broker: tuple[str, int] | None, error: Exception) -> TransientError:
        """What is raised when a request to a broker failed."""
        self._forget()
        why = said(error)
        if isinstance(error, NodeNotReadyError) and broker is not None:
            why = await why_away(*broker) or "lets nobody in"
        named = _named(broker)
        return TransientError(f"{named}: {why}" if named else why, broker=named, error=why)

    def _forget(self) -> None:
        """Ask anew who has what: a broker that does not answer may have lost what it led."""
        self._layouts.clear()
        self._coordinators.clear()

    async def retrying(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """What `attempt` returns, tried again while it raises `TransientError`, for 20 s at most.

        Raises `UnreachableError` then: it may have happened.
        """
        try:
            return await attempt()
        except TransientError as error:
            failed = error
        until = self.clock.monotonic() + _PATIENCE_SECONDS
        backoff = Backoff(self._randomness, _FIRST_RETRY_SECONDS, _MOST_RETRY_SECONDS)
        call = object()
        waiting = _waiting_calls.labels(",".join(self.address.bootstrap))
        waiting.inc()
        try:
            while True:
                self._note(call, failed)
                if self.clock.monotonic() >= until:
                    await self._disconnect()  # what we know of its brokers may be outdated: begin again
                    raise UnreachableError(f"{self.address} cannot {what} now: {failed}")
                await self.clock.sleep(backoff.next_seconds())
                self._layouts.clear()
                try:
                    return await attempt()
                except TransientError as error:
                    failed = error
        finally:
            waiting.dec()
            self._troubles.pop(call, None)

    def _note(self, call: object, failed: TransientError) -> None:
        self._troubles.pop(call, None)  # the newest is last
        if failed.error != _NOTHING_WRONG:
            self._troubles[call] = str(failed)
        _failed_tries.labels(failed.broker or ",".join(self.address.bootstrap), failed.error).inc()

    def check(self, code: int, where: str, right: str = "the right") -> None:
        """Raises what Kafka's error `code` means, `TransientError` for what is worth trying again; `right` is
        what one has to be granted there.
        """
        if code == api.NONE:
            return
        if api.is_transient(code):
            if code in (14, 15, 16):
                self._coordinators.clear()
            raise TransientError(f"{where}: {api.code_name(code)}", error=api.code_name(code))
        if code == api.UNKNOWN:
            raise UnreachableError(
                f"{self.address} failed at {where}, its log says why; it may have happened"
            )
        if api.is_forbidden(code):
            raise ForbiddenError(
                f"{self.address} does not let user {self.address.user!r} use {where} "
                f"({api.code_name(code)}); grant it {right} "
                "(docs/how-to/engines.md lists all rights, mirror.md a mirror's)"
            )
        raise InvalidError(f"{where} at {self.address}", [Problem("", f"was refused: {api.code_name(code)}")])

    def check_topic(self, code: int, name: str, message: str | None, right: str) -> None:
        """The same for what was asked of a topic; of a mistake the broker says in its `message` which one."""
        if code and not api.is_transient(code) and not api.is_forbidden(code):
            raise InvalidError(f"topic {name!r}", [Problem("", message or api.code_name(code))])
        self.check(code, f"topic {name!r}", right)

    # --- who has what ---

    def forget_layouts(self) -> None:
        """Ask anew who leads what: a broker said that it does not."""
        self._layouts.clear()

    async def layout(self, name: str) -> api.TopicLayout:
        """Where a topic's partitions are. Raises `UnknownTopicError`."""
        if self.clock.monotonic() >= self._layouts_until:
            self._layouts.clear()  # partitions may have been added, which nobody says
        held = self._layouts.get(name)
        if held is None:
            held = (await self.layouts([name])).get(name)
        if held is None:
            raise UnknownTopicError(name)
        return held

    async def layouts(self, names: Collection[str] | None) -> dict[str, api.TopicLayout]:
        """The topics of these names that exist (None: all), asked anew."""

        async def attempt() -> dict[str, api.TopicLayout]:
            answer = await self.ask(None, api.MetadataRequest(names))
            self.brokers, found, wrong = api.layouts(answer)
            self.id = answer.cluster_id or ""
            for name, code in wrong.items():
                if code != api.UNKNOWN_TOPIC:
                    self.check(code, f"topic {name!r}", "Describe, which Read and Write include")
            return found

        found = await self.retrying("say what topics it has", attempt)
        if not self._layouts:
            self._layouts_until = self.clock.monotonic() + _LAYOUT_SECONDS
        for name in names or ():
            self._layouts.pop(name, None)
        self._layouts.update(found)
        return found

    def known_leader(self, topic: str, partition: int) -> int:
        """The broker that led a partition when that was last asked; -1 when it is to be asked (anew)."""
        held = self._layouts.get(topic)
        if held is None or self.clock.monotonic() >= self._layouts_until:
            return -1
        return held.leaders.get(partition, -1)

    async def leader(self, topic: str, partition: int) -> int:
        """The broker that leads a partition, -1 when there is none now. Raises `UnknownTopicError`."""
        leader = (await self.layout(topic)).leaders.get(partition, -1)
        if leader < 0:  # which does not last
            soon = self.clock.monotonic() + _LEADERLESS_SECONDS
            self._layouts_until = min(self._layouts_until, soon)
        return leader

    async def by_leader(self, partitions: Iterable[TopicPartition]) -> dict[int, list[TopicPartition]]:
        """Partitions by the broker that leads them. Raises `UnknownTopicError`, and `TransientError` when one
        has no leader now.
        """
        found: dict[int, list[TopicPartition]] = {}
        for at in partitions:
            leader = await self.leader(*at)
            if leader < 0:
                raise TransientError(f"{at.topic}/{at.partition} has no leader", error="no leader")
            found.setdefault(leader, []).append(at)
        return found

    async def group_coordinator(self, group: str) -> int:
        """The broker that keeps a consumer group. Raises `TransientError`."""
        return await self._coordinator(CoordinationType.GROUP, group)

    async def transaction_coordinator(self, transactional_id: str) -> int:
        """The broker that keeps a transactional id. Raises `TransientError`."""
        return await self._coordinator(CoordinationType.TRANSACTION, transactional_id)

    async def _coordinator(self, kind: int, key: str) -> int:
        held = self._coordinators.get((kind, key))
        if held is None:
            answer = await self.ask(None, FindCoordinatorRequest(key, kind))
            of_group = kind == CoordinationType.GROUP
            where, right = ("group", "Read") if of_group else ("transactional id", "Write")
            self.check(answer.error_code, f"{where} {key!r}", right)
            held = self._coordinators[kind, key] = answer.coordinator_id
        return held

    # --- connecting ---

    async def _connected(self) -> Any:
        if self._client is not None:
            return self._client
        async with self._connecting:
            if self._client is None:
                client: Any = AIOKafkaClient(
                    bootstrap_servers=",".join(self.address.bootstrap), client_id=CLIENT_ID, **self._access()
                )
                try:
                    await client.bootstrap()
                except FAILURES:
                    await client.close()
                    why = await explain(self.address, self._access())
                    raise TransientError(f"no broker answers: {why}", error="no broker answers") from None
                self._client = client
        return self._client

    def _access(self) -> dict[str, Any]:
        given: dict[str, Any] = {"request_timeout_ms": int(REQUEST_SECONDS * 1000), "ssl_context": self._tls}
        transport = "SSL" if self._tls else "PLAINTEXT"
        if not self.address.user:
            return given | {"security_protocol": transport}
        return given | {
            "security_protocol": f"SASL_{transport}",
            "sasl_mechanism": self.address.mechanism,
            "sasl_plain_username": self.address.user,
            "sasl_plain_password": self._password,
        }


def _broker(client: Any, node: int) -> tuple[str, int] | None:
    """Where broker `node` is; None when that is not known any more."""
    held = client.cluster.broker_metadata(node)
    return None if held is None else (held.host, held.port)


def _named(broker: tuple[str, int] | None) -> str:
    return "" if broker is None else f"{broker[0]}:{broker[1]}"
