"""What a topic holds, as clients see it that know nothing of a mirror: librdkafka, Kafka's console consumer
and aiokafka read it whole into the same `Record`s, so that any two readings can be compared.

A reading ends where the partition ended when the reader came there. Next on the data's way: `mirror_checker`.
"""

import asyncio
import hashlib
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as AiokafkaPartition
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from engines import jars

QUIET_SECONDS = 60.0
"""How long a reader waits for anything at all before it gives up."""
KEPT_BYTES = 4096
"""What is longer is kept as its size and digest: a reading of large records fits into memory."""
TOGETHER = 500
"""Records taken from librdkafka in one call."""


class Digest(NamedTuple):
    """A long key or value."""

    size_bytes: int
    blake2b: str


Bytes: TypeAlias = bytes | Digest | None
"""None is null, which is not the same as empty."""


class Record(NamedTuple):
    """A record and where it is."""

    partition: int
    offset: int
    timestamp_ms: int
    key: Bytes
    value: Bytes
    headers: tuple[tuple[bytes, Bytes], ...]

    @property
    def content(self) -> tuple[object, ...]:
        """What a copy of it has, too: all but its place."""
        return self[2:]


@dataclass(slots=True)
class Partition:
    """The records of a partition between `start` and `end`, the position after the last offset read."""

    start: int
    end: int
    records: list[Record] = field(default_factory=list)


Reading: TypeAlias = dict[int, Partition]


class ReadingError(Exception):
    """A topic cannot be read: the client's own words."""


def kept(data: bytes | None) -> Bytes:
    """A key, a value or a header's value, as a `Record` keeps it."""
    if data is None or len(data) <= KEPT_BYTES:
        return data
    return Digest(len(data), hashlib.blake2b(data, digest_size=16).hexdigest())


def record(
    partition: int,
    offset: int,
    timestamp_ms: int,
    key: bytes | None,
    value: bytes | None,
    headers: Iterable[tuple[str, bytes | None]] | None,
) -> Record:
    """A record as clients hand it over. A header's name is UTF-8 (Kafka's message format)."""
    named = tuple((name.encode(), kept(held)) for name, held in headers or ())
    return Record(partition, offset, timestamp_ms, kept(key), kept(value), named)


def bounds(bootstrap: str, topic: str) -> dict[int, tuple[int, int]]:
    """Where each partition begins and ends. Raises `ReadingError`."""
    admin = AdminClient(quietly(bootstrap))
    partitions = [TopicPartition(topic, number) for number in _partitions(admin, topic)]
    starts, ends = (
        _offsets(admin, partitions, which) for which in (OffsetSpec.earliest(), OffsetSpec.latest())
    )
    return {number: (starts[number], ends[number]) for number in starts}


def _offsets(admin: AdminClient, partitions: Iterable[TopicPartition], which: OffsetSpec) -> dict[int, int]:
    """The offsets there; brokers learn a moment later what they lead."""
    until = time.monotonic() + QUIET_SECONDS
    while True:
        answers = admin.list_offsets(dict.fromkeys(partitions, which), request_timeout=QUIET_SECONDS)
        try:
            return {at.partition: answer.result().offset for at, answer in answers.items()}
        except KafkaException as error:
            code = error.args[0].code()
            if code != KafkaError.NOT_LEADER_FOR_PARTITION or time.monotonic() > until:
                raise ReadingError(f"{partitions}: {error}") from error


def messages(bootstrap: str, topic: str, *, committed: bool) -> Iterator[Message]:
    """Every record that librdkafka sees, and one error `_PARTITION_EOF` where a partition ends.

    Blocks. `committed`: only what no open or aborted transaction wrote; else all, as plain clients do.
    Raises `ReadingError`.
    """
    consumer = Consumer(
        quietly(bootstrap)
        | {
            "group.id": "transom-mirror-checker",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed" if committed else "read_uncommitted",
            # A position that is not there is a fault to be told, not a reason to begin elsewhere.
            "auto.offset.reset": "error",
            "check.crcs": True,
            "fetch.wait.max.ms": 10,
            "fetch.error.backoff.ms": 10,
        }
    )
    try:
        open_ones = set(_partitions(consumer, topic))
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in open_ones])
        until = time.monotonic() + QUIET_SECONDS
        while open_ones:
            for message in consumer.consume(TOGETHER, 0.02):
                until = time.monotonic() + QUIET_SECONDS
                error = message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise ReadingError(f"{topic}, partition {message.partition()}: {error.str()}")
                if message.partition() not in open_ones:
                    continue  # written after its end was seen
                if error is not None:
                    open_ones.discard(message.partition())
                yield message
            if time.monotonic() > until:
                raise ReadingError(f"{topic}: nothing came for {QUIET_SECONDS:.0f} s; open: {open_ones}")
    finally:
        consumer.close()


def read(bootstrap: str, topic: str, *, committed: bool) -> Reading:
    """The topic as librdkafka shows it. Blocks. `committed`: as for `messages`. Raises `ReadingError`."""
    found = {number: Partition(start, start) for number, (start, _) in bounds(bootstrap, topic).items()}
    for message in messages(bootstrap, topic, committed=committed):
        partition = found[message.partition()]
        if message.error() is not None:
            partition.end = message.offset()
        else:
            partition.records.append(of_message(message))
    return found


def of_message(message: Message) -> Record:
    """What librdkafka read, or reports as delivered."""
    return record(
        message.partition(),
        message.offset(),
        message.timestamp()[1],
        message.key(),
        message.value(),
        message.headers(),
    )


async def read_with_aiokafka(bootstrap: str, topic: str) -> Reading:
    """The topic as aiokafka shows it to a plain reader. It needs a further package for codecs but gzip.
    Raises aiokafka's `KafkaError`, `TimeoutError`.
    """
    limits = await asyncio.to_thread(bounds, bootstrap, topic)
    found = {number: Partition(start, end) for number, (start, end) in limits.items()}
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, auto_offset_reset="none", fetch_max_wait_ms=10, check_crcs=True
    )
    await consumer.start()
    try:
        consumer.assign([AiokafkaPartition(topic, number) for number in found])
        for number, (start, _) in limits.items():
            consumer.seek(AiokafkaPartition(topic, number), start)
        async with asyncio.timeout(QUIET_SECONDS):
            for number, partition in found.items():
                at = AiokafkaPartition(topic, number)
                while await consumer.position(at) < partition.end:
                    for one in (await consumer.getmany(at, timeout_ms=100)).get(at, []):
                        partition.records.append(
                            record(number, one.offset, one.timestamp, one.key, one.value, one.headers)
                        )
    finally:
        await consumer.stop()
    return found


_FIELD, _HEADER, _LINE, _NULL = "<field>", "<header>", "<line>\n", "<null>"
"""What stands between the parts of the console consumer's output, and for null: no load writes such data."""
_LATIN = "org.apache.kafka.common.serialization.StringDeserializer"
_SHOWN: Mapping[str, str] = {
    **{f"print.{part}": "true" for part in ("timestamp", "partition", "offset", "headers", "key")},
    "key.separator": _FIELD,
    "headers.separator": _HEADER,
    "line.separator": _LINE,
    "null.literal": _NULL,
    # Latin-1 gives every byte a character of its own, and the console writes characters as UTF-8.
    **{f"{part}.deserializer": _LATIN for part in ("key", "value", "headers")},
    **{f"{part}.deserializer.deserializer.encoding": "ISO-8859-1" for part in ("key", "value", "headers")},
}


def read_with_console(bootstrap: str, topic: str, count: int, version: str = jars.NEWEST) -> Reading:
    """The first `count` records that Kafka's console consumer prints. Blocks. Raises `ReadingError`.

    It cannot see where a topic ends, so `count` says when it may stop; a header's name must be without `:`.
    """
    limits = bounds(bootstrap, topic)
    found = {number: Partition(start, end) for number, (start, end) in limits.items()}
    if not count:
        return found
    option = "--property" if version == jars.OLDEST else "--formatter-property"  # KIP-1147
    shown = [word for name, value in _SHOWN.items() for word in (option, f"{name}={value}")]
    command = [
        *(*jars.java_command(version, 128), "org.apache.kafka.tools.consumer.ConsoleConsumer"),
        *("--bootstrap-server", bootstrap, "--topic", topic, "--from-beginning"),
        *("--max-messages", str(count), "--timeout-ms", str(int(QUIET_SECONDS * 1000))),
    ]
    done = subprocess.run([*command, *shown], capture_output=True, check=False, timeout=3 * QUIET_SECONDS)
    printed = done.stdout.decode().split(_LINE)
    if done.returncode or len(printed) != count + 1:
        said = done.stderr.decode(errors="replace")[-1000:]
        raise ReadingError(f"{topic}: the console printed {len(printed) - 1} of {count} records: {said}")
    for line in printed[:-1]:
        one = _printed(line)
        found[one.partition].records.append(one)
    return found


def _printed(line: str) -> Record:
    match = re.match(
        rf"\w+:(?P<time>-?\d+){_FIELD}Partition:(?P<partition>\d+){_FIELD}Offset:(?P<offset>\d+){_FIELD}",
        line,
    )
    if match is None:
        raise ReadingError(f"the console printed {line[:200]!r}")
    headers, key, value = line[match.end() :].split(_FIELD)
    pairs = [] if headers == "NO_HEADERS" else [one.split(":", 1) for one in headers.split(_HEADER)]
    return record(
        int(match["partition"]),
        int(match["offset"]),
        int(match["time"]),
        _latin(key),
        _latin(value),
        [(name, _latin(held)) for name, held in pairs],
    )


def _latin(text: str) -> bytes | None:
    return None if text == _NULL else text.encode("latin-1")


def quietly(bootstrap: str) -> dict[str, object]:
    """A client that does not print which connections end: brokers come and go here."""
    return {"bootstrap.servers": bootstrap, "log_level": 0, "log.connection.close": False}


def _partitions(client: AdminClient | Consumer, topic: str) -> list[int]:
    try:
        layout = client.list_topics(topic, timeout=QUIET_SECONDS).topics[topic]
    except KafkaException as error:
        raise ReadingError(f"{topic}: {error}") from error
    if layout.error is not None:
        raise ReadingError(f"{topic}: {layout.error.str()}")
    return sorted(layout.partitions)
