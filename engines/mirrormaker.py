"""MirrorMaker 2 between two clusters, as Kafka's documentation sets it up: the peer of transom's own mirror.

    with MirrorMaker("eu", source.bootstrap, "us", target.bootstrap, "orders") as mirrormaker:
        ...                                   # what is in `orders` comes to be in `eu.orders` at the target

Dedicated mode (KIP-382), one process, at least once as by default (`exactly.once.source.support` is off,
which costs it less than on). It is run for its benefit: Java as Kafka's own scripts run it, unlike the
brokers beside it (all compilers, G1, and the heap of `connect-mirror-maker.sh`, 256 MiB to 2 GiB), and with
the tuning that is published:

- for high volumes, Strimzi's "Configuring MirrorMaker 2 for high-volume messages": batches of 320 KiB that
  wait up to 100 ms, fetches of 50 MiB and 1 MiB a partition, two tasks;
- for groups, KIP-545 with every interval at its shortest: 1 s, by default 60 s and 600 s.

Next on the data's way: `benchmarks/mirror_sides.py`.
"""

import shutil
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path

from engines import jars
from engines.process import Engine, EngineError, GuardedProcess

UP = " replicating "
"""What one of its tasks says once it is about to read its partitions."""
STOP_SECONDS = 20.0
_HEAP_MEBIBYTES = 2048
_JAVA = (
    "-Xms256m",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-XX:MaxInlineLevel=15",
)
"""`kafka-run-class.sh`."""


class MirrorMaker(Engine):
    """Mirrors the topics that are there when it starts and whose whole names match a regular expression."""

    def __init__(
        self,
        source: str,
        source_bootstrap: str,
        target: str,
        target_bootstrap: str,
        topics: str,
        *,
        settings: Mapping[str, str | int] | None = None,
    ) -> None:
        """Nothing runs yet. `source` and `target` are the clusters' names: copies are called
        `<source>.<topic>`. `settings`: properties over those of `_TOLD`, named as there.
        """
        self._names = source, target
        self._bootstrap = source_bootstrap, target_bootstrap
        self._topics, self._settings = topics, dict(settings or {})
        self._home: Path | None = None
        self._process: GuardedProcess | None = None

    @property
    def process(self) -> GuardedProcess:
        """What runs, with the processor time and the memory that it takes."""
        if self._process is None:
            raise EngineError("this MirrorMaker was not started, or was closed")
        return self._process

    def prepare(self) -> None:
        """Write its properties."""
        jars.jars_of(jars.NEWEST)
        self._home = Path(tempfile.mkdtemp(prefix="transom-mirrormaker-"))
        lines = [f"{name}={value}\n" for name, value in self._properties().items()]
        (self._home / "mm2.properties").write_text("".join(lines), encoding="utf-8")
        self._process = GuardedProcess("MirrorMaker", self._home / "mirrormaker.log", home=self._home)

    def start(self) -> None:
        """Start it, and wait until it reads. There must be a topic for it."""
        process = self.process
        process.close()
        java = jars.java_command(jars.NEWEST, _HEAP_MEBIBYTES, options=_JAVA)
        file = str(process.log.with_name("mm2.properties"))
        process.launch([*java, "org.apache.kafka.connect.mirror.MirrorMaker", file])
        process.ready(UP)

    def stop(self) -> None:
        """An orderly end: it remembers how far it came, and leaves its group."""
        self.process.stop(signal.SIGTERM, STOP_SECONDS)

    def kill(self) -> None:
        """SIGKILL: it remembers how far it was when it last wrote that down."""
        self.process.kill()

    def close(self) -> None:
        """End it quickly, and remove its folder; its topics stay in both clusters."""
        if self._process is not None:
            self._process.kill()
            self._process.close()
            self._process = None
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    def _properties(self) -> dict[str, str | int]:
        source, target = self._names
        told = dict(_TOLD) | {
            "clusters": f"{source},{target}",
            "source.bootstrap.servers": self._bootstrap[0],
            "target.bootstrap.servers": self._bootstrap[1],
            "flow.topics": self._topics,
        }
        prefixes = {
            "source.": source,
            "target.": target,
            "flow.": f"{source}->{target}",
            "back.": f"{target}->{source}",
        }
        written: dict[str, str | int] = {}
        for name, value in (told | self._settings).items():
            short, dot, rest = name.partition(".")
            written[f"{prefixes[short + dot]}.{rest}" if short + dot in prefixes else name] = value
        return written


_TOLD: Mapping[str, str | int] = {
    "flow.enabled": "true",
    # By default it makes heartbeats in both directions, for which it runs a second worker.
    "back.enabled": "false",
    "back.emit.heartbeats.enabled": "false",
    "flow.tasks.max": 2,
    # It starts in 5 s, not 10.
    "target.plugin.discovery": "service_load",
    # Clusters here have one broker, without rights to be carried over.
    "flow.sync.topic.acls.enabled": "false",
    "replication.factor": 1,
    "checkpoints.topic.replication.factor": 1,
    "heartbeats.topic.replication.factor": 1,
    "offset-syncs.topic.replication.factor": 1,
    "config.storage.replication.factor": 1,
    "offset.storage.replication.factor": 1,
    "status.storage.replication.factor": 1,
    # 25 and 5 partitions by default, which take small brokers seconds to make.
    "offset.storage.partitions": 1,
    "status.storage.partitions": 1,
    "target.producer.batch.size": 327_680,
    "target.producer.linger.ms": 100,
    "flow.consumer.fetch.max.bytes": 52_428_800,
    "flow.consumer.max.partition.fetch.bytes": 1_048_576,
    "flow.consumer.max.poll.records": 500,
    "flow.sync.group.offsets.enabled": "true",
    "flow.sync.group.offsets.interval.seconds": 1,
    "flow.emit.checkpoints.interval.seconds": 1,
    "flow.refresh.groups.interval.seconds": 1,
}
"""What it is told. `source.` and `target.` stand for a cluster's name, `flow.` for the way between them,
`back.` for the way back.
"""
