"""Compacted topics whose cleaner comes when it is told: writing, cleaning and forgetting in any order,
before, while and after a mirror passes.

A broker cleans all but the newest segment, and begins a new one when a record's own time is `segment.ms`
after the segment's first (`LogSegment.shouldRoll`): a record of a later time is what sends the cleaner out.
That it has been there is seen by the offsets that are left. Times are of today, unlike those of other loads:
markers that end transactions have the broker's, and count as well. `mirror_compacted` checks what a mirror
made of it.
"""

import random
import time

from mirror_loads import Load, Transaction, Writing, make_topic
from mirror_reading import QUIET_SECONDS, Record, read

_SEGMENT_MS = 30_000
"""Short, since brokers take no record that is an hour ahead of their time; a test's records span less."""
_STEP_MS = 10
_KEYS_OF_FIRST = 5
_HOUR_MS = 3_600_000


class Compacted:
    """A compacted topic and its three producers: one that writes a little at the beginning, of which every
    record is replaced, so that the cleaner keeps its last batch without records; a second; and one that
    writes in transactions, of which it aborts some.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        randomness: random.Random,
        *,
        partitions: int = 2,
        keys: int = 20,
        codec: str = "none",
        delete_retention_ms: int = _HOUR_MS,
    ) -> None:
        """Make the topic. `keys`: how many different ones are in use; `delete_retention_ms`: how long after
        the first cleaning a delete marker stays. Blocks.
        """
        self.config = {
            "cleanup.policy": "compact",
            "segment.ms": str(_SEGMENT_MS),
            "min.cleanable.dirty.ratio": "0.0",
            "delete.retention.ms": str(delete_retention_ms),
        }
        self.load: Load = make_topic(bootstrap, topic, partitions, self.config)
        self._randomness, self._keys, self._partitions = randomness, keys, partitions
        shared = {"compression.type": codec, "enable.idempotence": True}
        self._first, self._second = Writing(self.load, shared), Writing(self.load, shared)
        self._transactions = Writing(self.load, {**shared, "transactional.id": topic})
        self._transactions.producer.init_transactions(QUIET_SECONDS)
        self._last_ms = 0
        self._begin()

    def _begin(self) -> None:
        for writing in (self._first, self._second):
            for key in range(_KEYS_OF_FIRST * self._partitions):
                writing.send(self._next(key, b"first"))
            self.load.add(writing.flush())

    def write(self, count: int) -> None:
        """Records and delete markers; an eighth in a transaction that is aborted, one in a committed one."""
        for portion in range(8):
            transaction = None
            if portion in {2, 5}:
                self._transactions.producer.begin_transaction()
                transaction = Transaction(self.load, self._transactions)
            writing = self._second if transaction is None else self._transactions
            for _ in range(count // 8):
                value = None if self._randomness.random() < 0.2 else self._randomness.randbytes(40)
                writing.send(self._next(self._randomness.randrange(self._keys), value))
            if transaction is None:
                self.load.add(writing.flush())
            elif portion == 2:
                transaction.abort()
            else:
                transaction.commit()

    def delete(self, key: int) -> None:
        """Write a delete marker."""
        self._second.send(self._next(key, None))
        self.load.add(self._second.flush())

    def clean(self) -> None:
        """Have all that was written so far cleaned, and wait until it is: of each key the newest is left."""
        starts = self._roll()
        until = time.monotonic() + QUIET_SECONDS
        while not self._is_clean(starts):
            assert time.monotonic() < until, f"{self.load.topic} is not cleaned"
            time.sleep(0.05)

    def forget(self) -> None:
        """Clean until no delete marker written so far is left; `delete_retention_ms` should be short."""
        starts = self._roll()
        until = time.monotonic() + QUIET_SECONDS
        while any(one.value is None for one in self._left(starts)):
            assert time.monotonic() < until, f"{self.load.topic} still has delete markers"
            time.sleep(0.1)
            self.clean()  # the first cleaning sets a marker's time, one after that time removes it

    def _roll(self) -> dict[int, int]:
        """Begin a new segment in every partition: the offsets of their first records."""
        self._last_ms = max(self._last_ms, _now_ms()) + _SEGMENT_MS
        for number in range(self._partitions):
            self._second.send(self._next(number, b"roll"))
        rolled = self._second.flush()
        self.load.add(rolled)
        return {one.partition: one.offset for one in rolled}

    def _next(self, key: int, value: bytes | None) -> Record:
        self._last_ms = max(self._last_ms + _STEP_MS, _now_ms())
        return Record(key % self._partitions, -1, self._last_ms, b"key-%d" % key, value, ())

    def _left(self, starts: dict[int, int]) -> list[Record]:
        held = read(self.load.bootstrap, self.load.topic, committed=True)
        return [one for number, start in starts.items() for one in held[number].records if one.offset < start]

    def _is_clean(self, starts: dict[int, int]) -> bool:
        newest = {
            (number, one.key): one
            for number, start in starts.items()
            for one in self.load.history[number]
            if one.offset < start
        }
        wanted = {(one.partition, one.offset) for one in newest.values()}
        kept = {(one.partition, one.offset) for one in newest.values() if one.value is not None}
        return kept <= {(one.partition, one.offset) for one in self._left(starts)} <= wanted


def _now_ms() -> int:
    return int(time.time() * 1000)
