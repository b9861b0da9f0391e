"""A mirror's process: the shards it is given, taken and taken anew, and what runs beside them.

The processes of a mirror are a consumer group of the target on the ledger's topic: who is assigned a
partition of it carries that shard. So Kafka itself says who is there and who takes over, its own tools show
it, and what it says wrongly costs nothing: brokers refuse whoever had a shard before (`shard`).
Next on the data's way: `processes.mirror`.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from transom.links.kafka.fetcher import Fetcher
from transom.links.kafka.lanes import Lanes
from transom.links.kafka.ledger import COPIES_SHARD, MAP_TOPIC, SHARDS
from transom.links.kafka.orders import ORDERS, Orders
from transom.links.kafka.resuming import Policy
from transom.links.kafka.sender import Sender
from transom.links.kafka.shard import Copied, Ends, shard_of, take_shard
from transom.links.kafka.status import STATUS, ProcessStatus, gone_message, partition_status, status_message
from transom.links.kafka.telling import Telling
from transom.logs.kafka_bounds import EARLIEST, list_offsets
from transom.logs.kafka_cluster import TransientError
from transom.logs.kafka_produce import ProducerLostError
from transom.logs.protocol import Log, Topic, TopicPartition
from transom.model.errors import Advice, ForbiddenError, TransomError
from transom.runtime.clock import Clock
from transom.runtime.telemetry import get_logger

log_event = get_logger(__name__)

MAP = Topic(MAP_TOPIC, partitions=SHARDS, compact=True)
SESSION_SECONDS = 6.0

_LOOK_SECONDS = 1.0
_ROUSE_SECONDS = 0.1
_SETTLE_SECONDS = 5.0
_FORGET_ROUNDS = 12
_TELL_SECONDS = 1.0
_LISTEN_SECONDS = 20.0
_LEAVE_SECONDS = 2.0
_TROUBLES_MAX = 20
_BELONGING, _SHARING = "belonging to the group of processes", "taking what it gives"
_LISTENING, _SETTLING = "hearing orders", "keeping what is behind"


class Planned(Protocol):
    """Which topics are mirrored now, with their copies."""

    @property
    def troubles(self) -> Mapping[str, str]:
        """What is not mirrored and why, by topic."""
        ...

    async def wait(self) -> None:
        """Until another look is worth while."""
        ...

    async def look(self, *, change: bool) -> Sequence[Copied]:
        """Look at both clusters, and, to `change`, make copies what they are to be; those that there are.

        Raises what the clusters raise.
        """
        ...


class Carried(Protocol):
    """Consumer groups whose places are carried."""

    @property
    def troubles(self) -> Mapping[str, str]:
        """What could not be carried in the newest round and why, by group."""
        ...

    async def round(
        self, topics: Mapping[str, str], carried: Collection[TopicPartition] | None = None
    ) -> None:
        """Carry what is to be carried now; `topics`: names in the target by names in the source; `carried`:
        which of their partitions this process does.
        """
        ...


def group_of(mirror: str) -> str:
    """The consumer group that its processes are."""
    return f"transom-mirror-{mirror}"


@dataclass(eq=False)
class Mirroring:
    """One process of a mirror. `run` it; `log` is the target's."""

    ends: Ends
    log: Log
    planned: Planned
    policy: Policy
    identity: str
    clock: Clock
    bytes_per_second: float = 0.0
    lanes: Lanes = field(default_factory=Lanes)
    copies: Sequence[Copied] = ()
    troubles: dict[str, str] = field(default_factory=dict[str, str])
    """What this process cannot do now, by what it is about."""
    _began: bool = False
    _outdated: bool = True
    _given: frozenset[int] = frozenset()
    _not_carried: Mapping[str, str] = field(default_factory=dict[str, str])
    _plans: bool = False

    def __post_init__(self) -> None:
        self.orders = Orders(self.log, self.ends.mirror)
        self.telling = Telling(self.ends.mirror)

    async def prepare(self) -> None:
        """Make sure that the target has the mirror's own topics, and that who asks hears of this process.
        Raises what the log raises.
        """
        await self.log.create([MAP, ORDERS, STATUS])
        await self.log.append([status_message(self.ends.mirror, self.status())])
        while await self.orders.read():
            pass

    async def run(self, carried: Carried, every_seconds: float) -> None:
        """Mirror until cancelled; then leave what is carried to others."""
        fetcher = Fetcher(self.lanes, self.ends.source, self.clock, self.bytes_per_second)
        sender = Sender(self.lanes, self.ends.target, self.clock, self.telling)
        try:
            async with asyncio.TaskGroup() as group:
                for work in (
                    fetcher.run(),
                    sender.run(),
                    self._belong(),
                    self._share(),
                    self._listen(),
                    self._watch(),
                    self._rouse(),
                    self._settle(),
                    self._carry(carried, every_seconds),
                    self._tell(),
                ):
                    group.create_task(work)
        finally:
            with contextlib.suppress(ProducerLostError, TransomError, TimeoutError):
                async with asyncio.timeout(_LEAVE_SECONDS):
                    await self._leave()

    def to_target(self, topic: str, partition: int, offset: int) -> int | None:
        """Where a reader of a partition of the source goes on in its copy; None: not known here, or now."""
        lane = self.lanes.find(TopicPartition(topic, partition))
        return lane.to_target(offset) if lane else None

    def to_source(self, topic: str, partition: int, offset: int) -> int | None:
        """Where a reader of the copy of a partition of the source goes on there."""
        lane = self.lanes.find(TopicPartition(topic, partition))
        return lane.to_source(offset) if lane else None

    # --- which shards ---

    async def _belong(self) -> None:
        """Stay in the group, however long it takes to take a shard on a long road."""
        while True:
            with self._troubled(_BELONGING):
                membership = await self.log.join(
                    self._group, self.identity, [MAP_TOPIC], session_seconds=SESSION_SECONDS
                )
                given = frozenset(at.partition for at in membership.assigned)
                for number in set(self.lanes.shards) - given:
                    self.lanes.take_off(number)
                    log_event.info("a shard goes to another process", shard=number)
                if given != self._given:
                    self._given = given
                    self.lanes.ended.set()
            await self.clock.sleep(_LOOK_SECONDS)

    async def _share(self) -> None:
        """Have the shards that the group gives this process, and take anew those that ended."""
        while True:
            self.lanes.ended.clear()
            with self._troubled(_SHARING):
                await self._look()
            await self._pause()

    def _ends_with(self, error: Exception) -> bool:
        """Whether the process is to end. A right that is missing at the start somebody forgot; one that goes
        missing later is told, and waited for.
        """
        if isinstance(error, ForbiddenError):
            return not self._began
        return isinstance(error, TransomError) and error.advice is Advice.CRASH

    async def _pause(self) -> None:
        """A second, or less when a shard is to be taken anew; never less than a moment."""
        until = self.clock.monotonic() + _LOOK_SECONDS
        await self.clock.sleep(_ROUSE_SECONDS)
        while self.clock.monotonic() < until and not self.lanes.ended.is_set():
            await self.clock.sleep(_ROUSE_SECONDS)

    async def _look(self) -> None:
        if COPIES_SHARD in self._given - set(self.lanes.shards):
            await self._take(COPIES_SHARD)  # under whose fence is noted whose copies topics are
        stale = await self._plan()
        ended = {
            number
            for number, shard in self.lanes.shards.items()
            if any(lane.is_ended for lane in shard.lanes.values())
        }
        wanted = sorted(((self._given - set(self.lanes.shards)) | stale | ended) & self._given)
        results = await asyncio.gather(*map(self._take, wanted), return_exceptions=True)
        for failed in filter(None, results):
            raise failed

    async def _plan(self) -> set[int]:
        """Look at the topics when it is time; which shards have others now."""
        plans = COPIES_SHARD in self._given
        stale = any(lane.stale for lane in self.lanes)
        if not self._outdated and plans == self._plans and not stale:
            return set()
        copies = await self.planned.look(change=plans)
        self._outdated, self._plans = False, plans
        changed = set(copies) ^ set(self.copies)
        self.copies = copies
        return {
            shard_of(TopicPartition(copy.source, number))
            for copy in changed
            for number in range(copy.partitions)
        }

    async def _take(self, number: int) -> None:
        self.lanes.take_off(number)
        shard = await take_shard(number, self.ends, self.copies, self.policy, self.orders.skips)
        for lane in shard.lanes.values():
            lane.paused = lane.source.topic in self.orders.paused
            if lane.stopped:
                log_event.error(
                    "a partition goes no further",
                    topic=lane.source.topic,
                    partition=lane.source.partition,
                    offset=lane.stopped.offset,
                    why=lane.stopped.why,
                )
        self._began = True
        if number in self._given:
            self.lanes.put(shard)
            log_event.info("took a shard", shard=number, partitions=len(shard.lanes))

    @property
    def _group(self) -> str:
        return group_of(self.ends.mirror)

    # --- beside them ---

    async def _watch(self) -> None:
        """Have topics looked at again when they have changed, or after a while."""
        while True:
            await self.clock.sleep(_ROUSE_SECONDS)
            if not self._outdated:
                await self.planned.wait()
                self._outdated = True
                self.lanes.ended.set()

    async def _listen(self) -> None:
        """Hear what people order."""
        while True:
            try:
                heard = await self.orders.read(_LISTEN_SECONDS)
                self.troubles.pop(_LISTENING, None)
            except TransomError as error:
                self._trouble(_LISTENING, error)
                await self.clock.sleep(_LOOK_SECONDS)
                continue
            if heard:
                self._obey()

    def _obey(self) -> None:
        for number, shard in self.lanes.shards.items():
            for at, lane in shard.lanes.items():
                lane.paused = at.topic in self.orders.paused
                if lane.stopped and at.topic in self.orders.resumed:
                    lane.stale = "told to try again"
                    self.lanes.ended.set()
                skip = self.orders.skips.get(at)
                if skip is not None and skip.id != shard.records[at].skipped:
                    lane.stale = f"told to go on at offset {skip.to}"
                    log_event.info(
                        "skipping", shard=number, topic=at.topic, partition=at.partition, to=skip.to
                    )
                    self.lanes.ended.set()
        self.orders.resumed.clear()
        self.lanes.wake()

    async def _rouse(self) -> None:
        """Have those who rest looked at again."""
        while True:
            await self.clock.sleep(_ROUSE_SECONDS)
            if any(lane.rest_until for lane in self.lanes):
                self.lanes.wake()

    async def _settle(self) -> None:
        """Keep what is behind us, and seldom forget of maps what the copies hold no more."""
        for number in itertools.count(1):
            await self.clock.sleep(_SETTLE_SECONDS)
            for lane in self.lanes:
                lane.settle()
                if lane.deletes.outdated:
                    lane.note()
            self.lanes.unkept.set()
            if number % _FORGET_ROUNDS:
                continue
            try:
                starts = await list_offsets(self.ends.target, [lane.target for lane in self.lanes], EARLIEST)
                for shard in list(self.lanes.shards.values()):
                    await shard.forget(starts)
            except (TransomError, ProducerLostError) as error:
                self._trouble(_SETTLING, error)
            else:
                self.troubles.pop(_SETTLING, None)

    async def _carry(self, carried: Carried, every_seconds: float) -> None:
        """Carry consumer groups."""
        while True:
            await self.clock.sleep(every_seconds)
            if self.lanes.shards:
                ours = [lane.source for lane in self.lanes]
                await carried.round({copy.source: copy.target for copy in self.copies}, ours)
            self._not_carried = carried.troubles if self.lanes.shards else {}

    async def _tell(self) -> None:
        """Say how this process stands, every second when something happens."""
        before, at = (0, 0), self.clock.monotonic()
        while True:
            await self.clock.sleep(_TELL_SECONDS)
            self.telling.tell()
            now, counted = self.clock.monotonic(), (self.telling.records, self.telling.bytes)
            rates = [(new - old) / (now - at) for new, old in zip(counted, before, strict=True)]
            before, at = counted, now
            status = self.status(rates[0], rates[1])
            with contextlib.suppress(TransomError):  # which the other workers tell
                await self.log.append([status_message(self.ends.mirror, status)])

    def status(self, records_per_second: float = 0.0, bytes_per_second: float = 0.0) -> ProcessStatus:
        """How this process stands."""
        wall = self.clock.wall()
        troubles = [
            *(cluster.trouble for cluster in (self.ends.source, self.ends.target) if cluster.trouble),
            *self.troubles.values(),
            *(f"{what}: {why}" for what, why in self.planned.troubles.items()),
            *(f"{what}: {why}" for what, why in self._not_carried.items()),
        ]
        return ProcessStatus(
            self.identity,
            wall,
            tuple(sorted(self.lanes.shards)),
            round(records_per_second, 1),
            round(bytes_per_second, 1),
            tuple(troubles[:_TROUBLES_MAX]),
            self.ends.source.id,
            tuple(
                partition_status(lane, shard.records[at].gaps, wall)
                for shard in self.lanes.shards.values()
                for at, lane in shard.lanes.items()
            ),
        )

    async def _leave(self) -> None:
        for lane in self.lanes:
            lane.settle()
        for shard in self.lanes.shards.values():
            await shard.keep()
        await self.log.append([gone_message(self.ends.mirror, self.identity)])

    @contextlib.contextmanager
    def _troubled(self, about: str) -> Generator[None]:
        """Tell of what fails and is tried again; what trying again does not mend goes on."""
        try:
            yield
        except (TransomError, TransientError, ProducerLostError) as error:
            if self._ends_with(error):
                raise
            self._trouble(about, error)
        else:
            self.troubles.pop(about, None)

    def _trouble(self, about: str, error: Exception) -> None:
        told = f"{about}: {error}"
        if self.troubles.get(about) != told:
            log_event.warning("cannot go on now", about=about, error=str(error))
        self.troubles[about] = told
