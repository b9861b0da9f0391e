"""Topics that are hard to mirror, written by real producers: each load makes its topic, fills it, and returns
what it knows to be in it, so that a checker has something that no reading can tell it.

Everything is drawn from a `random.Random`: the same seed writes the same records. All functions block. Loads
for compacted topics are in `mirror_compacted_loads`; `mirror_checker` reads what a mirror makes of them.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from kafka_batches import CODECS
from mirror_reading import QUIET_SECONDS, Record, of_message, quietly, record

FIRST_TIMESTAMP_MS = 1_700_000_000_000
"""Long ago, so that all records have the same times in every run; topics keep them for ever."""
KEPT_FOR_EVER: Mapping[str, str] = {"retention.ms": "-1"}
MEBIBYTE = 1 << 20
_LARGEST_BATCH = 2 * MEBIBYTE


@dataclass(slots=True)
class Load:
    """What a topic was given. `history`: each partition's committed records, in order, but removed ones."""

    bootstrap: str
    topic: str
    history: dict[int, list[Record]]

    @property
    def expected(self) -> dict[int, int]:
        """Committed records of each partition."""
        return {number: len(records) for number, records in self.history.items()}

    def add(self, delivered: list[Record]) -> None:
        """Note what is committed; transactions of several producers end in any order."""
        for one in delivered:
            self.history[one.partition].append(one)
        for records in self.history.values():
            records.sort(key=lambda one: one.offset)


class Writing:
    """A producer that remembers what the broker acknowledged, with its offsets."""

    def __init__(self, load: Load, settings: Mapping[str, object]) -> None:
        """`settings`: librdkafka's, over those that wait for nothing and allow records of 1 MiB."""
        self.producer = Producer(
            quietly(load.bootstrap)
            | {"linger.ms": 5, "message.max.bytes": _LARGEST_BATCH, "batch.size": _LARGEST_BATCH}
            | dict(settings)
        )
        self._load = load
        self._delivered: list[Record] = []
        self._failed: list[KafkaError] = []

    def send(self, one: Record) -> None:
        """Queue a record for its partition; its offset is not used."""
        assert not isinstance(one.key, tuple)
        assert not isinstance(one.value, tuple)
        self.producer.produce(
            self._load.topic,
            value=one.value,
            key=one.key,
            partition=one.partition,
            on_delivery=self._reported(one),
            timestamp=one.timestamp_ms,
            headers=[(name.decode(), value) for name, value in one.headers],
        )
        self.producer.poll(0)

    def _reported(self, one: Record) -> Callable[[KafkaError | None, Message], None]:
        def report(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._failed.append(error)
            else:
                # The report leaves headers out, and has the append time where that is the topic's time.
                self._delivered.append(of_message(message)._replace(headers=one.headers))

        return report

    def flush(self) -> list[Record]:
        """What was acknowledged since the last call. Raises `AssertionError` for what was not."""
        assert not self.producer.flush(QUIET_SECONDS)
        assert not self._failed, self._failed
        delivered, self._delivered = self._delivered, []
        return delivered


@dataclass(slots=True)
class Transaction:
    """A transaction that is still open, and what it will have written."""

    load: Load
    writing: Writing
    delivered: list[Record] = field(default_factory=list)

    def flush(self) -> None:
        """Have the broker hold all that was sent so far."""
        self.delivered += self.writing.flush()

    def commit(self) -> None:
        """End it; from now on committed readers see it."""
        self.flush()
        self.writing.producer.commit_transaction(QUIET_SECONDS)
        self.load.add(self.delivered)

    def abort(self) -> None:
        """End it; its records stay in the log, and committed readers never see them."""
        self.flush()
        self.writing.producer.abort_transaction(QUIET_SECONDS)


def make_topic(
    bootstrap: str,
    topic: str,
    partitions: int = 1,
    config: Mapping[str, str] | None = None,
) -> Load:
    """A new, empty topic, as it is known to every broker."""
    admin = AdminClient(quietly(bootstrap))
    made = NewTopic(topic, partitions, config={**KEPT_FOR_EVER, **(config or {})})
    admin.create_topics([made])[topic].result(QUIET_SECONDS)
    return Load(bootstrap, topic, {number: [] for number in range(partitions)})


def random_record(randomness: random.Random, number: int, partition: int) -> Record:
    """The `number`-th record: any of null, empty, short and longer parts; some come late, by their time."""
    late_ms = randomness.choice((0, 0, 0, 5_003))
    keys = (None, b"", b"key-%d" % randomness.randrange(20), randomness.randbytes(16))
    tagged = b"%d:" % number
    values = (None, b"", tagged, tagged + randomness.randbytes(100), tagged + b"again and " * 60)
    return record(
        partition,
        -1,
        FIRST_TIMESTAMP_MS + 10 * number - late_ms,
        randomness.choices(keys, (2, 1, 5, 2))[0],
        randomness.choices(values, (1, 1, 4, 4, 2))[0],
        _random_headers(randomness),
    )


def _random_headers(randomness: random.Random) -> list[tuple[str, bytes | None]]:
    kind = randomness.randrange(8)
    if kind < 4:
        return []
    if kind == 4:
        return [("trace", randomness.randbytes(8))]
    if kind == 5:
        return [("twice", b"1"), ("other", None), ("twice", b""), ("twice", b"1")]
    if kind == 6:
        return [("", b"without a name"), ("größe", "ü".encode()), ("null", None)]
    return [(f"header-{number}", randomness.randbytes(number)) for number in range(40)]


def plain(
    bootstrap: str,
    topic: str,
    randomness: random.Random,
    *,
    count: int = 300,
    partitions: int = 3,
    codec: str = "none",
    idempotent: bool = False,
    config: Mapping[str, str] | None = None,
) -> Load:
    """Batches of one record to all that fit, in turns, of one codec.

    With `message.timestamp.type=LogAppendTime` in `config` the records have the broker's times.
    """
    load = make_topic(bootstrap, topic, partitions, config)
    shared = {"compression.type": codec, "enable.idempotence": idempotent}
    writings = [Writing(load, {**shared, "batch.num.messages": most}) for most in (1, 7, 10_000)]
    number = 0
    while number < count:
        writing = randomness.choice(writings)
        for _ in range(min(count - number, randomness.randrange(1, 60))):
            writing.send(random_record(randomness, number, randomness.randrange(partitions)))
            number += 1
        load.add(writing.flush())
    return load


def large(bootstrap: str, topic: str, randomness: random.Random, *, codec: str = "none") -> Load:
    """Values up to 1 MiB that cannot be compressed, single ones between them, and a key of 200 KiB."""
    load = make_topic(bootstrap, topic, config={"max.message.bytes": str(_LARGEST_BATCH)})
    writing = Writing(load, {"compression.type": codec})
    sizes = [
        MEBIBYTE,
        1,
        MEBIBYTE - 1,
        700_000,
        10,
        65_536,
        *(randomness.randrange(300_000) for _ in range(4)),
    ]
    for number, size in enumerate(sizes):
        key = randomness.randbytes(200 * 1024) if number == 4 else None
        writing.send(Record(0, -1, FIRST_TIMESTAMP_MS + number, key, randomness.randbytes(size), ()))
        if randomness.random() < 0.5:
            load.add(writing.flush())
    load.add(writing.flush())
    return load


def transactional(
    bootstrap: str,
    topic: str,
    randomness: random.Random,
    *,
    count: int = 300,
    partitions: int = 3,
    writers: int = 3,
    config: Mapping[str, str] | None = None,
) -> tuple[Load, list[Transaction]]:
    """Transactions of several producers at the same time, each with a codec of its own, and plain records
    between them.

    They end by commit or abort at random, a third by abort. The ones returned are still open, for a minute at
    most (librdkafka's `transaction.timeout.ms`): whoever gets them ends them.
    """
    load = make_topic(bootstrap, topic, partitions, config)
    writings = [
        Writing(load, {"compression.type": CODECS[one % 5], "transactional.id": f"{topic}-{one}"})
        for one in range(writers)
    ]
    outside = Writing(load, {"compression.type": "zstd"})
    for writing in writings:
        writing.producer.init_transactions(QUIET_SECONDS)
    opened: list[Transaction] = [_begun(load, writing) for writing in writings]
    ended = number = 0
    while number < count:
        place = randomness.randrange(writers + 1)
        writing = outside if place == writers else opened[place].writing
        for _ in range(min(count - number, randomness.randrange(1, 20))):
            writing.send(random_record(randomness, number, randomness.randrange(partitions)))
            number += 1
        if place == writers:
            load.add(outside.flush())
            continue
        opened[place].flush()
        if randomness.random() < 0.6:
            # The first is always aborted, so that one is.
            aborting = not ended or randomness.random() < 1 / 3
            (opened[place].abort if aborting else opened[place].commit)()
            opened[place] = _begun(load, writing)
            ended += 1
    for place, transaction in enumerate(opened):
        # So that each is open in the log, not only in its producer.
        transaction.writing.send(random_record(randomness, count + place, randomness.randrange(partitions)))
        transaction.flush()
    return load, opened


def _begun(load: Load, writing: Writing) -> Transaction:
    writing.producer.begin_transaction()
    return Transaction(load, writing)


def behind_deleted(
    bootstrap: str, topic: str, randomness: random.Random, *, count: int = 300, partitions: int = 3
) -> Load:
    """Partitions that begin above 0: the older half was removed, as by retention; in the last, all."""
    load = plain(bootstrap, topic, randomness, count=count, partitions=partitions)
    befores = {number: records[len(records) // 2].offset for number, records in load.history.items()}
    befores[partitions - 1] = load.history[partitions - 1][-1].offset + 1
    asked = [TopicPartition(topic, number, before) for number, before in befores.items()]
    admin = AdminClient(quietly(bootstrap))  # held until it has answered
    for answer in admin.delete_records(asked).values():
        answer.result(QUIET_SECONDS)
    for number, records in load.history.items():
        load.history[number] = [one for one in records if one.offset >= befores[number]]
    return load


def many_partitions(
    bootstrap: str, topic: str, randomness: random.Random, *, partitions: int = 300, count: int = 700
) -> Load:
    """Few records in each of many partitions, and none in some."""
    load = make_topic(bootstrap, topic, partitions)
    writing = Writing(load, {})
    for number in range(count):
        writing.send(random_record(randomness, number, randomness.randrange(partitions)))
    load.add(writing.flush())
    return load
