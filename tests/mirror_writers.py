"""Producers at work on a topic while something happens to its mirror: a plain one, and one with transactions
of which a third are aborted, in the same partitions at the same time.

What they were acknowledged is in their `Load`, for `World.check`.
"""

import asyncio
import random
from collections.abc import Callable

from mirror_loads import QUIET_SECONDS, Transaction, Writing, make_topic, random_record

ENOUGH = 20_000
"""Records after which a writer only waits: a checker reads them all."""
_PAUSE_SECONDS = 0.1


class Writer:
    """The producers of one topic, which they make."""

    def __init__(self, bootstrap: str, topic: str, seed: int, partitions: int = 3) -> None:
        """Blocks."""
        self.load = make_topic(bootstrap, topic, partitions)
        self._randomness = random.Random(seed)
        # Idempotent: a broker that dies must not double what the source has.
        self._plain = Writing(self.load, {"enable.idempotence": True, "batch.num.messages": 7})
        self._transactional = Writing(self.load, {"transactional.id": topic, "compression.type": "lz4"})
        self._transactional.producer.init_transactions(QUIET_SECONDS)
        self._count = 0

    def write(self) -> None:
        """Some plain records in the middle of a transaction. Blocks until all are acknowledged."""
        self._transactional.producer.begin_transaction()
        transaction = Transaction(self.load, self._transactional)
        self._send(self._transactional, 1)
        transaction.flush()
        self._send(self._plain, self._randomness.randrange(40))
        self.load.add(self._plain.flush())
        self._send(self._transactional, self._randomness.randrange(10))
        (transaction.abort if self._randomness.random() < 1 / 3 else transaction.commit)()

    def _send(self, writing: Writing, count: int) -> None:
        for _ in range(count):
            place = self._randomness.randrange(len(self.load.history))
            writing.send(random_record(self._randomness, self._count, place))
            self._count += 1

    async def times(self, count: int) -> None:
        """Write as often."""
        for _ in range(count):
            await asyncio.to_thread(self.write)

    async def grown(self, count: int) -> None:
        """Wait until others have it write so many more records."""
        until = self._count + count
        while self._count < until:
            await asyncio.sleep(_PAUSE_SECONDS)

    async def until(self, done: Callable[[], bool], pause_seconds: float = _PAUSE_SECONDS) -> None:
        """Write until something is so."""
        while not done():
            if self._count < ENOUGH:
                await asyncio.to_thread(self.write)
            await asyncio.sleep(pause_seconds)
