"""Hearing what is said on a topic of the hub's log, from its last words on. Used for heartbeats."""

from collections.abc import Callable

from transom.logs.protocol import Entry, Log, TopicPartition
from transom.model.errors import OutOfRangeError

_WAIT_SECONDS = 30.0


async def listen(log: Log, topic: str, hear: Callable[[Entry], None], last: int = 1) -> None:
    """Call `hear` with the last `last` entries of each partition, and with all that come, for ever.

    Raises what the log raises.
    """
    offsets = {
        TopicPartition(topic, number): max(bounds.start, bounds.end - last)
        for number, bounds in (await log.bounds(topic)).items()
    }
    while True:
        try:
            entries = await log.read(offsets, wait_seconds=_WAIT_SECONDS)
        except OutOfRangeError as gap:
            # What is gone was superseded.
            offsets[TopicPartition(gap.topic, gap.partition)] = gap.start
            continue
        for entry in entries:
            offsets[entry.position] = entry.offset + 1
            hear(entry)
