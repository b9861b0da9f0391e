"""What a mirror tells of itself while it works: counters and times for Prometheus.

Next on the data's way: `status`, which tells how each partition stands.
"""

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


class Telling:
    """The counters of one mirror."""

    def __init__(self, mirror: str) -> None:
        self.mirror = mirror
        self.counted = (0, 0)
        """Records and bytes, so far."""
        self._latency = _latency.labels(mirror)
        self._topics: dict[str, tuple[Counter, Counter]] = {}
        self._ways = {way: _batches.labels(mirror, way.value) for way in Way}

    def wrote(self, sent: Sent, wall: float) -> None:
        """A batch is in its copy, at `wall` (seconds since the epoch)."""
        topic = sent.lane.source.topic
        count = sent.count
        self.counted = (self.counted[0] + count, self.counted[1] + len(sent.data))
        if topic not in self._topics:  # looking a label up takes longer than all the rest here
            labels = (self.mirror, topic)
            self._topics[topic] = (_records.labels(*labels), _bytes.labels(*labels))
        records, size = self._topics[topic]
        records.inc(count)
        size.inc(len(sent.data))
        self._ways[sent.way].inc()
        self._latency.observe(max(0.0, wall - sent.newest_ms / _MS))
