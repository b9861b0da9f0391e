"""How a mirror stands, for people and for Prometheus: each topic's lag, what has stopped, and why.

Every process writes what it carries to a compacted topic of the target; whoever asks reads them all, so no
process needs to be reached. A record that is old says that its process is gone.
Next on the data's way: `cli.mirror`.
"""

from collections.abc import Iterable, Iterator

import msgspec
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from transom.links.kafka.lane import Lane
from transom.links.kafka.lanes import Lanes
from transom.links.kafka.ledger import Gap
from transom.logs.protocol import Log, Message, Topic, TopicPartition
from transom.model.errors import UNREADABLE, OutOfRangeError
from transom.runtime.clock import Clock

STATUS = Topic("transom-mirror-status", compact=True)

_AT = TopicPartition(STATUS.name, 0)
_MS = 1000


class PartitionStatus(msgspec.Struct, frozen=True):
    """A partition of the source: where it ends and how far it is in the copy (offsets of the source), how
    many are missing, how old the oldest of these is (seconds, about), and what is wrong.
    """

    topic: str
    partition: int
    target: str
    end: int
    done: int
    lag: int
    lag_seconds: float
    state: str
    why: str = ""
    gaps: tuple[Gap, ...] = ()


class ProcessStatus(msgspec.Struct, frozen=True):
    """What one process carries; `at` in seconds since the epoch, rates of the last seconds; `source_id` is
    the source's cluster, "" while that was not reached.
    """

    process: str
    at: float
    shards: tuple[int, ...] = ()
    records_per_second: float = 0.0
    bytes_per_second: float = 0.0
    troubles: tuple[str, ...] = ()
    source_id: str = ""
    partitions: tuple[PartitionStatus, ...] = ()


def partition_status(lane: Lane, gaps: tuple[Gap, ...], wall: float) -> PartitionStatus:
    """How a lane stands at `wall` (seconds since the epoch)."""
    why = lane.lost or lane.stale or lane.trouble
    state = "waiting" if why else "mirroring"
    if lane.stopped:
        state, why = "stopped", f"at offset {lane.stopped.offset}: {lane.stopped.why}"
    elif lane.paused:
        state, why = "paused", ""
    if lane.strangers:
        why = f"{why + '; ' if why else ''}{lane.strangers} records in the copy were written by somebody else"
    late = max(0.0, wall - lane.newest_ms / _MS) if lane.lag and lane.newest_ms else 0.0
    return PartitionStatus(
        lane.source.topic,
        lane.source.partition,
        lane.target.topic,
        lane.high,
        lane.done,
        lane.lag,
        round(late, 3),
        state,
        why,
        gaps,
    )


def status_message(mirror: str, status: ProcessStatus) -> Message:
    """The message that tells how a process stands."""
    return Message(STATUS.name, f"{mirror}/{status.process}".encode(), msgspec.json.encode(status))


def gone_message(mirror: str, process: str) -> Message:
    """The message that forgets a process."""
    return Message(STATUS.name, f"{mirror}/{process}".encode(), None)


async def read_status(log: Log, mirror: str) -> list[ProcessStatus]:
    """The newest words of each process of a mirror. Raises what the log raises."""
    found: dict[bytes, ProcessStatus] = {}
    offset = (await log.bounds(STATUS.name))[0].start
    while True:
        try:
            entries = await log.read({_AT: offset})
        except OutOfRangeError as gap:
            offset = gap.start
            continue
        if not entries:
            return [found[key] for key in sorted(found)]
        offset = entries[-1].offset + 1
        for entry in entries:
            key = entry.key or b""
            if not key.startswith(f"{mirror}/".encode()):
                continue
            found.pop(key, None)
            try:
                if entry.value:
                    found[key] = msgspec.json.decode(entry.value, type=ProcessStatus)
            except UNREADABLE:
                continue  # of another release


class LaneGauges(Collector):
    """Each partition's lag and position, looked up when Prometheus asks."""

    def __init__(self, mirror: str, lanes: Lanes, clock: Clock) -> None:
        self._mirror, self._lanes, self._clock = mirror, lanes, clock

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """See `Collector`."""
        wall = self._clock.wall()
        told = [(lane, partition_status(lane, (), wall)) for lane in self._lanes]
        yield self._family("transom_mirror_lag_records", "Offsets not in the copy yet", told, "lag")
        yield self._family(
            "transom_mirror_lag_seconds", "Age of the oldest missing record", told, "lag_seconds"
        )
        yield self._family("transom_mirror_source_offset", "How far the source is mirrored", told, "done")
        stopped = GaugeMetricFamily(
            "transom_mirror_stopped", "Whether a partition goes no further", labels=_LABELS
        )
        for _, each in told:
            stopped.add_metric(self._labels(each), float(each.state == "stopped"))
        yield stopped

    def _family(
        self, name: str, about: str, told: Iterable[tuple[Lane, PartitionStatus]], what: str
    ) -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, about, labels=_LABELS)
        for _, each in told:
            family.add_metric(self._labels(each), float(getattr(each, what)))
        return family

    def _labels(self, each: PartitionStatus) -> list[str]:
        return [self._mirror, each.topic, str(each.partition)]


_LABELS = ["mirror", "topic", "partition"]
