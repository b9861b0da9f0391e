"""One cluster's consumer groups: which there are, what they committed, and committing for them from outside.

Next on the data's way: `groups`.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from aiokafka.protocol.commit import OffsetCommitRequest

from transom.logs import kafka_api as api
from transom.logs.kafka_admin_api import (
    Committed,
    ListGroupsRequest,
    OffsetFetchRequest,
    groups_in,
    offsets_in,
)
from transom.logs.kafka_cluster import KafkaCluster, TransientError
from transom.logs.protocol import TopicPartition
from transom.model.errors import TransomError

_BROKERS_SECONDS = 30.0
_CONSUMERS = ("consumer", "")
"""Groups of consumers, of both protocols, and such as only ever had offsets committed from outside."""
_EMPTY = ("Empty", "Dead")
_ACTIVE = (
    api.ILLEGAL_GENERATION,
    api.UNKNOWN_MEMBER,
    api.REBALANCE_IN_PROGRESS,
    68,  # NON_EMPTY_GROUP
    110,  # FENCED_MEMBER_EPOCH
    113,  # STALE_MEMBER_EPOCH
)
"""How brokers refuse what is committed from outside for a group that has members."""


class Place(NamedTuple):
    """Where a group is: the broker that keeps it, whether it is one of consumers, whether it has members."""

    node: int
    consumers: bool
    active: bool


class GroupSide:
    """The groups of `cluster`."""

    def __init__(self, cluster: KafkaCluster) -> None:
        self.cluster = cluster
        self._nodes: tuple[int, ...] = ()
        self._nodes_until = 0.0
        self._lists: dict[int, tuple[bytes, dict[str, Place]]] = {}
        """Each broker's newest list, as it came and decoded."""

    async def listed(self, trouble: Callable[[str, str], None]) -> dict[str, Place]:
        """Every group that a broker lists; `trouble` is told what a broker that does not answer says."""
        found: dict[str, Place] = {}
        try:
            for groups in await asyncio.gather(
                *(self._listed_by(node, trouble) for node in await self._brokers())
            ):
                found.update(groups)
        except (TransientError, TransomError) as error:
            trouble(f"groups of {self.cluster.address}", str(error))
        return found

    async def offsets(self, node: int | None, groups: Sequence[str]) -> bytes:
        """What `groups` of one coordinator committed, undecoded; of none nothing."""
        if node is None:
            return b"\x01"
        return (await self.cluster.ask(node, OffsetFetchRequest(groups))).body

    async def offsets_of(self, group: str) -> Mapping[TopicPartition, Committed]:
        """What `group` committed, as its coordinator says."""
        node = await self.cluster.group_coordinator(group)
        return self.told(group, offsets_in(await self.offsets(node, [group]))[group])

    def told(
        self, group: str, answer: Mapping[TopicPartition, Committed] | int
    ) -> Mapping[TopicPartition, Committed]:
        """What a group committed; raises what it means where its coordinator told an error instead."""
        if isinstance(answer, int):
            self.cluster.check(answer, f"group {group!r}", "Read")
            return {}
        return answer

    async def commit(
        self, group: str, offsets: Mapping[TopicPartition, int], mark: str, place: Place | None = None
    ) -> bool:
        """Commit for an empty group, at `place` where that is known; False when it is not empty."""
        if not offsets:
            return True
        topics: dict[str, list[tuple[int, int, str]]] = {}
        for at, offset in offsets.items():
            topics.setdefault(at.topic, []).append((at.partition, offset, mark))
        request = OffsetCommitRequest(
            group,
            OffsetCommitRequest.DEFAULT_GENERATION_ID,
            "",
            OffsetCommitRequest.DEFAULT_RETENTION_TIME,
            list(topics.items()),
        )
        node = await self.cluster.group_coordinator(group) if place is None else place.node
        answer = await self.cluster.ask(node, request)
        codes = {code for _, told in answer.topics for _, code in told}
        if codes & set(_ACTIVE):
            return False
        for code in codes:
            self.cluster.check(code, f"group {group!r}", "Read")
        return True

    async def _brokers(self) -> tuple[int, ...]:
        now = self.cluster.clock.monotonic()
        if not self._nodes or now >= self._nodes_until:
            answer = await self.cluster.ask(None, api.MetadataRequest(()))
            self._nodes = tuple(broker[0] for broker in answer.brokers)
            self._nodes_until = now + _BROKERS_SECONDS
            self._lists = {node: held for node, held in self._lists.items() if node in self._nodes}
        return self._nodes

    async def _listed_by(self, node: int, trouble: Callable[[str, str], None]) -> dict[str, Place]:
        try:
            body = (await self.cluster.ask(node, ListGroupsRequest())).body
            held = self._lists.get(node)
            if held is not None and held[0] == body:
                return held[1]
            code, groups = groups_in(body)
            self.cluster.check(code, "the list of groups")
        except (TransientError, TransomError) as error:
            self._nodes = ()  # it may be gone for good
            trouble(f"groups of {self.cluster.address}, broker {node}", str(error))
            return {}
        places = {
            group: Place(node, told.kind in _CONSUMERS, told.state not in _EMPTY)
            for group, told in groups.items()
        }
        self._lists[node] = (body, places)
        return places
