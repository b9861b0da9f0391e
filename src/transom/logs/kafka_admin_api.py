"""Kafka's protocol for whoever looks after many groups and topics: lists, offsets of many groups at once,
settings changed one by one.

What is asked again and again comes undecoded (`body`), so that an answer that is the same as before costs a
comparison, not a decoding; `groups_in` and `offsets_in` decode it.
Source: Apache Kafka's message definitions: `ListGroups` 4 (KIP-518), `OffsetFetch` 8 (KIP-709),
`IncrementalAlterConfigs` 0 (KIP-339), `Metadata` 12 (KIP-516). Brokers from 3.0 on have them all. Next on
the data's way: `links.kafka.groups`, `links.kafka.topics`.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from struct import Struct
from typing import Any, ClassVar, NamedTuple

from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Array,
    Boolean,
    CompactArray,
    CompactString,
    Int8,
    Int16,
    Int32,
    Schema,
    String,
    TaggedFields,
)

from transom.logs import kafka_api as api
from transom.logs.protocol import TopicPartition

TOPIC = 2
"""How Kafka numbers topics among what has settings."""
SET, REMOVE = 0, 1
"""What `IncrementalAlterConfigs` does with a setting."""

_NO_TAGS: Mapping[int, bytes] = {}


class _Rest(AbstractType[bytes]):
    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read()


_UNDECODED = Schema(("throttle_time_ms", Int32), ("body", _Rest))
"""How long a broker held an answer back is no part of the answer."""


class _ListGroupsResponse(Response):
    API_KEY = 16  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    API_VERSION = 4  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    SCHEMA = _UNDECODED


class _ListGroupsRequestV4(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 16
    API_VERSION = 4
    RESPONSE_TYPE = _ListGroupsResponse
    SCHEMA = Schema(("states", CompactArray(CompactString("utf-8"))), ("tags", TaggedFields))


class ListGroupsRequest(Request[_ListGroupsRequestV4]):
    """Every group that the asked broker keeps; `groups_in` reads the answer."""

    API_KEY: ClassVar[int] = 16

    def build(self, request_struct_class: type[_ListGroupsRequestV4]) -> _ListGroupsRequestV4:
        """The request as it goes out."""
        return request_struct_class([], _NO_TAGS)


class _OffsetFetchResponse(Response):
    API_KEY = 9  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    API_VERSION = 8  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    SCHEMA = _UNDECODED


class _OffsetFetchRequestV8(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 9
    API_VERSION = 8
    RESPONSE_TYPE = _OffsetFetchResponse
    SCHEMA = Schema(
        (
            "groups",
            CompactArray(
                ("group", CompactString("utf-8")), ("topics", CompactArray(Int8)), ("tags", TaggedFields)
            ),
        ),
        ("require_stable", Boolean),
        ("tags", TaggedFields),
    )


class OffsetFetchRequest(Request[_OffsetFetchRequestV8]):
    """All that some groups of one coordinator have committed; `offsets_in` reads the answer."""

    API_KEY: ClassVar[int] = 9

    def __init__(self, groups: Sequence[str]) -> None:
        self._groups = groups

    def build(self, request_struct_class: type[_OffsetFetchRequestV8]) -> _OffsetFetchRequestV8:
        """The request as it goes out."""
        return request_struct_class([(group, None, _NO_TAGS) for group in self._groups], False, _NO_TAGS)


class _IncrementalAlterConfigsResponse(Response):
    API_KEY = 44  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    API_VERSION = 0  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "resources",
            Array(
                ("error_code", Int16),
                ("error_message", String("utf-8")),
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
            ),
        ),
    )


class _IncrementalAlterConfigsRequestV0(RequestStruct):
    API_KEY = 44
    API_VERSION = 0
    RESPONSE_TYPE = _IncrementalAlterConfigsResponse
    SCHEMA = Schema(
        (
            "resources",
            Array(
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
                (
                    "configs",
                    Array(("name", String("utf-8")), ("operation", Int8), ("value", String("utf-8"))),
                ),
            ),
        ),
        ("validate_only", Boolean),
    )


class AlterTopicRequest(Request[_IncrementalAlterConfigsRequestV0]):
    """Give settings of a topic a value, and others their default again; those not named stay as they are."""

    API_KEY: ClassVar[int] = 44

    def __init__(self, topic: str, values: Mapping[str, str], removed: Sequence[str]) -> None:
        self._topic, self._values, self._removed = topic, values, removed

    def build(
        self, request_struct_class: type[_IncrementalAlterConfigsRequestV0]
    ) -> _IncrementalAlterConfigsRequestV0:
        """The request as it goes out."""
        configs: list[tuple[str, int, str | None]] = [
            (name, SET, value) for name, value in self._values.items()
        ]
        configs += [(name, REMOVE, None) for name in self._removed]
        return request_struct_class([(TOPIC, self._topic, configs)], False)


class _MetadataResponse(Response):
    API_KEY = 3  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    API_VERSION = 12  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", api.BROKERS),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),  # any broker, another with each answer
        ("body", _Rest),
    )


class _MetadataRequestV12(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 12
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", CompactArray(Int8)),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class AllTopicsRequest(Request[_MetadataRequestV12]):
    """What `kafka_api.MetadataRequest` tells; of topics undecoded, to see whether any has changed."""

    API_KEY: ClassVar[int] = 3

    def build(self, request_struct_class: type[_MetadataRequestV12]) -> _MetadataRequestV12:
        """The request as it goes out."""
        return request_struct_class(None, False, False, _NO_TAGS)


class GroupListed(NamedTuple):
    """A group as its coordinator lists it: of kind "consumer", "" (never had members), "connect" and others;
    in state "Empty", "Stable" and others.
    """

    kind: str
    state: str


class Committed(NamedTuple):
    """What a group committed for a partition."""

    offset: int
    metadata: str


_COMMITTED = Struct(">iqi")
_INT16 = Struct(">h")


class _Reader:
    """Reads what Kafka's flexible messages are made of (KIP-482), one after the other."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self) -> int:
        """An unsigned varint."""
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004
                return value
            shift += 7

    def length(self) -> int:
        """Of an array; what is missing has none."""
        return max(0, self.number() - 1)

    def text(self) -> str:
        """A string; what is missing is empty."""
        size = self.number() - 1
        if size <= 0:
            return ""
        begin, self.at = self.at, self.at + size
        return self.data[begin : self.at].decode()

    def code(self) -> int:
        """An error's code."""
        self.at += 2
        return _INT16.unpack_from(self.data, self.at - 2)[0]

    def skip_tags(self) -> None:
        """What newer brokers add."""
        for _ in range(self.number()):
            self.number()
            size = self.number()
            self.at += size


def groups_in(body: bytes) -> tuple[int, dict[str, GroupListed]]:
    """The error's code and the groups in the answer to a `ListGroupsRequest`."""
    reader = _Reader(body)
    code = reader.code()
    found: dict[str, GroupListed] = {}
    for _ in range(reader.length()):
        name, kind, state = reader.text(), reader.text(), reader.text()
        found[name] = GroupListed(kind, state)
        reader.skip_tags()
    return code, found


def offsets_in(body: bytes) -> dict[str, dict[TopicPartition, Committed] | int]:
    """What each group committed, in the answer to an `OffsetFetchRequest`, or the code of its error."""
    reader = _Reader(body)
    found: dict[str, dict[TopicPartition, Committed] | int] = {}
    for _ in range(reader.length()):
        group = reader.text()
        held: dict[TopicPartition, Committed] = {}
        wrong = api.NONE
        for _ in range(reader.length()):
            topic = reader.text()
            for _ in range(reader.length()):
                partition, offset, _epoch = _COMMITTED.unpack_from(reader.data, reader.at)
                reader.at += _COMMITTED.size
                metadata = reader.text()
                wrong = reader.code() or wrong
                reader.skip_tags()
                if offset >= 0:
                    held[TopicPartition(topic, partition)] = Committed(offset, metadata)
            reader.skip_tags()
        wrong = reader.code() or wrong
        reader.skip_tags()
        found[group] = wrong or held
    return found


def altered(answer: Any) -> tuple[int, str]:
    """The error's code and its words in the answer to an `AlterTopicRequest`."""
    code, message, _, _ = answer.resources[0]
    return code, message or ""
