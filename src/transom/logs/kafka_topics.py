"""Topics of a Kafka cluster: created at once as they are meant to be kept, compared, described, truncated.

Next on the data's way: `kafka`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from aiokafka.protocol.admin import (
    CreatePartitionsRequest,
    CreateTopicsRequest,
    DeleteRecordsRequest,
    DescribeConfigsRequest,
)

from transom.logs import kafka_api as api
from transom.logs import rules
from transom.logs.kafka_bounds import bounds
from transom.logs.kafka_cluster import KafkaCluster, TransientError
from transom.logs.protocol import SECOND, Topic, TopicInfo, TopicPartition
from transom.model.errors import InvalidError, Problem

_TIMEOUT_MS = 10_000
_TOPIC = 2  # DescribeConfigs' number for a topic
_REPLICAS = 3
_FOR_EVER = "-1"
_DAY_MS = 86_400_000
_KEPT = ("cleanup.policy", "retention.ms", "retention.bytes", "delete.retention.ms")


def wanted_configs(topic: Topic) -> dict[str, str]:
    """How Kafka is told to keep `topic`.

    An entry of 1 MiB fits into a batch; times are the writer's own, however far ahead (Kafka 4 refuses an
    hour). What is compacted has small segments: the newest is never compacted, and new readers read it all.
    """
    configs = {
        "cleanup.policy": "compact" if topic.compact else "delete",
        "max.message.bytes": str(2 * rules.MEBIBYTE),
        "message.timestamp.type": "CreateTime",
        "message.timestamp.after.max.ms": str((1 << 63) - 1),
    }
    if topic.compact:
        configs["delete.retention.ms"] = str(rules.retention_ms(topic))
        configs["segment.bytes"] = str(64 * rules.MEBIBYTE)
    else:
        kept = rules.retention_ms(topic)
        configs["retention.ms"] = _FOR_EVER if kept is None else str(kept)
        configs["retention.bytes"] = _FOR_EVER
    return configs


def check_kept(wanted: Topic, partitions: int, held: Mapping[str, str]) -> None:
    """Raises `InvalidError` naming each setting to change when a topic is kept otherwise than `wanted`."""
    problems: list[Problem] = []
    if wanted.partitions < partitions:
        problems.append(Problem("partitions", f"it has {partitions}; they cannot become fewer"))
    configs = wanted_configs(wanted)
    problems.extend(
        Problem(name, f"is {held.get(name)}; set it to {configs[name]} (kafka-configs.sh --alter)")
        for name in _KEPT
        if name in configs and held.get(name) != configs[name]
    )
    if problems:
        raise InvalidError(f"topic {wanted.name!r}", problems)


def kept_as(name: str, partitions: int, held: Mapping[str, str]) -> Topic:
    """The declaration that a topic's settings stand for."""
    compact = "compact" in held.get("cleanup.policy", "")
    kept_ms = int(held.get("delete.retention.ms" if compact else "retention.ms", _FOR_EVER))
    if kept_ms < 0 or (compact and kept_ms == _DAY_MS):
        return Topic(name, partitions, compact)
    return Topic(name, partitions, compact, kept_ms // SECOND)


class KafkaTopics:
    """The topics of `cluster`."""

    def __init__(self, cluster: KafkaCluster) -> None:
        self._cluster = cluster
        self._kept: dict[str, Topic] = {}
        """By topic id; how a topic is kept is fixed when it is created, and readers ask again and again."""

    async def create(self, topics: Sequence[Topic]) -> None:
        """See `Log.create`."""
        rules.check_topics(topics)
        there = await self._cluster.layouts([topic.name for topic in topics])
        held = await self._configs(list(there))
        for topic in topics:
            if topic.name in there:
                check_kept(topic, len(there[topic.name].leaders), held[topic.name])
        missing = [topic for topic in topics if topic.name not in there]
        grown = [
            topic
            for topic in topics
            if topic.name in there and topic.partitions > len(there[topic.name].leaders)
        ]
        if missing:
            await self._cluster.retrying("create topics", lambda: self._create(missing))
        if grown:
            await self._cluster.retrying("add partitions", lambda: self._grow(grown))
        if missing or grown:
            await self._cluster.retrying("create topics", lambda: self._led([*missing, *grown]))

    async def infos(self, names: Collection[str] | None) -> dict[str, TopicInfo]:
        """See `Log.topics`; those that are Kafka's own are left out."""
        found = await self._cluster.layouts(names)
        there = {name: layout for name, layout in found.items() if not layout.internal}
        unknown = [name for name, layout in there.items() if layout.topic_id not in self._kept]
        configs = await self._configs(unknown)
        kept = {
            layout.topic_id: kept_as(name, len(layout.leaders), configs[name])
            if name in configs
            else msgspec.structs.replace(self._kept[layout.topic_id], partitions=len(layout.leaders))
            for name, layout in there.items()
        }
        self._kept = kept if names is None else self._kept | kept
        return {
            name: TopicInfo(self._kept[layout.topic_id], layout.topic_id) for name, layout in there.items()
        }

    async def truncate(self, topic: str, partition: int, before: int) -> None:
        """See `Log.truncate`."""
        at = TopicPartition(topic, partition)
        partitions = len((await self._cluster.layout(topic)).leaders)
        rules.check_partition(Topic(topic, partitions), partition)
        held = (await bounds(self._cluster, topic))[partition]
        rules.check_truncation(at, before, held.start, held.end)
        if before <= held.start:
            return

        async def attempt() -> None:
            leader = await self._cluster.leader(topic, partition)
            request = DeleteRecordsRequest([(topic, [(partition, before)])], _TIMEOUT_MS)
            answer = await self._cluster.ask(leader, request)
            code = answer.topics[0][1][0][2]
            # Out of range: somebody else truncated further meanwhile, and nothing is left to do.
            if code != api.OFFSET_OUT_OF_RANGE:
                self._cluster.check(code, f"topic {topic!r}")

        await self._cluster.retrying(f"truncate {topic}", attempt)

    async def _create(self, topics: Sequence[Topic]) -> None:
        replicas = max(1, min(_REPLICAS, self._cluster.brokers))
        asked: list[Any] = []
        for topic in topics:
            configs = wanted_configs(topic)
            if replicas == _REPLICAS:
                configs["min.insync.replicas"] = "2"
            asked.append((topic.name, topic.partitions, replicas, [], list(configs.items())))
        answer = await self._cluster.ask(None, CreateTopicsRequest(asked, _TIMEOUT_MS, validate_only=False))
        for name, code, message in answer.topic_errors:
            # Made by somebody else, or by an attempt whose answer was lost.
            if code != api.TOPIC_EXISTS:
                self._cluster.check_topic(code, name, message, "Create")

    async def _grow(self, topics: Sequence[Topic]) -> None:
        asked: list[Any] = [(topic.name, (topic.partitions, None)) for topic in topics]
        answer = await self._cluster.ask(
            None, CreatePartitionsRequest(asked, _TIMEOUT_MS, validate_only=False)
        )
        for name, code, message in answer.topic_errors:
            there = (await self._cluster.layouts([name]))[name]
            if any(t.name == name and t.partitions > len(there.leaders) for t in topics):
                self._cluster.check_topic(code, name, message, "Alter")

    async def _led(self, topics: Sequence[Topic]) -> None:
        """Raises `TransientError` until every partition of `topics` has a leader that brokers know of."""
        there = await self._cluster.layouts([topic.name for topic in topics])
        for topic in topics:
            layout = there.get(topic.name)
            if (
                layout is None
                or len(layout.leaders) < topic.partitions
                or any(leader < 0 for leader in layout.leaders.values())
            ):
                raise TransientError(f"topic {topic.name!r} has no leader yet", error="no leader")

    async def _configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        if not names:
            return {}

        async def attempt() -> dict[str, dict[str, str]]:
            asked = [(_TOPIC, name, list(_KEPT)) for name in names]
            answer = await self._cluster.ask(None, DescribeConfigsRequest(asked))
            held: dict[str, dict[str, str]] = {}
            for code, message, _, name, entries in answer.resources:
                self._cluster.check_topic(code, name, message, "DescribeConfigs")
                held[name] = {entry[0]: entry[1] for entry in entries}
            return held

        return await self._cluster.retrying("say how topics are kept", attempt)
