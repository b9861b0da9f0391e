"""Consumer groups carried between real clusters: plain consumers go on at exactly the next record.

The offsets of a copy are made up here: records are put into both clusters by hand, with other offsets.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engines.kafka import Brokers
from engines.kafka_rights import Right
from engines_fixtures import USERS
from kafka_new_protocol import new_member
from mirror_sides import Side, side_of, take
from transom.links.kafka.group_side import GroupSide, Place
from transom.links.kafka.groups import PAGE_GROUPS, Groups
from transom.logs.kafka_address import parse_address
from transom.logs.kafka_cluster import KafkaCluster
from transom.logs.protocol import TopicPartition
from transom.model.errors import ConflictError
from transom.runtime.clock import SystemClock
from transom.runtime.randomness import Randomness
from transom.runtime.telemetry import metrics

TOPICS = {"orders": "eu.orders"}
COPY = TOPICS["orders"]
DROPPED, COUNT = 5, 20


class Offsets:
    """The source's first five records are gone, and the copy begins at 0; `mirrored` is how far it goes."""

    mirrored = COUNT

    def to_target(self, _topic: str, _partition: int, offset: int) -> int | None:
        return max(0, offset - DROPPED) if offset <= self.mirrored else None

    def to_source(self, _topic: str, _partition: int, offset: int) -> int | None:
        return offset + DROPPED


class Pair:
    """Two clusters with `orders` in both, and what carries their groups."""

    def __init__(self, source: Side, target: Side) -> None:
        self.source, self.target = source, target
        self.offsets = Offsets()
        self.groups = self.carrier()

    def carrier(self, **chosen: Any) -> Groups:
        """A mirror that was started just now."""
        return Groups(
            "eu-to-us",
            self.source.cluster,
            self.target.cluster,
            chosen.get("chosen", lambda _: True),
            self.offsets.to_target,
            self.offsets.to_source,
        )

    async def round(self) -> None:
        """A round without trouble."""
        await self.groups.round(TOPICS)
        assert self.groups.troubles == {}

    async def until_empty(self, side: Side, group: str) -> None:
        """Wait until a group's members have left."""
        while not (place := (await listed(side)).get(group)) or place.active:
            await side.cluster.clock.sleep(0.01)


async def listed(side: Side) -> dict[str, Place]:
    """Every group, once all brokers tell theirs."""
    groups = GroupSide(side.cluster)
    while True:
        troubles: list[str] = []
        found = await groups.listed(lambda _what, why: troubles.append(why))  # noqa: B023
        if not troubles:
            return found
        await side.cluster.clock.sleep(0.01)


def value(offset: int) -> bytes:
    return b"order at %d" % offset


@asynccontextmanager
async def mirrored(source: Brokers, target: Brokers) -> AsyncIterator[Pair]:
    async with side_of(source) as here, side_of(target) as there:
        await here.make("orders")
        await there.make(COPY)
        await here.fill("orders", [value(number) for number in range(COUNT)])
        await here.drop("orders", DROPPED)
        await there.fill(COPY, [value(number) for number in range(DROPPED, COUNT)])
        for side in (here, there):  # a new cluster makes the topic of its groups when it is first asked
            await side.place("any", "orders")
        yield Pair(here, there)


@pytest.fixture
async def pair(request: pytest.FixtureRequest, brokers: Brokers, broker39: Brokers) -> AsyncIterator[Pair]:
    """From the newest Kafka to the oldest, unless a test says otherwise."""
    pairs = (broker39, brokers) if getattr(request, "param", "") == "upgrade" else (brokers, broker39)
    async with mirrored(*pairs) as made:
        yield made


both_versions = pytest.mark.parametrize("pair", ["downgrade", "upgrade"], indirect=True)


@both_versions
async def test_a_consumer_goes_on_in_the_target_at_exactly_the_next_record(pair: Pair) -> None:
    """While its group is active at the source; MirrorMaker 2 re-reads up to a sample (KAFKA-12635, 14666)."""
    async with pair.source.consumer("billing", "orders") as consumer:
        assert await take(consumer, 3) == [value(number) for number in (5, 6, 7)]
        await pair.round()
        assert await pair.target.place("billing", COPY) == 3
        assert await take(consumer, 1) == [value(8)]
        await pair.round()
    assert await pair.target.reads("billing", COPY, 2) == [value(9), value(10)]


@both_versions
async def test_a_group_that_read_all_of_a_quiet_topic_has_no_lag_in_the_target(pair: Pair) -> None:
    """KAFKA-13659, KAFKA-15905: with sparse samples there is a lag for ever where nothing is written."""
    await pair.source.reads("billing", "orders", COUNT - DROPPED)
    await pair.round()
    assert await pair.target.place("billing", COPY) == COUNT - DROPPED  # its end


@both_versions
async def test_a_committed_offset_of_0_is_carried(pair: Pair) -> None:
    """KAFKA-10048."""
    await pair.source.make("visits")
    await pair.target.make("eu.visits")
    await pair.source.put("billing", {("visits", 0): 0})
    groups = pair.carrier()
    groups._translate = (lambda _t, _p, offset: offset, lambda _t, _p, offset: offset)
    await groups.round({"visits": "eu.visits"})
    assert await pair.target.place("billing", "eu.visits") == 0


@both_versions
async def test_a_group_that_is_active_in_the_target_is_carried_once_it_has_left(pair: Pair) -> None:
    await pair.source.reads("billing", "orders", 3)
    async with pair.target.consumer("billing", COPY):
        await pair.round()
        await pair.round()
        assert await pair.target.place("billing", COPY) is None
    await pair.until_empty(pair.target, "billing")
    await pair.round()
    assert await pair.target.place("billing", COPY) == 3


async def test_a_broker_refuses_a_group_that_became_active_after_it_was_listed(pair: Pair) -> None:
    await pair.source.reads("billing", "orders", 3)
    await pair.target.put("billing", {(COPY, 0): 1})
    known = await listed(pair.target)
    assert not known["billing"].active

    async def as_before(trouble: Any) -> Any:
        return known

    pair.groups._target.listed = as_before  # type: ignore[method-assign]
    async with pair.target.consumer("billing", COPY):
        await pair.round()
        assert await pair.target.place("billing", COPY) == 1
    await pair.until_empty(pair.target, "billing")
    await pair.round()
    assert await pair.target.place("billing", COPY) == 3


@both_versions
async def test_a_consumer_fails_back_at_exactly_the_next_record(pair: Pair) -> None:
    await pair.source.reads("billing", "orders", 3)
    await pair.round()
    async with pair.target.consumer("billing", COPY) as consumer:
        assert await take(consumer, 2) == [value(8), value(9)]
        await pair.round()
        assert await pair.source.place("billing", "orders") == 10
    assert await pair.source.reads("billing", "orders", 2) == [value(10), value(11)]
    await pair.until_empty(pair.target, "billing")
    await pair.round()
    assert await pair.target.reads("billing", COPY, 1) == [value(12)]


async def test_what_was_carried_is_not_carried_back(pair: Pair) -> None:
    """Or a consumer that goes back in the target on purpose would be pulled forward by its own past."""
    await pair.source.reads("billing", "orders", 3)
    await pair.round()
    assert await pair.source.place("billing", "orders") == 8
    await pair.target.reads("billing", COPY, 4)
    await pair.round()
    assert await pair.source.place("billing", "orders") == 12
    await pair.target.put("billing", {(COPY, 0): 1})
    await pair.round()
    await pair.carrier().round(TOPICS)
    assert await pair.target.place("billing", COPY) == 1


async def test_a_group_never_goes_backwards_unless_asked(pair: Pair) -> None:
    await pair.source.reads("billing", "orders", 10)
    await pair.round()
    await pair.source.put("billing", {("orders", 0): 7})
    await pair.round()
    assert await pair.target.place("billing", COPY) == 10
    assert await pair.groups.rewind("billing", TOPICS) == {TopicPartition(COPY, 0): 2}
    assert await pair.target.place("billing", COPY) == 2
    assert await pair.target.reads("billing", COPY, 1) == [value(7)]


async def test_an_active_group_is_not_rewound(pair: Pair) -> None:
    await pair.source.put("billing", {("orders", 0): 7})
    async with pair.target.consumer("billing", COPY) as consumer:
        await take(consumer, 5)
        with pytest.raises(ConflictError, match="active at the target"):
            await pair.groups.rewind("billing", TOPICS)
    pair.offsets.mirrored = 6
    with pytest.raises(ConflictError, match="ahead of what is mirrored"):
        await pair.groups.rewind("billing", TOPICS)
    assert await pair.target.place("billing", COPY) == 5


async def test_a_group_waits_for_its_records(pair: Pair) -> None:
    await pair.source.reads("billing", "orders", 3)
    pair.offsets.mirrored = 7
    await pair.round()
    assert await pair.target.place("billing", COPY) is None
    pair.offsets.mirrored = 8  # nothing has changed in either cluster
    await pair.round()
    assert await pair.target.place("billing", COPY) == 3


async def test_what_is_not_mirrored_or_not_chosen_is_left_alone(pair: Pair) -> None:
    for side in (pair.source, pair.target):
        await side.make("visits")
    await pair.source.put("billing", {("visits", 0): 4, ("orders", 0): 8})
    await pair.source.put("reports", {("orders", 0): 8})
    await pair.target.put("billing", {("visits", 0): 1})
    groups = pair.carrier(chosen=lambda group: group == "billing")
    await groups.round(TOPICS)
    assert await pair.target.place("billing", COPY) == 3
    assert await pair.target.place("billing", "visits") == 1
    assert "reports" not in await listed(pair.target)


async def test_a_topic_that_is_mirrored_later_has_its_groups_then(pair: Pair) -> None:
    await pair.source.put("billing", {("orders", 0): 8})
    await pair.groups.round({})
    assert await pair.target.place("billing", COPY) is None
    await pair.round()
    assert await pair.target.place("billing", COPY) == 3


async def test_one_deleted_target_topic_does_not_stop_other_topics_and_groups(pair: Pair) -> None:
    """KAFKA-19107: there checkpoints end for ever."""
    await pair.source.make("visits")
    await pair.source.put("billing", {("orders", 0): 8, ("visits", 0): 1})
    await pair.source.put("reports", {("orders", 0): 9})
    await pair.groups.round(TOPICS | {"visits": "eu.visits"})
    assert list(pair.groups.troubles) == ["billing"]
    assert "UNKNOWN_TOPIC" in pair.groups.troubles["billing"]
    assert await pair.target.place("reports", COPY) == 4
    assert await pair.target.place("billing", COPY) == 3
    await pair.target.make("eu.visits")
    await pair.groups.round(TOPICS | {"visits": "eu.visits"})
    assert pair.groups.troubles == {}
    assert await pair.target.place("billing", "eu.visits") == 0


async def test_one_forbidden_group_does_not_stop_the_others(
    brokers: Brokers, secure_brokers: Brokers
) -> None:
    assert secure_brokers.secure is not None
    secure_brokers.allow("link", Right("topic", "eu.*", ("read",)), Right("group", "good*", ("read",)))
    url = f"kafka://link@{secure_brokers.secure.bootstrap('SASL_PLAINTEXT')}"
    link = KafkaCluster(parse_address(url), SystemClock(), Randomness(), password=USERS["link"])
    try:
        async with mirrored(brokers, secure_brokers) as pair:
            for group in ("bad", "good", "good2"):
                await pair.source.put(group, {("orders", 0): 8})
            groups = Groups(
                "m",
                pair.source.cluster,
                link,
                lambda _: True,
                pair.offsets.to_target,
                pair.offsets.to_source,
            )
            await groups.round(TOPICS)
            assert list(groups.troubles) == ["bad"]
            assert "GROUP_AUTHORIZATION_FAILED" in groups.troubles["bad"]
            assert metrics.get_sample_value("transom_mirror_group_failures_total", {"mirror": "m"}) == 1
            assert [await pair.target.place(group, COPY) for group in ("bad", "good", "good2")] == [
                None,
                3,
                3,
            ]
            secure_brokers.allow("link", Right("group", "bad", ("read",)))
            while await pair.target.place("bad", COPY) is None:
                await groups.round(TOPICS)
            assert groups.troubles == {}
    finally:
        await link.close()


async def test_a_group_that_no_broker_lists_is_not_taken_for_a_new_one(
    brokers3: Brokers, broker39: Brokers
) -> None:
    """A coordinator that moves, or that we do not know of yet: what is not listed may be further."""
    async with mirrored(broker39, brokers3) as pair:
        await pair.source.put("billing", {("orders", 0): 8})
        await pair.target.put("billing", {(COPY, 0): 9})
        keeps = (await listed(pair.target))["billing"].node
        pair.groups._target._nodes = tuple(node for node in (1, 2, 3) if node != keeps)
        pair.groups._target._nodes_until = float("inf")
        await pair.round()
        assert await pair.target.place("billing", COPY) == 9
        assert await pair.source.place("billing", "orders") == 14


async def test_a_dead_coordinator_delays_its_groups_alone(brokers3: Brokers, broker39: Brokers) -> None:
    async with mirrored(brokers3, broker39) as pair:
        names = [f"group-{number}" for number in range(12)]
        for group in names:
            await pair.source.put(group, {("orders", 0): 8})
        await listed(pair.source)
        await pair.round()
        lost = max(place.node for place in (await listed(pair.source)).values())
        assert lost > 1  # the first is the controller
        brokers3.kill(lost - 1)
        for group in names:
            await pair.source.put(group, {("orders", 0): 9})
        while {await pair.target.place(group, COPY) for group in names} != {4}:
            await pair.groups.round(TOPICS)
        await asyncio.to_thread(brokers3.start, lost - 1)


class Counted:
    """Counts the requests of both sides."""

    def __init__(self, *clusters: KafkaCluster) -> None:
        self.requests: list[str] = []
        for cluster in clusters:
            cluster.ask = self._counting(cluster.ask)  # type: ignore[method-assign]

    def _counting(self, ask: Any) -> Any:
        async def counting(node: int | None, request: Any, lane: int = 0) -> Any:
            self.requests.append(type(request).__name__)
            return await ask(node, request, lane)

        return counting


async def test_rounds_of_an_idle_mirror_with_200_groups_ask_little_and_decode_nothing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 2 * PAGE_GROUPS
    for number in range(count):
        offsets = {TopicPartition("orders", 0): DROPPED + number % 10}
        assert await pair.groups._source.commit(f"group-{number}", offsets, "")
    await pair.round()  # commits
    await pair.round()  # sees that nothing is left
    counted = Counted(pair.source.cluster, pair.target.cluster)
    monkeypatch.setattr("transom.links.kafka.groups.offsets_in", None)
    monkeypatch.setattr("transom.links.kafka.group_side.groups_in", None)
    await pair.round()
    assert sorted(counted.requests) == ["ListGroupsRequest"] * 2 + ["OffsetFetchRequest"] * 4
    monkeypatch.undo()
    await pair.source.put("group-7", {("orders", 0): 19})
    await pair.round()
    assert counted.requests.count("OffsetCommitRequest") == 1
    assert await pair.target.place("group-7", COPY) == 14


async def test_groups_of_the_new_protocol_are_carried_both_ways(brokers: Brokers, brokers3: Brokers) -> None:
    """KIP-848: the newest consumers' groups, which are another kind in the broker."""
    async with mirrored(brokers, brokers3) as pair:
        async with new_member(pair.source.cluster, "billing", "orders") as member:
            await member.commit(8)
            while await pair.target.place("billing", COPY) is None:
                await pair.round()  # a cluster without groups makes the topic for them first
        assert await pair.target.place("billing", COPY) == 3
        async with new_member(pair.target.cluster, "billing", COPY) as member:
            await member.commit(6)
            await pair.source.put("reports", {("orders", 0): 9})
            await pair.round()
            assert await pair.source.place("billing", "orders") == 11
            assert not await pair.groups._target.commit("billing", {TopicPartition(COPY, 0): 9}, "")
        assert await pair.target.place("billing", COPY) == 6
        while await pair.target.place("reports", COPY) is None:
            await pair.round()  # its brokers may list it a moment later
        assert await pair.target.place("reports", COPY) == 4
        await pair.source.put("billing", {("orders", 0): 12})
        await pair.round()
        assert await pair.target.reads("billing", COPY, 1) == [value(12)]
