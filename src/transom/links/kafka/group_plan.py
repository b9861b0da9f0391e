"""What of a group's place is to be carried, and where to. Pure.

Next on the data's way: `groups`, which carries it out.
"""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from transom.logs.kafka_admin_api import Committed
from transom.logs.protocol import TopicPartition

Translate = Callable[[str, int, int], int | None]
"""The offset on the other side of (the source's topic, partition, offset); None: not known yet."""


class Held(NamedTuple):
    """What a group has committed on both sides, and whether it has members there."""

    source: Mapping[TopicPartition, Committed]
    target: Mapping[TopicPartition, Committed]
    source_active: bool = False
    target_active: bool = False


class GroupPlan(NamedTuple):
    """What is to be committed on either side. `unknown`: something cannot be translated yet; `active`:
    something has to wait until the group is empty.
    """

    to_target: dict[TopicPartition, int]
    to_source: dict[TopicPartition, int]
    unknown: bool
    active: bool


def plan(
    held: Held,
    topics: Mapping[str, str],
    translate: tuple[Translate, Translate],
    mark: str,
    *,
    ours: Collection[TopicPartition] | None = None,
    rewind: bool = False,
) -> GroupPlan:
    """What to commit for one group, for partitions of the source that are `ours` (None: all).

    `topics`: the target's names by the source's; `translate`: to the target, and to the source; `mark`: the
    metadata of what was carried. `rewind`: to the target alone, and backwards, too.
    """
    to_target, to_source = translate
    ahead: dict[TopicPartition, int] = {}
    unknown = False
    for at, committed in held.source.items():
        copy = topics.get(at.topic) if _is_ours(at, ours) else None
        if copy is None:
            continue
        there = held.target.get(TopicPartition(copy, at.partition))
        if not rewind and _came_from(committed, there, mark):
            continue
        offset = to_target(at.topic, at.partition, committed.offset)
        if offset is None:
            unknown = True
        elif there is None or there.offset < offset or (rewind and there.offset != offset):
            ahead[TopicPartition(copy, at.partition)] = offset
    back: dict[TopicPartition, int] = {}
    originals = {} if rewind else {copy: topic for topic, copy in topics.items()}
    for at, committed in held.target.items():
        topic = originals.get(at.topic)
        if topic is None or committed.metadata == mark or not _is_ours(at._replace(topic=topic), ours):
            continue
        there = held.source.get(TopicPartition(topic, at.partition))
        offset = to_source(topic, at.partition, committed.offset)
        if offset is None:
            unknown = True
        elif there is None or there.offset < offset:
            back[TopicPartition(topic, at.partition)] = offset
    waits = bool((ahead and held.target_active) or (back and held.source_active))
    return GroupPlan({} if held.target_active else ahead, {} if held.source_active else back, unknown, waits)


def _is_ours(at: TopicPartition, ours: Collection[TopicPartition] | None) -> bool:
    return ours is None or at in ours


def _came_from(committed: Committed, there: Committed | None, mark: str) -> bool:
    """Whether what stands here was carried from what the group itself committed there.

    There it may have gone back meanwhile, on purpose: then it must not be pulled forward by its own past.
    """
    return committed.metadata == mark and there is not None and there.metadata != mark
