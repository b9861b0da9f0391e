"""What a mirror tells of itself while it works: counters and times for Prometheus.

Next on the data's way: `status`, which tells how each partition stands.
"""

from dataclasses import dataclass

from prometheus_client import Counter, Histogram

from transom.links.kafka.lane import Sent, Way
from transom.runtime.telemetry import metrics

_MS = 1000

_records = Counter(
    "transom_mirror_records_total", "Records written to copies", ["mirror", "topic"], registry=metrics
)
_bytes = Counter(
    "transom_mirror_bytes_total", "Bytes of batches written to copies", ["mirror", "topic"], registry=metrics
)
_batches = Counter(
    "transom_mirror_batches_total",
    "Batches written to copies: passed on as they were, recoded one by one, or several joined",
    ["mirror", "way"],
    registry=metrics,
)
_latency = Histogram(
    "transom_mirror_latency_seconds",
    "From the time of a batch's newest record to its being in the copy",
    ["mirror"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600),
    registry=metrics,
)


@dataclass(slots=True)
class _Topic:
    """What a topic's copies were given since that was last told."""

    records: int = 0
    bytes: int = 0


class Telling:
    """The counters of one mirror. What is counted with every batch is told to Prometheus by `tell`."""

    def __init__(self, mirror: str) -> None:
        self.mirror = mirror
        self.records = 0
        self.bytes = 0
        """So far."""
        self._topics: dict[str, _Topic] = {}
        self._ways = dict.fromkeys(Way, 0)
        self._latency = _latency.labels(mirror)

    def wrote(self, sent: Sent, wall: float) -> None:
        """A batch is in its copy, at `wall` (seconds since the epoch)."""
        name = sent.lane.source.topic
        topic = self._topics.get(name) or self._topics.setdefault(name, _Topic())
        topic.records += sent.count
        topic.bytes += len(sent.data)
        self._ways[sent.way] += 1
        self._latency.observe(max(0.0, wall - sent.newest_ms / _MS))

    def tell(self) -> None:
        """Tell what was counted since."""
        for name, topic in self._topics.items():
            self.records += topic.records
            self.bytes += topic.bytes
            _records.labels(self.mirror, name).inc(topic.records)
            _bytes.labels(self.mirror, name).inc(topic.bytes)
        for way, count in self._ways.items():
            _batches.labels(self.mirror, way.value).inc(count)
        self._topics.clear()
        self._ways = dict.fromkeys(Way, 0)
