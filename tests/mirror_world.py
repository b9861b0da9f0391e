"""A mirror between two real clusters, in real processes: for tests that look at what it leaves there."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.plant import Part

from engines.kafka import Brokers
from engines.process import free_ports
from kafka_logs import empty
from mirror_checker import Checked, check
from mirror_loads import Load
from mirror_reading import bounds
from transom.links.kafka.ledger import SHARDS, Kept, Ledger, read_ledger
from transom.links.kafka.offset_map import OffsetMap
from transom.links.kafka.status import PartitionStatus, ProcessStatus
from transom.logs.kafka_address import parse_address
from transom.logs.kafka_cluster import KafkaCluster
from transom.logs.protocol import TopicPartition
from transom.processes.mirror_orders import mirror_orders
from transom.runtime.clock import SystemClock
from transom.runtime.randomness import Randomness

ENTRY = "from transom.processes.mirror import run_mirror as run"
MIRROR = "test"
SOURCE = "eu"
PATIENCE_SECONDS = 60.0


class World:
    """Two clusters, and the processes of one mirror from the first to the second."""

    def __init__(
        self,
        source: Brokers,
        target: Brokers,
        folder: Path,
        *,
        include: Sequence[str] = (".*",),
        topics: str = "",
        settings: str = "",
        processes: int = 1,
        name: str = MIRROR,
        names: tuple[str, str] = (SOURCE, "us"),
        ways: tuple[str, str] | None = None,
        ends: tuple[str, str] | None = None,
    ) -> None:
        """`topics` and `settings` are TOML; `ways` are the addresses that the mirror goes by, if others, and
        `ends` (TOML) how it gets to both clusters, if not just by an address.
        """
        self.source, self.target, self.name = source, target, name
        if ends is None:
            here, there = ways or (source.bootstrap, target.bootstrap)
            ends = (f"address = 'kafka://{here}'", f"address = 'kafka://{there}'")
        self.parts: list[Part] = []
        for number in range(processes):
            part = Part(f"{name} {number}", folder / f"{name}-{number}", free_ports(1), ENTRY)
            part.folder.mkdir(parents=True)
            (part.folder / "config.toml").write_text(
                f"name = {name!r}\n"
                f"listen = '127.0.0.1:{part.port}'\n{settings}\n"
                f"[source]\nname = {names[0]!r}\n{ends[0]}\n"
                f"[target]\nname = {names[1]!r}\n{ends[1]}\n"
                f"[topics]\ninclude = {list(include)!r}\n{topics}\n"
            )
            self.parts.append(part)

    @property
    def config(self) -> Path:
        """The configuration of its first process."""
        return self.parts[0].folder / "config.toml"

    def kill(self) -> None:
        """SIGKILL for every process."""
        for part in self.parts:
            part.kill()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["World"]:
        """Every process runs inside the block."""
        try:
            for part in self.parts:
                part.start()
            for part in self.parts:
                await part.ready()
            yield self
            for part in self.parts:
                part.signal(signal.SIGTERM)  # so that the group need not wait for its members
            await asyncio.gather(
                *(
                    asyncio.to_thread(part.process.wait, 20)
                    for part in self.parts
                    if part.running and not part.frozen
                )
            )
        finally:
            self.kill()

    async def check(self, load: Load, copy: str = "", **more: Any) -> Checked:
        """Wait until the copy of what was loaded is whole, and compare it record by record and offset by
        offset.
        """
        copy = copy or f"{SOURCE}.{load.topic}"
        await self.caught_up(load.topic)
        return await check(
            self.source.bootstrap,
            self.target.bootstrap,
            load.topic,
            copy,
            load.expected,
            to_target=await self.translation(),
            within_seconds=PATIENCE_SECONDS,
            **more,
        )

    async def caught_up(self, *topics: str) -> None:
        """Wait until each partition of these is mirrored to where it ends now."""
        ends = {
            (topic, number): end
            for topic in topics
            for number, (_, end) in (await asyncio.to_thread(bounds, self.source.bootstrap, topic)).items()
        }
        await self.told(
            lambda parts: (
                {
                    (each.topic, each.partition)
                    for each in parts
                    if each.done >= ends.get((each.topic, each.partition), 0)
                }
                >= ends.keys()
            )
        )

    async def told(self, enough: Callable[[list[PartitionStatus]], bool]) -> list[PartitionStatus]:
        """How partitions stand, as soon as that is `enough`."""
        parts: list[PartitionStatus] = []
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), mirror_orders(self.config) as orders:
                while True:
                    with contextlib.suppress(LookupError):
                        parts = partitions(await orders.status())
                        if enough(parts):
                            return parts
                    await asyncio.sleep(0.1)
        except TimeoutError:
            said = "\n".join(part.output()[-2000:] for part in self.parts)
            raise AssertionError(f"not in time; {parts}\n{said}") from None

    async def ledger(self) -> Ledger:
        """What mirrors keep in the target."""
        cluster = _cluster(self.target)
        try:
            return await read_ledger(cluster, range(SHARDS), 1)
        finally:
            await cluster.close()

    async def translation(self) -> Callable[[str, int, int], int]:
        """The offset map that is kept, as the checker asks it: nobody goes on behind the copy's end."""
        kept = (await self.ledger()).partitions[self.name]
        maps = {at: OffsetMap(each.chunks) for at, each in kept.items()}
        copies = {at: each.record.target for at, each in kept.items() if each.record}
        held = {
            name: await asyncio.to_thread(bounds, self.target.bootstrap, name)
            for name in set(copies.values())
        }

        def to_target(topic: str, partition: int, offset: int) -> int:
            found = maps[TopicPartition(topic, partition)].to_target(offset)
            assert found is not None
            return min(found, held[copies[TopicPartition(topic, partition)]][partition][1])

        return to_target

    async def kept(self, topic: str, partition: int) -> Kept:
        """What is kept of a partition."""
        return (await self.ledger()).partitions[self.name][TopicPartition(topic, partition)]


def partitions(told: Iterable[ProcessStatus]) -> list[PartitionStatus]:
    """The newest words about each partition: a process that is gone may have left older ones."""
    newest: dict[tuple[str, int], PartitionStatus] = {}
    for process in sorted(told, key=lambda each: each.at):
        newest |= {(each.topic, each.partition): each for each in process.partitions}
    return list(newest.values())


def _cluster(brokers: Brokers) -> KafkaCluster:
    return KafkaCluster(parse_address(f"kafka://{brokers.bootstrap}"), SystemClock(), Randomness())


@contextlib.asynccontextmanager
async def emptied(*clusters: Brokers) -> AsyncIterator[None]:
    """Nothing is in these clusters when the block begins, and what it makes there is removed when it ends."""
    for each in clusters:
        await empty(each)
    try:
        yield
    finally:
        for each in clusters:
            await asyncio.to_thread(each.mend)
            await empty(each)
