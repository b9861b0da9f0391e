"""Who reads what in a consumer group: membership, generations, assignment. Pure; engines only store it.

A group changes when a member comes, goes, falls silent past its deadline or asks for other topics, or when
a topic grows; each change is a new generation, and commits name theirs, so a member that was shut out is
refused by number, not by timing (invariant 8). Source: Kafka's group membership protocol, without the
leader: the log itself assigns. Next on the data's way: `memory` and `sqlite_groups`.
"""

from collections.abc import Mapping, Sequence

import msgspec

from transom.logs.protocol import Membership, TopicPartition
from transom.model.errors import ForbiddenError, GenerationError, InvalidError, Problem


class Member(msgspec.Struct, frozen=True):
    """One reader: alive until `deadline` (wall time, seconds), reading `assigned` out of `topics`."""

    deadline: float
    topics: tuple[str, ...]
    assigned: tuple[TopicPartition, ...] = ()


class Group(msgspec.Struct, frozen=True):
    """A consumer group as a log stores it."""

    generation: int = 0
    members: dict[str, Member] = {}


def rejoin(
    group: Group,
    member: str,
    topics: Sequence[str],
    partitions: Mapping[str, int],
    *,
    now: float,
    session_seconds: float,
) -> Group:
    """The group after `member` joined, stayed, or (without topics) left, and the silent were dropped.

    `partitions` says how many each topic has, for the topics of every member.
    """
    members = {name: held for name, held in group.members.items() if held.deadline > now and name != member}
    if topics:
        members[member] = Member(now + session_seconds, tuple(sorted(set(topics))))
    spread = assign({name: held.topics for name, held in members.items()}, partitions)
    members = {name: msgspec.structs.replace(held, assigned=spread[name]) for name, held in members.items()}
    changed = _readers(members) != _readers(group.members)
    return Group(group.generation + int(changed), members)


def _readers(members: Mapping[str, Member]) -> dict[str, tuple[object, ...]]:
    return {name: (held.topics, held.assigned) for name, held in members.items()}


def assign(
    subscribed: Mapping[str, Sequence[str]], partitions: Mapping[str, int]
) -> dict[str, tuple[TopicPartition, ...]]:
    """Every partition to one of the members that want its topic, to the one that has fewest so far."""
    given: dict[str, list[TopicPartition]] = {name: [] for name in sorted(subscribed)}
    for topic in sorted({topic for topics in subscribed.values() for topic in topics}):
        wanting = [name for name in given if topic in subscribed[name]]
        for partition in range(partitions[topic]):
            least = min(wanting, key=lambda name: len(given[name]))
            given[least].append(TopicPartition(topic, partition))
    return {name: tuple(held) for name, held in given.items()}


def membership(group: Group, name: str, member: str) -> Membership:
    """What `member` is told of its place; nothing is assigned to one that left."""
    held = group.members.get(member)
    return Membership(name, member, group.generation, held.assigned if held else ())


def check_commit(group: Group, claimed: Membership, offsets: Mapping[TopicPartition, int]) -> None:
    """Raises `GenerationError` or `ForbiddenError` unless `claimed` may commit `offsets` now."""
    held = group.members.get(claimed.member)
    if held is None or claimed.generation != group.generation:
        raise GenerationError(
            f"member {claimed.member!r} commits for generation {claimed.generation} of group "
            f"{claimed.group!r}, which is at {group.generation}; join again before committing"
        )
    for at, offset in offsets.items():
        if at not in held.assigned:
            raise ForbiddenError(
                f"{at.topic}/{at.partition} is not assigned to member {claimed.member!r} of group "
                f"{claimed.group!r}; commit only what the last join returned"
            )
        if offset < 0:
            raise InvalidError(f"offset {offset} for {at.topic}/{at.partition}", [Problem("", "is negative")])
