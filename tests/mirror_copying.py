"""Copies made record by record, as simply as can be, on which the checker of mirrors is tried without a
mirror: true ones and, by whoever calls, spoiled ones.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from confluent_kafka import Message, Producer

from mirror_loads import MEBIBYTE, Load, make_topic
from mirror_reading import QUIET_SECONDS, messages, quietly

Places: TypeAlias = dict[tuple[int, int], int]
"""Partition and source offset to the offset of the copy."""


def raw(bootstrap: str, topic: str, *, committed: bool = True) -> list[Message]:
    return [one for one in messages(bootstrap, topic, committed=committed) if one.error() is None]


def write(bootstrap: str, name: str, records: list[dict[str, Any]]) -> list[int]:
    """Append records to a topic: the offset that each got."""
    producer = Producer(quietly(bootstrap) | {"message.max.bytes": 2 * MEBIBYTE, "linger.ms": 1})
    offsets = [-1] * len(records)

    def report(place: int) -> Callable[[object, Message], None]:
        def note(error: object, message: Message) -> None:
            assert error is None
            offsets[place] = message.offset()

        return note

    for place, one in enumerate(records):
        producer.produce(name, on_delivery=report(place), **one)
        producer.poll(0)
    assert not producer.flush(QUIET_SECONDS)
    return offsets


def write_copy(bootstrap: str, name: str, records: list[dict[str, Any]], partitions: int = 3) -> list[int]:
    """A new topic with these records: the offset that each got."""
    make_topic(bootstrap, name, partitions, {"max.message.bytes": str(2 * MEBIBYTE)})
    return write(bootstrap, name, records)


def parts(message: Message) -> dict[str, Any]:
    return {
        "partition": message.partition(),
        "key": message.key(),
        "value": message.value(),
        "headers": message.headers() or [],
        "timestamp": message.timestamp()[1],
    }


def copied(load: Load, name: str = "copy", places: Places | None = None) -> Places:
    """Copy a topic record by record, as simply as can be, or go on behind what `places` says is copied."""
    if places is None:
        make_topic(load.bootstrap, name, len(load.history), {"max.message.bytes": str(2 * MEBIBYTE)})
    done = places or {}
    ends = {number: max((at for part, at in done if part == number), default=-1) for number in load.history}
    source = [one for one in raw(load.bootstrap, load.topic) if one.offset() > ends[one.partition()]]
    offsets = write(load.bootstrap, name, [parts(one) for one in source])
    new = zip(source, offsets, strict=True)
    return done | {(one.partition(), one.offset()): offset for one, offset in new}


def translation(load: Load, places: Places) -> Callable[[str, int, int], int]:
    """The offset map of a copy, from what its maker knows."""
    ends = {number: sum(1 for at in places if at[0] == number) for number in load.history}

    def to_target(topic: str, partition: int, offset: int) -> int:
        assert topic == load.topic
        following = [
            there for (number, here), there in places.items() if number == partition and here >= offset
        ]
        return min(following, default=ends[partition])

    return to_target
