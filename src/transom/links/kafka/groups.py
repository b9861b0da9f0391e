"""Where consumer groups are, carried to the other cluster: to the target while they read at the source, and
back while they read copies at the target.

Of every group that is chosen the committed offsets are translated exactly, in both directions by the same
map, and committed where the group is empty; brokers refuse it where it is not, and then it is tried again.
Never backwards, unless asked (`rewind`). What was carried says so in its metadata, and is not carried on:
so it can be told where a group reads by itself.

What a group does not commit for mirrored topics is left alone. What a broker does not list is not missing for
that: before anything is committed for a group, its coordinator has told what it has.

A round asks every broker for its groups, and each coordinator for the offsets of a page of them. Answers that
are the same as in the round before are not even decoded.
Source: KIP-396 (committing from outside), KIP-709. Next on the data's way: the group's consumers.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

from prometheus_client import Counter, Gauge

from transom.links.kafka.group_plan import GroupPlan, Held, Translate, plan
from transom.links.kafka.group_side import GroupSide, Place
from transom.logs.kafka_admin_api import Committed, offsets_in
from transom.logs.kafka_cluster import KafkaCluster, TransientError
from transom.logs.protocol import TopicPartition
from transom.model.errors import ConflictError, NotFoundError, TransomError
from transom.runtime.telemetry import get_logger, is_told, metrics

log_event = get_logger(__name__)

PAGE_GROUPS = 100
"""How many groups are in memory at a time, and in one request."""
_TROUBLES_MAX = 100
_NOWHERE: Mapping[TopicPartition, Committed] = {}

_carried = Counter(
    "transom_mirror_group_commits_total",
    "Committed offsets that were carried to the other cluster",
    ["mirror", "to"],
    registry=metrics,
)
_failed = Counter(
    "transom_mirror_group_failures_total",
    "Groups that could not be carried in a round",
    ["mirror"],
    registry=metrics,
)
_behind = Gauge(
    "transom_mirror_groups_waiting",
    "Groups that read at the other side too, or whose records are not mirrored yet",
    ["mirror"],
    registry=metrics,
)


class _Page(NamedTuple):
    """Groups with the same coordinators; None: not listed."""

    source: int | None
    target: int | None
    groups: Sequence[str]


@dataclass
class _Round:
    """What a round knows."""

    topics: Mapping[str, str]
    at_source: Mapping[str, Place]
    at_target: Mapping[str, Place]
    trouble: Callable[[str, str], None]
    settled: dict[bytes, int] = field(default_factory=dict[bytes, int])
    waiting: int = 0


class Groups:
    """The groups of one mirror. `troubles` are the newest words of those that could not be carried."""

    def __init__(
        self,
        mirror: str,
        source: KafkaCluster,
        target: KafkaCluster,
        chosen: Callable[[str], bool],
        to_target: Translate,
        to_source: Translate,
    ) -> None:
        """`chosen`: whether a group's name is. Both translations take the source's name of the topic."""
        self.mirror = mirror
        self.mark = f"transom:{mirror}"
        self.troubles: dict[str, str] = {}
        self.failures = 0
        self._source, self._target = GroupSide(source), GroupSide(target)
        self._chosen = chosen
        self._translate = (to_target, to_source)
        self._topics: dict[str, str] = {}
        self._ours: frozenset[TopicPartition] | None = None
        self._settled: dict[bytes, int] = {}
        """Digests of answers about which nothing is to be done, and how many groups wait in them; those of
        the round before.
        """

    async def round(
        self, topics: Mapping[str, str], carried: Collection[TopicPartition] | None = None
    ) -> None:
        """Carry what is to be carried now; `topics` are mirrored: names in the target by names in the
        source. Of their partitions those in `carried` (None: all) are this process's, the others are carried
        by others. What fails is told in `troubles`, and tried again with the next round.
        """
        ours = None if carried is None else frozenset(carried)
        if topics != self._topics or ours != self._ours:
            self._topics, self._ours = dict(topics), ours
            self._settled.clear()
        troubles: dict[str, str] = {}

        def trouble(what: str, why: str) -> None:
            self._trouble(troubles, what, why)

        at_source, at_target = await asyncio.gather(
            self._source.listed(trouble), self._target.listed(trouble)
        )
        now = _Round(self._topics, at_source, at_target, trouble)
        for page in self._pages(now):
            try:
                await self._carry_page(page, now)
            except (TransientError, TransomError) as error:
                trouble(f"{page.groups[0]} and {len(page.groups) - 1} more", str(error))
        self._settled, self.troubles = now.settled, troubles
        _behind.labels(self.mirror).set(now.waiting)

    async def rewind(self, group: str, topics: Mapping[str, str]) -> dict[TopicPartition, int]:
        """Put an empty group at the target exactly where it is at the source, also backwards.

        Returns what was committed. Raises `NotFoundError` when it has no place at the source, `ConflictError`
        while it is active there or where its offsets are not mirrored yet, `UnreachableError`,
        `ForbiddenError`.
        """

        async def attempt() -> dict[TopicPartition, int]:
            source = await self._source.offsets_of(group)
            target = await self._target.offsets_of(group)
            if not any(at.topic in topics for at in source):
                raise NotFoundError(
                    f"group {group!r} has committed nothing at the source of what is mirrored"
                )
            todo = plan(Held(source, target), topics, self._translate, self.mark, rewind=True)
            if todo.unknown:
                raise ConflictError(f"group {group!r} is ahead of what is mirrored; try again in a moment")
            if not await self._target.commit(group, todo.to_target, self.mark):
                raise ConflictError(f"group {group!r} is active at the target; stop its consumers first")
            return todo.to_target

        return await self._target.cluster.retrying("rewind a group", attempt)

    def _pages(self, now: _Round) -> Iterator[_Page]:
        """All groups that are chosen, by their coordinators."""
        alike: dict[tuple[int | None, int | None], list[str]] = {}
        for group in sorted(now.at_source.keys() | now.at_target.keys()):
            source, target = now.at_source.get(group), now.at_target.get(group)
            if self._chosen(group) and all(each is None or each.consumers for each in (source, target)):
                nodes = (source and source.node, target and target.node)
                alike.setdefault(nodes, []).append(group)
        for (source, target), groups in alike.items():
            for at in range(0, len(groups), PAGE_GROUPS):
                yield _Page(source, target, groups[at : at + PAGE_GROUPS])

    async def _carry_page(self, page: _Page, now: _Round) -> None:
        source, target = await asyncio.gather(
            self._source.offsets(page.source, page.groups), self._target.offsets(page.target, page.groups)
        )
        active = bytes(
            2 * _is_active(now.at_source, group) + _is_active(now.at_target, group) for group in page.groups
        )
        digest = blake2b(b"%d %d " % (len(source), len(target)) + source + target + active).digest()
        if digest in self._settled:
            now.settled[digest] = self._settled[digest]
            now.waiting += self._settled[digest]
            return
        before = now.waiting
        held = (offsets_in(source), offsets_in(target))
        async with asyncio.TaskGroup() as tasks:
            done = [
                tasks.create_task(self._carry_group(group, [each.get(group, {}) for each in held], now))
                for group in page.groups
            ]
        if all(task.result() for task in done):
            now.settled[digest] = now.waiting - before

    async def _carry_group(
        self, group: str, found: Sequence[Mapping[TopicPartition, Committed] | int], now: _Round
    ) -> bool:
        """Whether nothing was to be done, and nothing will be as long as the answers are the same."""
        try:
            source, target = self._source.told(group, found[0]), self._target.told(group, found[1])
            held = Held(source, target, _is_active(now.at_source, group), _is_active(now.at_target, group))
            todo = plan(held, now.topics, self._translate, self.mark, ours=self._ours)
            todo = await self._sure(group, held, todo, now)
            moved = await self._commit(group, todo, now)
        except (TransientError, TransomError) as error:
            now.trouble(group, str(error))
            return False
        now.waiting += todo.unknown or todo.active or moved is False
        return moved is None and not todo.unknown

    async def _sure(self, group: str, held: Held, todo: GroupPlan, now: _Round) -> GroupPlan:
        """The plan again, for a group that a side does not list, with what its coordinator there says."""
        target, source = held.target, held.source
        if todo.to_target and group not in now.at_target:
            target = await self._target.offsets_of(group)
        elif todo.to_source and group not in now.at_source:
            source = await self._source.offsets_of(group)
        else:
            return todo
        held = held._replace(source=source, target=target)
        return plan(held, now.topics, self._translate, self.mark, ours=self._ours)

    async def _commit(self, group: str, todo: GroupPlan, now: _Round) -> bool | None:
        """None: nothing to commit; False: the group is active there."""
        done: bool | None = None
        for side, name, offsets, listed in (
            (self._target, "target", todo.to_target, now.at_target),
            (self._source, "source", todo.to_source, now.at_source),
        ):
            if offsets:
                accepted = await side.commit(group, offsets, self.mark, listed.get(group))
                done = accepted and done is not False
                if accepted:
                    _carried.labels(self.mirror, name).inc(len(offsets))
        return done

    def _trouble(self, troubles: dict[str, str], what: str, why: str) -> None:
        self.failures += 1
        _failed.labels(self.mirror).inc()
        if len(troubles) < _TROUBLES_MAX:
            troubles[what] = why
        if is_told(self.failures):
            log_event.warning("group not carried", mirror=self.mirror, group=what, error=why)


def _is_active(listed: Mapping[str, Place], group: str) -> bool:
    place = listed.get(group)
    return place is not None and place.active
