"""Topics of a mirror between real clusters: created, followed, refused; seen by what brokers say of them."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest
from aiokafka.protocol.admin import CreatePartitionsRequest, DeleteTopicsRequest, DescribeConfigsRequest

from engines.kafka import Brokers
from engines.kafka_rights import Right
from engines_fixtures import USERS
from mirror_sides import Side, side_of
from transom.links.kafka.lanes import Lanes
from transom.links.kafka.names import Naming, Patterns
from transom.links.kafka.planning import Planning
from transom.links.kafka.shard import Ends
from transom.links.kafka.topic_plan import ALWAYS, Copy, Create, Refuse
from transom.links.kafka.topics import Looked, Topics
from transom.logs.kafka_address import parse_address
from transom.logs.kafka_admin_api import TOPIC, AlterTopicRequest, altered
from transom.logs.kafka_cluster import KafkaCluster
from transom.runtime.clock import SystemClock
from transom.runtime.randomness import Randomness

QUIET = 20
OF_TOPIC, UNKNOWN_IN_4 = 1, "message.downconversion.enable"


async def given(side: Side, topic: str) -> dict[str, str]:
    """The settings that a topic has of its own, as any client is told."""
    answer = await side.cluster.ask(None, DescribeConfigsRequest([(TOPIC, topic, None)]))
    assert answer.resources[0][0] == 0
    return {entry[0]: entry[1] for entry in answer.resources[0][4] if entry[3] == OF_TOPIC}


async def change(side: Side, topic: str, settings: Mapping[str, str], *removed: str) -> None:
    """Change a topic, as its owner would; brokers learn of it a moment later."""
    code, words = altered(await side.cluster.ask(None, AlterTopicRequest(topic, settings, removed)))
    assert code == 0, words
    while not settings.items() <= (held := await given(side, topic)).items() or held.keys() & {*removed}:
        await asyncio.sleep(0.01)


async def grow(side: Side, topic: str, partitions: int) -> None:
    answer = await side.cluster.ask(
        None, CreatePartitionsRequest([(topic, (partitions, None))], 10_000, validate_only=False)
    )
    assert answer.topic_errors[0][1] == 0
    await until_partitions(side, topic, partitions)


async def until_partitions(side: Side, topic: str, partitions: int) -> None:
    while await partitions_of(side, topic) != partitions:
        await asyncio.sleep(0.01)


async def partitions_of(side: Side, topic: str) -> int:
    layout = (await side.cluster.layouts([topic])).get(topic)
    return 0 if layout is None else len(layout.leaders)


class Mirror:
    """The topics of one mirror, and what it notes of copies, as its map topic would keep it."""

    def __init__(self, source: Side, target: Side, topics: Topics) -> None:
        self.source, self.target, self.topics = source, target, topics
        self.copies: dict[str, Copy] = {}
        self.copies_there: dict[str, Copy] = {}
        self.noted: list[dict[str, Copy]] = []

    async def note(self, copies: Mapping[str, Copy]) -> None:
        """Nothing is made before it is noted."""
        there = await self.target.cluster.layouts(None)
        self.noted.append(dict(copies))
        for name, copy in copies.items():
            if name not in self.copies and name in there:
                assert await given(self.target, name) == {}, "changed before it was noted"
            self.copies[name] = copy

    async def look(self) -> Looked:
        return await self.topics.look(self.copies_there, self.copies)

    async def run(self) -> dict[str, str]:
        """Look, and do what is to be done; then nothing is left to do."""
        mirrored = await self.topics.carry_out(await self.look(), self.note)
        for topic, copy in mirrored.items():
            await until_partitions(self.target, copy, await partitions_of(self.source, topic))
        async with asyncio.timeout(30):  # brokers learn of it a moment later
            while any(not isinstance(step, Refuse) for step in (await self.look()).steps):
                await asyncio.sleep(0.01)
        return mirrored


class Sides:
    def __init__(self, source: Side, target: Side) -> None:
        self.source, self.target = source, target

    def mirror(
        self, *include: str, names: str = "prefix", replication_factor: int | None = None, name: str = "m"
    ) -> Mirror:
        topics = Topics(
            name,
            self.source.cluster,
            self.target.cluster,
            Patterns("topics", include or [".*"], []),
            Naming(names, "eu", "live"),
            replication_factor,
        )
        return Mirror(self.source, self.target, topics)


@pytest.fixture
async def sides(request: pytest.FixtureRequest, brokers: Brokers, broker39: Brokers) -> AsyncIterator[Sides]:
    """From the newest Kafka to the oldest, unless a test says otherwise."""
    pair = (broker39, brokers) if getattr(request, "param", "") == "upgrade" else (brokers, broker39)
    async with side_of(pair[0]) as source, side_of(pair[1]) as target:
        yield Sides(source, target)


both_versions = pytest.mark.parametrize("sides", ["downgrade", "upgrade"], indirect=True)


@both_versions
async def test_a_copy_has_its_final_configuration_from_the_first_moment(sides: Sides) -> None:
    """KAFKA-12254."""
    await sides.source.make(
        "settings", 3, {"cleanup.policy": "compact", "segment.bytes": "1048576", "min.insync.replicas": "2"}
    )
    mirror = sides.mirror()
    seen: list[dict[str, str]] = []
    changes = sides.target.cluster.ask

    async def first(node: int | None, asked: object, lane: int = 0) -> object:
        assert not isinstance(asked, AlterTopicRequest), "made otherwise first"
        answer = await changes(node, asked, lane)
        if "Create" in type(asked).__name__:
            while not await partitions_of(sides.target, "eu.settings"):
                await asyncio.sleep(0.01)
            seen.append(await given(sides.target, "eu.settings"))
        return answer

    sides.target.cluster.ask = first  # type: ignore[method-assign]
    assert await mirror.run() == {"settings": "eu.settings"}
    assert seen == [
        {
            "cleanup.policy": "compact",
            "segment.bytes": "1048576",
            "max.message.bytes": "1310735",
            **ALWAYS,
        }
    ]
    assert await partitions_of(sides.target, "eu.settings") == 3


@both_versions
async def test_partitions_and_settings_follow(sides: Sides) -> None:
    await sides.source.make("orders", 1, {"retention.ms": "100000000"})
    mirror = sides.mirror()
    await mirror.run()
    before = await given(sides.target, "eu.orders")
    await change(sides.target, "eu.orders", {"min.insync.replicas": "1", "segment.ms": "7200000"})
    await grow(sides.source, "orders", 3)
    await change(sides.source, "orders", {"retention.ms": "200000000", "segment.bytes": "1048576"})
    await mirror.run()
    theirs = {"min.insync.replicas": "1", "segment.ms": "7200000"}
    changed = {"retention.ms": "200000000", "segment.bytes": "1048576"}
    assert await given(sides.target, "eu.orders") == before | theirs | changed
    await change(sides.source, "orders", {}, "retention.ms", "segment.bytes")
    await mirror.run()
    del before["retention.ms"]
    assert await given(sides.target, "eu.orders") == before | theirs
    assert mirror.copies["eu.orders"] == Copy("m", "orders", ("cleanup.policy",))


async def test_a_setting_that_is_removed_while_the_mirror_ends_is_not_forgotten(sides: Sides) -> None:
    """What came from the original is noted until it is gone."""
    await sides.source.make("orders", 1, {"retention.ms": "100000000"})
    mirror = sides.mirror()
    await mirror.run()
    await change(sides.source, "orders", {"segment.bytes": "1048576"}, "retention.ms")
    looked = await mirror.look()
    with pytest.raises(InterruptedError):
        await mirror.topics.carry_out(looked, interrupted(mirror))
    assert "retention.ms" in await given(sides.target, "eu.orders")
    again = sides.mirror()
    again.copies = mirror.copies
    await again.run()
    assert "retention.ms" not in await given(sides.target, "eu.orders")


def interrupted(mirror: Mirror):
    """The process ends right behind the first note."""

    async def note(copies: Mapping[str, Copy]) -> None:
        await mirror.note(copies)
        raise InterruptedError

    return note


async def test_a_setting_that_the_targets_version_does_not_know_does_not_matter(
    brokers: Brokers, broker39: Brokers
) -> None:
    async with side_of(broker39) as source, side_of(brokers) as target:
        await target.make("there")
        await source.make("orders", 1, {UNKNOWN_IN_4: "false", "retention.ms": "100000000"})
        sides = Sides(source, target)
        mirror = sides.mirror()
        assert await mirror.run() == {"orders": "eu.orders"}
        assert mirror.topics.troubles == {}
        assert (await given(target, "eu.orders"))["retention.ms"] == "100000000"


async def test_a_topic_with_records_of_others_is_refused_and_left_as_it_is(sides: Sides) -> None:
    for topic in ("orders", "visits", "empty"):
        await sides.source.make(topic, 2)
    await sides.target.make("eu.orders", 1, {"retention.ms": "100000000"})
    await sides.target.fill("eu.orders", [b"theirs"])
    await sides.target.make("eu.empty")
    mirror = sides.mirror()
    assert await mirror.run() == {"visits": "eu.visits", "empty": "eu.empty"}
    assert "with records that are not this mirror's" in mirror.topics.troubles["orders"]
    assert await given(sides.target, "eu.orders") == {"retention.ms": "100000000"}
    assert await partitions_of(sides.target, "eu.orders") == 1
    # What had no records was taken, and is as it should be.
    assert ALWAYS.items() <= (await given(sides.target, "eu.empty")).items()
    assert await partitions_of(sides.target, "eu.empty") == 2


async def test_only_who_makes_copies_takes_topics_that_are_there(sides: Sides) -> None:
    """The others wait until it is noted: a mark that they leave in it would make it somebody else's."""
    for topic in ("empty", "filled", "missing"):
        await sides.source.make(topic)
    await sides.target.make("eu.empty")
    await sides.target.make("eu.filled")
    await sides.target.fill("eu.filled", [b"theirs"])
    ends = Ends("m", sides.source.cluster, sides.target.cluster, SystemClock())
    planning = Planning(ends, sides.mirror().topics, Lanes())
    assert await planning.look(change=False) == []


async def test_a_topic_that_cannot_be_made_does_not_stop_the_others(sides: Sides) -> None:
    """A record over 1 MB, or one bad topic, fails all that a MirrorMaker 2 task does."""
    await sides.source.make("orders")
    await sides.source.make("visits")
    await sides.target.make("eu_orders")
    mirror = sides.mirror()
    assert await mirror.run() == {"visits": "eu.visits"}
    assert "'eu_orders'" in mirror.topics.troubles["orders"]
    looked = await mirror.look()
    step = Create("bad", "eu.bad", 1, 1, {"retention.ms": "soon"}, Copy("m", "bad"))
    later = Create("later", "eu.later", 1, 1, {}, Copy("m", "later"))
    names = {"bad": "eu.bad", "later": "eu.later"}
    tried = looked._replace(chosen=looked.chosen._replace(names=names), steps=[step, later])
    assert await mirror.topics.carry_out(tried, mirror.note) == {"later": "eu.later"}
    assert "retention.ms" in mirror.topics.troubles["bad"]


async def test_without_the_right_to_create_it_says_so(brokers: Brokers, secure_brokers: Brokers) -> None:
    assert secure_brokers.secure is not None
    url = f"kafka://link@{secure_brokers.secure.bootstrap('SASL_PLAINTEXT')}"
    link = KafkaCluster(parse_address(url), SystemClock(), Randomness(), password=USERS["link"])
    try:
        async with side_of(brokers) as source, side_of(secure_brokers) as target:
            await source.make("seen")
            topics = Topics("m", source.cluster, link, Patterns("topics", [".*"], []), Naming("prefix", "eu"))

            async def note(_copies: Mapping[str, Copy]) -> None:
                pass

            assert await topics.carry_out(await topics.look({}, {}), note) == {}
            assert "does not let user 'link' use topic 'eu.seen'" in topics.troubles["seen"]
            secure_brokers.allow(
                "link", Right("topic", "eu.*", ("create", "describe", "describe-configs", "read"))
            )
            while not await topics.carry_out(await topics.look({}, {}), note):
                await asyncio.sleep(0.01)
            assert await partitions_of(target, "eu.seen") == 1
    finally:
        await link.close()


async def test_replicas_are_the_originals_as_far_as_there_are_brokers(
    brokers3: Brokers, broker39: Brokers
) -> None:
    async with side_of(brokers3) as source, side_of(broker39) as target:
        await source.make("orders", 1, replicas=3)
        await Sides(source, target).mirror().run()
        assert (await target.cluster.layouts(["eu.orders"]))["eu.orders"].replicas == 1
        back = Sides(target, source).mirror("eu.orders", names="suffix")
        await back.run()
        wide = Sides(target, source).mirror("eu.orders", replication_factor=2, name="n")
        await wide.run()
        there = await source.cluster.layouts(["eu.orders.live-eu", "eu.eu.orders"])
        assert {name: layout.replicas for name, layout in there.items()} == {
            "eu.orders.live-eu": 1,
            "eu.eu.orders": 2,
        }


async def test_identity_in_both_directions_makes_no_loop(sides: Sides) -> None:
    """KAFKA-9726."""
    await sides.source.make("orders")
    await sides.target.make("visits")
    ahead = sides.mirror(names="identity", name="ahead")
    back = Sides(sides.target, sides.source).mirror(names="identity", name="back")
    ahead.copies_there, back.copies_there = back.copies, ahead.copies
    for _ in range(2):
        assert await ahead.run() == {"orders": "orders"}
        assert await back.run() == {"visits": "visits"}
    for side in (sides.source, sides.target):
        there = await side.cluster.layouts(None)
        assert sorted(name for name, layout in there.items() if not layout.internal) == ["orders", "visits"]


async def test_a_pattern_that_mirrors_its_own_output_is_told_before_anything_is_made(
    brokers: Brokers,
) -> None:
    """KAFKA-9914: `a.a.a.topic`; source and target are known as one cluster by its id, not its address."""
    async with side_of(brokers) as one, side_of(brokers) as same:
        await one.make("orders")
        for names in ("prefix", "identity"):
            looked = await Sides(one, same).mirror(names=names).look()
            assert looked.steps == []
            assert len(looked.chosen.mistakes) == 1


async def test_new_topics_and_partitions_are_found_without_waiting_for_the_next_look(sides: Sides) -> None:
    """MirrorMaker 2 looks every ten minutes."""
    await sides.source.make("orders")
    mirror = sides.mirror()
    await mirror.run()
    mirror.topics._look_at = float("inf")
    await sides.source.make("visits")
    await mirror.topics.wait()
    assert set(await mirror.run()) == {"orders", "visits"}
    mirror.topics._look_at = float("inf")
    await grow(sides.source, "orders", 2)
    await mirror.topics.wait()
    await mirror.run()
    assert await partitions_of(sides.target, "eu.orders") == 2


async def test_a_quiet_cluster_tells_no_change(brokers3: Brokers, sides: Sides) -> None:
    async with side_of(brokers3) as source:
        for number in range(5):
            await source.make(f"topic-{number}", 3, replicas=3)
        for number in range(5):
            for _ in range(20):  # whichever broker is asked
                await until_partitions(source, f"topic-{number}", 3)
        mirror = Sides(source, sides.target).mirror()
        await mirror.run()
        for side in (source, sides.target):
            same = 0
            while same < QUIET:  # replicas come into sync first
                same = 0 if await mirror.topics._changed(side.cluster) else same + 1


async def test_a_deleted_copy_is_made_again_and_stops_no_other(sides: Sides) -> None:
    """KAFKA-19107."""
    for topic in ("orders", "visits"):
        await sides.source.make(topic)
    mirror = sides.mirror()
    await mirror.run()
    await sides.target.cluster.ask(None, DeleteTopicsRequest(["eu.orders"], 10_000))
    while await partitions_of(sides.target, "eu.orders"):
        await asyncio.sleep(0.01)
    assert set(await mirror.run()) == {"orders", "visits"}
    assert await partitions_of(sides.target, "eu.orders") == 1
