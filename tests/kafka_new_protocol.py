"""A member of a consumer group by Kafka's new protocol (KIP-848), as far as tests need one.

aiokafka knows the classic protocol alone.
"""

import contextlib
from collections.abc import AsyncIterator
from typing import Any, ClassVar

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    CompactArray,
    CompactString,
    Int8,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

from transom.logs.kafka_cluster import KafkaCluster

TEXT = CompactString("utf-8")
JOINS, LEAVES = 0, -1


class HeartbeatResponse(Response):
    API_KEY = 68
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("error_message", TEXT),
        ("member_id", TEXT),
        ("epoch", Int32),
        # What follows, the assignment, no test needs.
    )


class HeartbeatRequestV0(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 68
    API_VERSION = 0
    RESPONSE_TYPE = HeartbeatResponse
    SCHEMA = Schema(
        ("group", TEXT),
        ("member_id", TEXT),
        ("epoch", Int32),
        ("instance", TEXT),
        ("rack", TEXT),
        ("rebalance_timeout_ms", Int32),
        ("topics", CompactArray(TEXT)),
        ("assignor", TEXT),
        ("owned", CompactArray(Int8)),
        ("tags", TaggedFields),
    )


class Heartbeat(Request[HeartbeatRequestV0]):
    API_KEY: ClassVar[int] = 68

    def __init__(self, group: str, member: str, epoch: int, topics: list[str]) -> None:
        self._given = (group, member, epoch, topics)

    def build(self, request_struct_class: type[HeartbeatRequestV0]) -> HeartbeatRequestV0:
        group, member, epoch, topics = self._given
        owned: list[int] | None = [] if epoch == JOINS else None
        return request_struct_class(group, member, epoch, None, None, 10_000, topics, None, owned, {})


class CommitResponse(Response):
    API_KEY = 8
    API_VERSION = 9
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic", TEXT),
                (
                    "partitions",
                    CompactArray(("partition", Int32), ("error_code", Int16), ("tags", TaggedFields)),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class CommitRequestV9(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 8
    API_VERSION = 9
    RESPONSE_TYPE = CommitResponse
    SCHEMA = Schema(
        ("group", TEXT),
        ("epoch", Int32),
        ("member_id", TEXT),
        ("instance", TEXT),
        (
            "topics",
            CompactArray(
                ("topic", TEXT),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", TEXT),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class Commit(Request[CommitRequestV9]):
    API_KEY: ClassVar[int] = 8

    def __init__(self, group: str, member: str, epoch: int, topic: str, offset: int) -> None:
        self._given = (group, member, epoch, topic, offset)

    def build(self, request_struct_class: type[CommitRequestV9]) -> CommitRequestV9:
        group, member, epoch, topic, offset = self._given
        topics = [(topic, [(0, offset, -1, "", {})], {})]
        return request_struct_class(group, epoch, member, None, topics, {})


class NewMember:
    """The one member of a group; it commits for partition 0 of its topic."""

    def __init__(self, cluster: KafkaCluster, group: str, topic: str) -> None:
        self._cluster, self._group, self._topic = cluster, group, topic
        self._member, self._epoch = "", JOINS

    async def beat(self, epoch: int) -> None:
        """Join, or leave."""

        async def attempt() -> Any:
            node = await self._cluster.group_coordinator(self._group)
            answer = await self._cluster.ask(node, Heartbeat(self._group, self._member, epoch, [self._topic]))
            self._cluster.check(answer.error_code, "heartbeat")
            return answer

        answer = await self._cluster.retrying("beat", attempt)
        self._member, self._epoch = answer.member_id, answer.epoch

    async def commit(self, offset: int) -> None:
        """Commit as a member."""
        node = await self._cluster.group_coordinator(self._group)
        request = Commit(self._group, self._member, self._epoch, self._topic, offset)
        answer = await self._cluster.ask(node, request)
        assert [code for _, told, _ in answer.topics for _, code, _ in told] == [0]


@contextlib.asynccontextmanager
async def new_member(cluster: KafkaCluster, group: str, topic: str) -> AsyncIterator[NewMember]:
    """A member of a group by the new protocol, which leaves when the block is left."""
    member = NewMember(cluster, group, topic)
    await member.beat(JOINS)
    try:
        yield member
    finally:
        await member.beat(LEAVES)
