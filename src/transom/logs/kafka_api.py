"""Kafka's protocol where aiokafka stops short: topic ids, and what error codes mean.

Source: Apache Kafka's message definitions (`MetadataRequest.json`, `MetadataResponse.json`, version 12,
KIP-516) and `org.apache.kafka.common.protocol.Errors`. Next on the data's way: `kafka_cluster`.
"""

from collections.abc import Collection
from io import BytesIO
from typing import Any, ClassVar, NamedTuple
from uuid import UUID

from aiokafka.errors import for_code
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

READ_UNCOMMITTED, READ_COMMITTED = 0, 1
"""What a fetch, or a question for offsets, is to see."""

NONE = 0
UNKNOWN = -1
OFFSET_OUT_OF_RANGE = 1
UNKNOWN_TOPIC = 3
MESSAGE_TOO_LARGE = 10
RECORD_LIST_TOO_LARGE = 18
ILLEGAL_GENERATION = 22
UNKNOWN_MEMBER = 25
REBALANCE_IN_PROGRESS = 27
TOPIC_AUTHORIZATION_FAILED = 29
UNSUPPORTED_SASL_MECHANISM = 33
TOPIC_EXISTS = 36
INVALID_PRODUCER_EPOCH = 47
INVALID_PRODUCER_ID_MAPPING = 49
CONCURRENT_TRANSACTIONS = 51
MEMBER_ID_REQUIRED = 79
INVALID_RECORD = 87
PRODUCER_FENCED = 90
UNKNOWN_TOPIC_ID = 100
INCONSISTENT_TOPIC_ID = 103

_TRANSIENT = {
    UNKNOWN_TOPIC: "UNKNOWN_TOPIC_OR_PARTITION",
    5: "LEADER_NOT_AVAILABLE",
    6: "NOT_LEADER_OR_FOLLOWER",
    7: "REQUEST_TIMED_OUT",
    8: "BROKER_NOT_AVAILABLE",
    9: "REPLICA_NOT_AVAILABLE",
    13: "NETWORK_EXCEPTION",
    14: "COORDINATOR_LOAD_IN_PROGRESS",
    15: "COORDINATOR_NOT_AVAILABLE",
    16: "NOT_COORDINATOR",
    19: "NOT_ENOUGH_REPLICAS",
    20: "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
    41: "NOT_CONTROLLER",
    CONCURRENT_TRANSACTIONS: "CONCURRENT_TRANSACTIONS",
    56: "KAFKA_STORAGE_ERROR",
    74: "FENCED_LEADER_EPOCH",
    75: "UNKNOWN_LEADER_EPOCH",
    78: "OFFSET_NOT_AVAILABLE",
}
_FORBIDDEN = {
    TOPIC_AUTHORIZATION_FAILED: "TOPIC_AUTHORIZATION_FAILED",
    30: "GROUP_AUTHORIZATION_FAILED",
    31: "CLUSTER_AUTHORIZATION_FAILED",
    53: "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
    65: "DELEGATION_TOKEN_AUTHORIZATION_FAILED",
}


def is_transient(code: int) -> bool:
    """Whether the same request, asked again a little later or of another broker, may succeed."""
    return code in _TRANSIENT


def is_forbidden(code: int) -> bool:
    """Whether the user lacks a right."""
    return code in _FORBIDDEN


_OTHERS = {INVALID_RECORD: "INVALID_RECORD", PRODUCER_FENCED: "PRODUCER_FENCED"}


def code_name(code: int) -> str:
    """How Kafka calls an error."""
    known = _TRANSIENT.get(code) or _FORBIDDEN.get(code) or _OTHERS.get(code)
    return known or f"{for_code(code).__name__} ({code})"


class _Uuid(AbstractType[UUID]):
    @classmethod
    def encode(cls, value: UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> UUID:
        return UUID(bytes=data.read(16))


_NO_TOPIC_ID = UUID(int=0)


BROKERS = CompactArray(
    ("node_id", Int32),
    ("host", CompactString("utf-8")),
    ("port", Int32),
    ("rack", CompactString("utf-8")),
    ("tags", TaggedFields),
)
"""The brokers, as answers of metadata begin."""


class _MetadataResponse(Response):
    API_KEY = 3  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    API_VERSION = 12  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", BROKERS),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _MetadataRequestV12(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 12
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("topic_id", _Uuid),
                ("name", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class MetadataRequest(Request[_MetadataRequestV12]):
    """Which topics there are, their ids, and who leads their partitions; None: all. Creates none.

    With `operations`, also what we may do with each (`operations_on` reads that).
    """

    API_KEY: ClassVar[int] = 3

    def __init__(self, names: Collection[str] | None, *, operations: bool = False) -> None:
        self._names, self._operations = names, operations

    def build(self, request_struct_class: type[_MetadataRequestV12]) -> _MetadataRequestV12:
        """The request as it goes out."""
        no_tags: dict[int, bytes] = {}
        asked = None if self._names is None else [(_NO_TOPIC_ID, name, no_tags) for name in self._names]
        return request_struct_class(asked, False, self._operations, no_tags)


class TopicLayout(NamedTuple):
    """A topic as the cluster has it: its id, the broker that leads each partition (-1: none now), and how
    many copies a partition has.
    """

    topic_id: str
    internal: bool
    leaders: dict[int, int]
    replicas: int


_OPERATIONS = {"Read": 3, "Write": 4, "DescribeConfigs": 10}
"""Bits of those operations that somebody asks for; they are named as in `kafka-acls.sh`."""


def operations_on(response: Any) -> dict[str, tuple[int, frozenset[str]]]:
    """By topic in a `MetadataRequest`'s answer: an error's code, and which operations we may do (KIP-430)."""
    return {
        topic[1]: (topic[0], frozenset(name for name, bit in _OPERATIONS.items() if topic[5] >> bit & 1))
        for topic in response.topics
    }


def layouts(response: Any) -> tuple[int, dict[str, TopicLayout], dict[str, int]]:
    """How many brokers there are, the topics in a `MetadataRequest`'s answer, what went wrong by topic."""
    found: dict[str, TopicLayout] = {}
    wrong: dict[str, int] = {}
    for error, name, topic_id, internal, partitions, _, _ in response.topics:
        if error:
            wrong[name] = error
        else:
            leaders = {part[1]: part[2] for part in partitions}
            replicas = max((len(part[4]) for part in partitions), default=0)
            found[name] = TopicLayout(str(topic_id), internal, leaders, replicas)
    return len(response.brokers), found, wrong
