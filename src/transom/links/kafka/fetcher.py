"""Fetching for all lanes: of each broker of the source two connections are read.

One waits for what is new, the other brings what is known to be there, so no partition waits for another's
silence. What is fetched and not yet written is bounded, whatever the backlog.
Next on the data's way: `sender`.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from uuid import UUID

from transom.links.kafka.fetching import Fetched, Wanted, fetch
from transom.links.kafka.lane import Lane
from transom.links.kafka.lanes import LANE_BYTES_MAX, Lanes, leader_of
from transom.logs import kafka_api as api
from transom.logs.kafka_bounds import LATEST, list_offsets
from transom.logs.kafka_cluster import KafkaCluster, TransientError
from transom.logs.protocol import TopicPartition
from transom.model.errors import TransomError
from transom.runtime.clock import Clock
from transom.runtime.steps import step

HELD_BYTES_MAX = 32 << 20
FETCH_BYTES = 4 << 20

_PARTITION_BYTES = 1 << 20
_WAIT_MS = 500
_SHORT_WAIT_MS = 20
_REST_SECONDS = 0.2
_LOOK_SECONDS = 5.0
_NEW, _KNOWN = 0, 1  # what a connection brings
_CONNECTIONS = 1 << 17  # apart from the lanes of others
_STALE = {
    api.OFFSET_OUT_OF_RANGE: "the source does not have what comes next",
    api.UNKNOWN_TOPIC_ID: "the source's topic is gone, or was made anew",
    api.INCONSISTENT_TOPIC_ID: "the source's topic was made anew",
}


class Fetcher:
    """Fetches for `lanes` from `source`, `bytes_per_second` at most (0: as fast as it goes)."""

    def __init__(self, lanes: Lanes, source: KafkaCluster, clock: Clock, bytes_per_second: float) -> None:
        self._lanes, self._source, self._clock = lanes, source, clock
        self._bytes_per_second = bytes_per_second
        self._open_at = 0.0
        self._busy: set[tuple[int, int]] = set()

    async def run(self) -> None:
        """Fetch, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look())
            while True:
                self._lanes.room.clear()
                await self._clock.sleep(max(0.0, self._open_at - self._clock.monotonic()))
                for node, lanes in (await self._to_fetch()).items():
                    self._begin(group, node, lanes)
                await self._lanes.room.wait()

    async def _look(self) -> None:
        """See now and then how far the source is where nothing is fetched, or its lag would stand still."""
        while True:
            await self._clock.sleep(_LOOK_SECONDS)
            idle: dict[str, list[Lane]] = {}
            for lane in self._lanes:
                if lane.paused or lane.stopped:
                    idle.setdefault(lane.source.topic, []).append(lane)
            for lanes in idle.values():
                with contextlib.suppress(TransomError):  # the topic is gone, say, which others tell
                    ends = await list_offsets(self._source, [lane.source for lane in lanes], LATEST)
                    for lane in lanes:
                        lane.high = ends[lane.source]

    async def _to_fetch(self) -> dict[int, list[Lane]]:
        """The lanes that may be fetched, by the broker that leads them."""
        found: dict[int, list[Lane]] = {}
        if self._lanes.bytes_held + (1 + len(self._busy)) * FETCH_BYTES > HELD_BYTES_MAX:
            return found
        now = self._clock.monotonic()
        for lane in self._lanes:
            if lane.fetching or lane.paused or lane.stopped or lane.is_ended or lane.rest_until > now:
                continue
            if lane.bytes_held > LANE_BYTES_MAX:
                continue
            leader, why = await leader_of(self._source, lane.source)
            if leader < 0:
                self._rest(lane, why or "it has no leader at the source")
            else:
                found.setdefault(leader, []).append(lane)
        return found

    def _begin(self, group: asyncio.TaskGroup, node: int, lanes: Sequence[Lane]) -> None:
        """Ask for what is known to be there over one connection, for what is new over the other."""
        known = [lane for lane in lanes if lane.fetch_at < lane.stable]
        new = [lane for lane in lanes if lane.fetch_at >= lane.stable]
        if (node, _NEW) in self._busy:
            known, new = [*known, *new], []  # for a short time, until the other is back
        for kind, chosen in ((_KNOWN, known), (_NEW, new)):
            if chosen and (node, kind) not in self._busy:
                self._busy.add((node, kind))
                for lane in chosen:
                    lane.fetching = True
                group.create_task(self._fetch(node, kind, chosen))

    async def _fetch(self, node: int, kind: int, lanes: Sequence[Lane]) -> None:
        by_place = {(UUID(lane.source_id).bytes, lane.source.partition): lane for lane in lanes}
        wanted = [
            Wanted(*at, lane.fetch_at, _PARTITION_BYTES, lane.epochs.before(lane.fetch_at))
            for at, lane in by_place.items()
        ]
        asked_at = self._clock.wall()
        try:
            told = await fetch(
                self._source,
                node,
                wanted,
                wait_ms=_WAIT_MS if kind == _NEW else _SHORT_WAIT_MS,
                bytes_max=FETCH_BYTES,
                lane=_CONNECTIONS + kind,
            )
        except (TransientError, TransomError) as error:
            for lane in lanes:
                self._rest(lane, str(error))
        else:
            step("carry.fetched")
            self._digest(by_place, told, asked_at)
        finally:
            self._busy.discard((node, kind))
            for lane in lanes:
                lane.fetching = False
            self._lanes.wake()

    def _digest(
        self, by_place: Mapping[tuple[bytes, int], Lane], told: Sequence[Fetched], asked_at: float
    ) -> None:
        size = 0
        for each in told:
            lane = by_place[each.topic_id, each.partition]
            if each.error:
                self._refused(lane, each.error)
                continue
            if each.diverged:
                self._stale(lane, "the source was truncated, and written anew")
                continue
            lane.trouble = ""
            lane.start, lane.stable, lane.high = each.start, each.stable, each.high
            if lane.deletes.missed(each.records, lane.fetch_at, asked_at, self._clock.wall()):
                lane.note()
            lane.fetched(each.records, each.aborted)
            if lane.fetch_at >= lane.stable:
                lane.deletes.read_all(asked_at, lane.fetch_at, lane.done)
            size += len(each.records)
        if self._bytes_per_second:
            began = max(self._open_at, self._clock.monotonic())
            self._open_at = began + size / self._bytes_per_second

    def _refused(self, lane: Lane, code: int) -> None:
        if code in _STALE:
            self._stale(lane, _STALE[code])
            return
        self._source.forget_layouts()
        self._rest(lane, api.code_name(code))

    def _stale(self, lane: Lane, why: str) -> None:
        """Where it goes on must be looked at anew."""
        lane.stale = why
        self._lanes.ended.set()

    def _rest(self, lane: Lane, trouble: str) -> None:
        """Ask no more for a moment."""
        lane.trouble = f"{_named(lane.source)} cannot be fetched: {trouble}"
        lane.rest_until = self._clock.monotonic() + _REST_SECONDS


def _named(at: TopicPartition) -> str:
    return f"{at.topic}/{at.partition}"
