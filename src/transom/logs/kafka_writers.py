"""Who appends to a Kafka log: appends that wait while one is under way share the next one.

`PlainWriter` takes what goes to one partition and fits into a batch: a batch is written whole or not at all.
`TransactionWriter` takes everything else, and all that is fenced: a transaction is committed whole or not at
all, and only its newest owner can. Neither goes on after an outcome it does not know.
Next on the data's way: `kafka`.
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from transom.logs import rules
from transom.logs.kafka_cluster import KafkaCluster
from transom.logs.kafka_produce import (
    BATCH_BYTES,
    Producer,
    ProducerLostError,
    batch_bytes,
    begin_producer,
    chunks,
    produce,
)
from transom.logs.kafka_transactions import add_partitions, end_transaction
from transom.logs.protocol import SECOND, Message, TopicPartition
from transom.model.errors import TransomError, UnreachableError

_WAITING_MAX = 1024
_JOB_BYTES_MAX = rules.BATCH_BYTES_MAX
_SEQUENCES = 1 << 31


class Placed(NamedTuple):
    """A message and the partition it goes to."""

    at: TopicPartition
    message: Message


Job = Sequence[Placed]


def fits_plain(job: Job) -> bool:
    """Whether one batch can carry `job`."""
    return len(job) == 1 or (len({placed.at for placed in job}) == 1 and _size(job) <= BATCH_BYTES)


class Writer(ABC):
    """Takes jobs; returns the offset of each message once they are written."""

    def __init__(self, cluster: KafkaCluster) -> None:
        self.cluster = cluster
        self._room = asyncio.Semaphore(_WAITING_MAX)
        self._waiting: deque[tuple[Job, asyncio.Future[list[int]]]] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def append(self, job: Job) -> list[int]:
        """Write `job`; a caller that is cancelled stops waiting, its job may still be written.

        Raises `ProducerLostError`, and what `kafka_produce.produce` raises.
        """
        async with self._room:
            done: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
            self._waiting.append((job, done))
            if self._writing is None or self._writing.done():
                self._writing = self.cluster.tasks.start(self._write_all())
            return await done

    async def close(self) -> None:
        """Stop; who still waits is told that it may have been written."""
        if self._writing is not None:
            await self.cluster.tasks.end(self._writing)
        for _, done in self._waiting:
            _fail(done, UnreachableError(f"{self.cluster.address}: the log was closed"))
        self._waiting.clear()

    @abstractmethod
    async def write(self, jobs: Sequence[Job]) -> Sequence[list[int] | Exception]:
        """Write `jobs` at once; returns the offsets, or the error, of each."""

    async def _write_all(self) -> None:
        while self._waiting:
            taken = self._take()
            try:
                outcomes = await self.write([job for job, _ in taken])
            except (TransomError, ProducerLostError) as error:
                outcomes = [error] * len(taken)
            except asyncio.CancelledError:
                for _, done in taken:
                    _fail(done, UnreachableError(f"{self.cluster.address}: the log was closed"))
                raise
            except Exception as error:
                for _, done in taken:
                    _fail(done, error)
                raise
            for (_, done), outcome in zip(taken, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    _fail(done, outcome)
                elif not done.done():
                    done.set_result(outcome)

    def _take(self) -> list[tuple[Job, "asyncio.Future[list[int]]"]]:
        taken = [self._waiting.popleft()]
        room = _JOB_BYTES_MAX - _size(taken[0][0])
        while self._waiting and (size := _size(self._waiting[0][0])) <= room:
            taken.append(self._waiting.popleft())
            room -= size
        return taken

    def _now_ms(self) -> int:
        return int(self.cluster.clock.wall() * SECOND)


class PlainWriter(Writer):
    """Writes jobs that `fits_plain` allows, with an idempotent producer."""

    def __init__(self, cluster: KafkaCluster) -> None:
        super().__init__(cluster)
        self._producer: Producer | None = None
        self._sequences: dict[TopicPartition, int] = {}

    async def write(self, jobs: Sequence[Job]) -> Sequence[list[int] | Exception]:
        """See `Writer.write`. Jobs for one partition share batches; partitions are written at once."""
        by_partition: dict[TopicPartition, list[int]] = {}
        for index, job in enumerate(jobs):
            by_partition.setdefault(job[0].at, []).append(index)
        outcomes: list[list[int] | Exception] = [[] for _ in jobs]
        if self._producer is None:
            self._producer, self._sequences = await begin_producer(self.cluster, None), {}
        async with asyncio.TaskGroup() as group:
            for at, mine in by_partition.items():
                group.create_task(self._write_to(at, jobs, mine, outcomes, self._producer))
        return outcomes

    async def _write_to(
        self,
        at: TopicPartition,
        jobs: Sequence[Job],
        mine: Sequence[int],
        outcomes: list[list[int] | Exception],
        producer: Producer,
    ) -> None:
        """Write the jobs of one partition, batch after batch, until one is refused."""
        left = list(mine)
        while left:
            count, room = 1, BATCH_BYTES - _size(jobs[left[0]])
            while count < len(left) and (size := _size(jobs[left[count]])) <= room:
                room -= size
                count += 1
            now, left = left[:count], left[count:]
            messages = [placed.message for index in now for placed in jobs[index]]
            sequence = self._sequences.get(at, 0)
            batch = batch_bytes(messages, producer, sequence, self._now_ms(), transactional=False)
            try:
                offset = (await produce(self.cluster, {at: batch}))[at]
            except (TransomError, ProducerLostError) as error:
                # Whether it was written is not known, so neither is the next sequence: begin a new producer.
                self._producer = None
                told = error if isinstance(error, TransomError) else UnreachableError(str(error))
                for index in [*now, *left]:
                    outcomes[index] = told
                return
            self._sequences[at] = (sequence + len(messages)) % _SEQUENCES
            for index in now:
                outcomes[index] = list(range(offset, offset + len(jobs[index])))
                offset += len(jobs[index])


class TransactionWriter(Writer):
    """Writes jobs in transactions under `transactional_id`.

    One that ended with a `ProducerLostError` or in doubt does not go on: `broken` says so.
    """

    def __init__(self, cluster: KafkaCluster, transactional_id: str) -> None:
        super().__init__(cluster)
        self.transactional_id = transactional_id
        self.broken = False
        self._producer: Producer | None = None
        self._sequences: dict[TopicPartition, int] = {}

    async def begin(self) -> None:
        """Take the id: whoever had it is shut out."""
        self._producer = await begin_producer(self.cluster, self.transactional_id)

    async def write(self, jobs: Sequence[Job]) -> Sequence[list[int] | Exception]:
        """See `Writer.write`: all in one transaction."""
        if self.broken or self._producer is None:
            raise ProducerLostError(f"transactional id {self.transactional_id!r} is to be taken again")
        by_partition: dict[TopicPartition, list[tuple[int, int]]] = {}
        for index, job in enumerate(jobs):
            for number, placed in enumerate(job):
                by_partition.setdefault(placed.at, []).append((index, number))
        sent = {
            at: [jobs[index][number].message for index, number in places]
            for at, places in by_partition.items()
        }
        self.broken = True  # until it is known how this ends
        try:
            await add_partitions(self.cluster, self.transactional_id, self._producer, by_partition)
            offsets = await self._produce(self._producer, sent)
        except (TransomError, ProducerLostError):
            await self._abort(self._producer)
            raise
        await end_transaction(self.cluster, self.transactional_id, self._producer, commit=True)
        self.broken = False
        outcomes = [[0] * len(job) for job in jobs]
        for at, places in by_partition.items():
            for (index, number), offset in zip(places, offsets[at], strict=True):
                outcomes[index][number] = offset
        return outcomes

    async def _produce(
        self, producer: Producer, by_partition: Mapping[TopicPartition, Sequence[Message]]
    ) -> dict[TopicPartition, list[int]]:
        """Send everything, a batch a partition at a time; returns the offsets of each one's messages."""
        runs = {at: chunks(messages) for at, messages in by_partition.items()}
        offsets: dict[TopicPartition, list[int]] = {at: [] for at in by_partition}
        for step in range(max(map(len, runs.values()))):
            sent = {at: each[step] for at, each in runs.items() if step < len(each)}
            batches: dict[TopicPartition, bytes] = {}
            for at, messages in sent.items():
                sequence = self._sequences.get(at, 0)
                batches[at] = batch_bytes(messages, producer, sequence, self._now_ms(), transactional=True)
                self._sequences[at] = (sequence + len(messages)) % _SEQUENCES
            first = await produce(self.cluster, batches, self.transactional_id)
            for at, messages in sent.items():
                offsets[at].extend(range(first[at], first[at] + len(messages)))
        return offsets

    async def _abort(self, producer: Producer) -> None:
        """So that readers need not wait for what will never be committed. What fails here ends by itself."""
        with contextlib.suppress(TransomError, ProducerLostError):
            await end_transaction(self.cluster, self.transactional_id, producer, commit=False)


def _size(job: Job) -> int:
    return sum(rules.payload_bytes(placed.message) + 64 for placed in job)


def _fail(done: "asyncio.Future[list[int]]", error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
