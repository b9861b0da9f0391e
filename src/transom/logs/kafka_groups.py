"""Consumer groups on Kafka, by its classic protocol: Kafka's own tools see them like any other.

A change of members makes everyone join again, and Kafka answers a `JoinGroup` only when all have, or when
their time is up. So a join is made in the background: until it is through, a member has no partitions, and
learns of them from its next `join`. Next on the data's way: `kafka`.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.protocol.group import (
    HeartbeatRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    SyncGroupRequest,
)

from transom.logs import kafka_api as api
from transom.logs.groups import assign
from transom.logs.kafka_cluster import KafkaCluster, TransientError
from transom.logs.protocol import Membership, TopicPartition
from transom.model.errors import ForbiddenError, GenerationError, InvalidError, Problem, TransomError

_NOWHERE = -1
_PROTOCOL = "transom"
_KIND = "consumer"
_SETTLE_SECONDS = 0.05
"""A join that is through in this time is answered at once: a member that is alone, or the last to come."""

_LEAVE_SECONDS = 1.0
_REBALANCE_MS_MAX = 8_000  # a request has to be answered in 10 s
_OUTDATED = (api.ILLEGAL_GENERATION, api.UNKNOWN_MEMBER, api.REBALANCE_IN_PROGRESS)


@dataclass
class _Place:
    """A member's place: Kafka's name for it, its generation, what it is to read, how many partitions its
    topics had then, and a join under way.
    """

    lane: int
    topics: tuple[str, ...] = ()
    member_id: str = ""
    generation: int = _NOWHERE
    assigned: tuple[TopicPartition, ...] = ()
    partitions: dict[str, int] = field(default_factory=dict[str, int])
    joining: asyncio.Task[None] | None = field(default=None, repr=False)


class Groups:
    """The members that this process has in consumer groups."""

    def __init__(self, cluster: KafkaCluster) -> None:
        self._cluster = cluster
        self._places: dict[tuple[str, str], _Place] = {}
        self._lanes = 0

    async def join(
        self, group: str, member: str, topics: Sequence[str], session_seconds: float
    ) -> Membership:
        """See `Log.join`."""
        if not topics:
            return await self._leave(group, member)
        for topic in topics:
            await self._cluster.layout(topic)
        place = self._places.get((group, member))
        if place is None:
            self._lanes += 1
            place = self._places[group, member] = _Place(_GROUP_LANES + self._lanes)
        wanted = tuple(sorted(set(topics)))
        if place.joining is None and (
            place.topics != wanted or place.generation == _NOWHERE or not await self._stays(group, place)
        ):
            place.topics, place.assigned = wanted, ()
            place.joining = self._cluster.tasks.start(self._join(group, place, session_seconds))
        if place.joining is not None:
            await asyncio.wait([place.joining], timeout=_SETTLE_SECONDS)
            if place.joining.done():
                joined, place.joining = place.joining, None
                joined.result()
        return Membership(group, member, place.generation, place.assigned)

    async def commit(self, membership: Membership, offsets: Mapping[TopicPartition, int]) -> None:
        """See `Log.commit`."""
        group, member = membership.group, membership.member
        place = self._places.get((group, member))
        if place is None or place.joining or place.generation != membership.generation:
            raise _moved_on(membership)
        topics: dict[str, list[tuple[int, int, str]]] = {}
        for at, offset in offsets.items():
            if at not in place.assigned:
                raise ForbiddenError(
                    f"{at.topic}/{at.partition} is not assigned to member {member!r} of group {group!r}; "
                    f"commit only what the last join returned"
                )
            if offset < 0:
                raise InvalidError(
                    f"offset {offset} for {at.topic}/{at.partition}", [Problem("", "is negative")]
                )
            topics.setdefault(at.topic, []).append((at.partition, offset, ""))

        async def attempt() -> None:
            request = OffsetCommitRequest(
                group,
                place.generation,
                place.member_id,
                OffsetCommitRequest.DEFAULT_RETENTION_TIME,
                [*topics.items()],
            )
            answer = await self._cluster.ask(await self._cluster.group_coordinator(group), request)
            for code in {code for _, told in answer.topics for _, code in told}:
                if code in _OUTDATED:
                    raise _moved_on(membership)
                self._cluster.check(code, f"group {group!r}", "Read")

        await self._cluster.retrying("commit offsets", attempt)

    async def committed(self, group: str) -> dict[TopicPartition, int]:
        """See `Log.committed`."""

        async def attempt() -> dict[TopicPartition, int]:
            node = await self._cluster.group_coordinator(group)
            answer = await self._cluster.ask(node, OffsetFetchRequest(group, None))
            self._cluster.check(answer.error_code, f"group {group!r}", "Read")
            return {
                TopicPartition(topic, partition): offset
                for topic, partitions in answer.topics
                for partition, offset, _, _ in partitions
                if offset >= 0
            }

        return await self._cluster.retrying("say what was committed", attempt)

    async def close(self) -> None:
        """Leave every group, so that others take over at once; where that fails, our time runs out."""
        for group, member in list(self._places):
            with contextlib.suppress(TransomError, TimeoutError):
                async with asyncio.timeout(_LEAVE_SECONDS):
                    await self._leave(group, member)
        for place in self._places.values():
            await self._give_up(place)
        self._places.clear()

    async def _leave(self, group: str, member: str) -> Membership:
        place = self._places.pop((group, member), None)
        if place is not None:
            await self._give_up(place)
            if place.member_id:

                async def attempt() -> None:
                    node = await self._cluster.group_coordinator(group)
                    answer = await self._cluster.ask(node, LeaveGroupRequest(group, place.member_id))
                    if answer.error_code != api.UNKNOWN_MEMBER:
                        self._cluster.check(answer.error_code, f"group {group!r}", "Read")

                await self._cluster.retrying("leave a group", attempt)
        return Membership(group, member, _NOWHERE, ())

    async def _give_up(self, place: _Place) -> None:
        if place.joining is not None:
            await self._cluster.tasks.end(place.joining)
            place.joining = None

    async def _stays(self, group: str, place: _Place) -> bool:
        """Tell the group that the member lives; whether its place is still the one it has."""
        if await self._partitions(place) != place.partitions:
            return False

        async def attempt() -> bool:
            node = await self._cluster.group_coordinator(group)
            answer = await self._cluster.ask(node, HeartbeatRequest(group, place.generation, place.member_id))
            if answer.error_code in _OUTDATED:
                if answer.error_code == api.UNKNOWN_MEMBER:
                    place.member_id = ""
                return False
            self._cluster.check(answer.error_code, f"group {group!r}", "Read")
            return True

        return await self._cluster.retrying("stay in a group", attempt)

    async def _join(self, group: str, place: _Place, session_seconds: float) -> None:
        await self._cluster.retrying("join a group", lambda: self._try_join(group, place, session_seconds))

    async def _try_join(self, group: str, place: _Place, session_seconds: float) -> None:
        node = await self._cluster.group_coordinator(group)
        about = ConsumerProtocolMemberMetadata(0, list(place.topics), b"").encode()
        session_ms = int(session_seconds * 1000)
        rebalance_ms = min(session_ms, _REBALANCE_MS_MAX)
        joined = await self._cluster.ask(
            node,
            JoinGroupRequest(
                group,
                session_ms,
                rebalance_ms,
                place.member_id,
                None,  # pyright: ignore[reportArgumentType]
                _KIND,
                [(_PROTOCOL, about)],
            ),
            place.lane,
        )
        if joined.error_code == api.MEMBER_ID_REQUIRED:
            place.member_id = joined.member_id
            raise TransientError("a member gets its id first")
        if joined.error_code == api.UNKNOWN_MEMBER:
            place.member_id = ""
            raise TransientError("the member's time was up")
        self._cluster.check(joined.error_code, f"group {group!r}", "Read")
        place.member_id = joined.member_id
        shares = await self._shares(joined.members) if joined.leader_id == joined.member_id else []
        synced = await self._cluster.ask(
            node,
            SyncGroupRequest(group, joined.generation_id, place.member_id, None, shares),  # pyright: ignore[reportArgumentType]
            place.lane,
        )
        if synced.error_code in _OUTDATED:
            raise TransientError("the group changed again")
        self._cluster.check(synced.error_code, f"group {group!r}", "Read")
        given = ConsumerProtocolMemberAssignment.decode(synced.member_assignment)
        place.assigned = tuple(TopicPartition(*at) for at in given.partitions())
        place.partitions = await self._partitions(place)
        place.generation = joined.generation_id

    async def _partitions(self, place: _Place) -> dict[str, int]:
        there = await self._cluster.layouts(place.topics)
        return {name: len(layout.leaders) for name, layout in there.items()}

    async def _shares(self, members: Sequence[tuple[str, str | None, bytes]]) -> list[tuple[str, bytes]]:
        """Every member's share, as the group's leader decides: the same rule as in every other log."""
        topics = {
            name: tuple(ConsumerProtocolMemberMetadata.decode(about).subscription)
            for name, _, about in members
        }
        names = {topic for wanted in topics.values() for topic in wanted}
        there = await self._cluster.layouts(names)
        known = {name: tuple(t for t in wanted if t in there) for name, wanted in topics.items()}
        spread = assign(known, {name: len(layout.leaders) for name, layout in there.items()})
        return [(name, _assignment(share)) for name, share in spread.items()]


_GROUP_LANES = 1 << 20  # apart from the readers' lanes


def _assignment(share: Sequence[TopicPartition]) -> bytes:
    topics: dict[str, list[int]] = {}
    for at in share:
        topics.setdefault(at.topic, []).append(at.partition)
    return ConsumerProtocolMemberAssignment(0, list(topics.items()), b"").encode()


def _moved_on(claimed: Membership) -> GenerationError:
    return GenerationError(
        f"member {claimed.member!r} commits for generation {claimed.generation} of group {claimed.group!r}, "
        f"which has moved on; join again before committing"
    )
