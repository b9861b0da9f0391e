"""What people ask of a mirror beside running it: its plan, its status, orders, and offsets.

All of it stands in the target cluster, so no process of the mirror needs to be reached, or to run.
Next on the data's way: `cli.mirror`.
"""

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from transom.links.kafka.config import MirrorConfig
from transom.links.kafka.groups import Groups
from transom.links.kafka.lanes import Lanes
from transom.links.kafka.ledger import COPIES_SHARD, SHARDS, Kept, Ledger, PartitionRecord, read_ledger
from transom.links.kafka.mirroring import MAP, group_of
from transom.links.kafka.offset_map import OffsetMap
from transom.links.kafka.orders import ORDERS, Orders
from transom.links.kafka.resuming import Skip
from transom.links.kafka.rights import check_own
from transom.links.kafka.shard import Ends, shard_of
from transom.links.kafka.status import STATUS, ProcessStatus, read_status
from transom.links.kafka.topics import Looked
from transom.logs.kafka_bounds import EARLIEST, LATEST, list_offsets
from transom.logs.protocol import TopicPartition
from transom.model.errors import ConflictError, NotFoundError, OutOfRangeError
from transom.processes.mirror import (
    SILENT_SECONDS,
    Clusters,
    check_alone,
    chosen_groups,
    clusters,
    planning,
)
from transom.runtime.clock import SystemClock
from transom.runtime.config import load
from transom.runtime.randomness import Randomness

_CONNECTION = 1


class MirrorOrders:
    """A mirror as its configuration names it, to be asked."""

    def __init__(
        self, config: MirrorConfig, there: Clusters, randomness: Randomness, late: Callable[[str], None]
    ) -> None:
        """`late` is told why a cluster has to be waited for."""
        self.config = config
        self._there, self._randomness, self._late = there, randomness, late

    async def plan(self) -> Looked:
        """What a mirror that begins now would mirror, and change. Raises `InvalidError` as its start does."""
        chosen_groups(self.config)
        await self._reach("source")
        await self._reach("target")
        ends = Ends(self.config.name, self._there.source, self._there.target, self._there.target.clock)
        await check_own(ends, group_of(ends.mirror))
        await check_alone(self._there, ends.clock.wall())
        return await planning(self.config, ends, Lanes()).plan()

    async def status(self) -> list[ProcessStatus]:
        """How each of its processes stands, and of those that died, what nobody else has told since. Raises
        `NotFoundError` when none has ever run.
        """
        await self._check()
        told = newest_words(await read_status(self._there.log, self.config.name))
        if not told and self.config.name not in (await self._ledger(range(SHARDS))).partitions:
            raise self._never_ran()
        return told

    async def pause(self, topic: str) -> None:
        """Have a topic of the source mirrored no further."""
        await self._check_topic(topic)
        await self._orders.pause(topic)

    async def resume(self, topic: str) -> None:
        """Have it mirrored again."""
        await self._check_topic(topic)
        await self._orders.resume(topic)

    async def skip(self, at: TopicPartition, to: int) -> None:
        """Have a partition go on at the source's offset `to`. Raises `OutOfRangeError` if there is none."""
        await self._kept(at)
        await self._reach("source")
        start = (await list_offsets(self._there.source, [at], EARLIEST))[at]
        end = (await list_offsets(self._there.source, [at], LATEST))[at]
        if not start <= to <= end:
            raise OutOfRangeError(*at, to, start, end)
        await self._orders.skip(at, Skip(self._randomness.uid(), to))

    async def translate(self, at: TopicPartition, offset: int, *, back: bool) -> tuple[TopicPartition, int]:
        """Where a reader of a partition whose next offset is `offset` goes on in the copy; `back`: from the
        copy to the source. `at` is always the source's.

        Raises `NotFoundError` for what is not mirrored, `ConflictError` for what is not there yet.
        """
        kept, record = await self._kept(at)
        target = TopicPartition(record.target, at.partition)
        ends = await list_offsets(self._there.target, [target], LATEST)
        offsets = OffsetMap(kept.chunks)
        if back:
            found = offsets.to_source(offset)
            place, beyond = at, offset > ends[target]
        else:
            found = offsets.to_target(offset)
            place, beyond = target, found is not None and found > ends[target]
        if found is None or beyond:
            raise ConflictError(
                f"offset {offset} of {at.topic}/{at.partition} is not mirrored yet; try again in a moment"
            )
        return place, found

    async def rewind(self, group: str) -> dict[TopicPartition, int]:
        """Put a group at the target exactly where it is at the source, also backwards; what was committed.

        Raises `ConflictError` while it is active there, or its offsets are not mirrored yet, `NotFoundError`
        for a group that has no place at the source.
        """
        await self._check()
        ledger = await self._ledger(range(SHARDS))
        if self.config.name not in ledger.partitions:
            raise self._never_ran()
        await self._reach("source")
        kept = ledger.partitions[self.config.name]
        maps = {at: OffsetMap(each.chunks) for at, each in kept.items()}

        def across(topic: str, partition: int, offset: int) -> int | None:
            held = maps.get(TopicPartition(topic, partition))
            return held.to_target(offset) if held else None

        topics = {at.topic: each.record.target for at, each in kept.items() if each.record}
        there = self._there
        groups = Groups(self.config.name, there.source, there.target, lambda _: True, across, across)
        return await groups.rewind(group, topics)

    @property
    def _orders(self) -> Orders:
        return Orders(self._there.log, self.config.name)

    async def _check(self) -> None:
        await self._reach("target")
        there = await self._there.log.topics([MAP.name, ORDERS.name, STATUS.name])
        if len(there) < 3:  # noqa: PLR2004  # all of them
            raise self._never_ran()

    async def _reach(self, which: Literal["source", "target"]) -> None:
        """See `Clusters.why_away`; one that is away is waited for by whoever asks it next."""
        if why := await self._there.why_away(which):
            self._late(why)

    def _never_ran(self) -> NotFoundError:
        return NotFoundError(f"mirror {self.config.name!r} has never run into {self._there.target.address}")

    async def _check_topic(self, topic: str) -> None:
        await self._check()
        if topic not in (copies := await self._copies()).values():
            raise self._not_mirrored(topic, repr(topic), copies)

    async def _kept(self, at: TopicPartition) -> tuple[Kept, PartitionRecord]:
        await self._check()
        partitions = (await self._ledger([shard_of(at)])).partitions.get(self.config.name, {})
        kept = partitions.get(at, Kept())
        if kept.record is None:
            raise self._not_mirrored(at.topic, f"{at.topic}/{at.partition}", await self._copies())
        return kept, kept.record

    async def _copies(self) -> dict[str, str]:
        """The source's topics by the names of their copies."""
        copies = (await self._ledger([COPIES_SHARD])).copies
        return {name: copy.topic for name, copy in copies.items() if copy.mirror == self.config.name}

    def _not_mirrored(self, topic: str, shown: str, copies: Mapping[str, str]) -> NotFoundError:
        original = f"; it is the copy of {copies[topic]!r}: name that" if topic in copies else ""
        return NotFoundError(f"mirror {self.config.name!r} does not mirror {shown}{original}")

    async def _ledger(self, shards: Sequence[int]) -> Ledger:
        return await read_ledger(self._there.target, shards, _CONNECTION)


def newest_words(told: Sequence[ProcessStatus]) -> list[ProcessStatus]:
    """How processes stand, without what others have told since of the same shards: a process that was killed
    takes nothing back, and would be shown for good.
    """
    held: set[int] = set()
    found: list[ProcessStatus] = []
    for each in sorted(told, key=lambda process: process.at, reverse=True):
        if found and each.at < found[0].at - SILENT_SECONDS and held.issuperset(each.shards):
            continue
        ours = [
            one for one in each.partitions if shard_of(TopicPartition(one.topic, one.partition)) not in held
        ]
        found.append(msgspec.structs.replace(each, partitions=tuple(ours)))
        held.update(each.shards)
    return sorted(found, key=lambda process: process.process)


@contextlib.asynccontextmanager
async def mirror_orders(
    config_path: Path, late: Callable[[str], None] = lambda _: None
) -> AsyncGenerator[MirrorOrders]:
    """The mirror of a configuration file, to be asked inside the block; `late` is told why a cluster has to
    be waited for.
    """
    config = load(config_path, MirrorConfig)
    randomness = Randomness()
    async with clusters(config, config_path.parent, SystemClock(), randomness) as there:
        yield MirrorOrders(config, there, randomness, late)
