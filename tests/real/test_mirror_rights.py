"""The rights that docs/how-to/mirror.md tells people to give are enough for a mirror, and no more than it
needs; where one is missing, one error says which, and nothing was changed.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from aiokafka.protocol.admin import CreatePartitionsRequest

import mirror_loads as loads
from cli_here import refused, runner
from cli_parts import transom
from engines.kafka import Brokers
from engines.kafka_rights import Right
from engines_fixtures import USERS
from mirror_reading import bounds
from mirror_secure import AT_SOURCE, AT_TARGET, end_of, rights_at, without
from mirror_sides import Side, side_of
from mirror_world import PATIENCE_SECONDS, World
from transom.links.kafka.status import PartitionStatus
from transom.logs.kafka import KafkaLog
from transom.logs.kafka_produce import begin_producer
from transom.logs.protocol import Message, TopicPartition
from transom.model.errors import ForbiddenError
from transom.processes.mirror_orders import MirrorOrders, mirror_orders
from transom.runtime.clock import SystemClock
from transom.runtime.randomness import Randomness

OWN = ("transom-mirror-map", "transom-mirror-control", "transom-mirror-status")


class Ends:
    """Two clusters that let nobody do anything yet."""

    def __init__(self, source: Side, target: Side, folder: Path) -> None:
        self.source, self.target, self.folder = source, target, folder

    def mirror(self, user: str, here: Sequence[Right], there: Sequence[Right], include: list[str]) -> World:
        """The mirror of the page, under a user who has these rights."""
        self.source.brokers.allow(user, *here)
        self.target.brokers.allow(user, *there)
        brokers = (self.source.brokers, self.target.brokers)
        ends = [end_of(each, self.folder, user=user) for each in brokers]
        folder = self.folder / user
        return World(*brokers, folder, name="orders", include=include, ends=(ends[0], ends[1]))

    def log(self, side: Side, user: str = "mirror") -> KafkaLog:
        """A cluster as the mirror's user sees it."""
        assert side.brokers.secure is not None
        url = f"kafka://{user}@{side.brokers.secure.bootstrap('SASL_PLAINTEXT')}"
        return KafkaLog(url, SystemClock(), Randomness(), password=USERS[user])


@pytest.fixture
async def ends(secure_brokers: Brokers, far_secure_brokers: Brokers, tmp_path: Path) -> AsyncIterator[Ends]:
    async with side_of(secure_brokers) as source, side_of(far_secure_brokers) as target:
        yield Ends(source, target, tmp_path)


async def topics_of(side: Side) -> set[str]:
    return {name for name, layout in (await side.cluster.layouts(None)).items() if not layout.internal}


async def until_placed(side: Side, group: str, topic: str, offset: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await side.place(group, topic) != offset:
            await asyncio.sleep(0.1)


async def grow(side: Side, topic: str, partitions: int) -> None:
    asked = CreatePartitionsRequest([(topic, (partitions, None))], 10_000, validate_only=False)
    assert (await side.cluster.ask(None, asked)).topic_errors[0][1] == 0


async def test_what_the_page_says_is_enough(ends: Ends) -> None:
    source, target = ends.source.brokers, ends.target.brokers
    seed = random.Random(1)
    load = await asyncio.to_thread(loads.plain, source.bootstrap, "orders", seed, count=60, partitions=2)
    cards = await asyncio.to_thread(
        loads.plain, source.bootstrap, "payments.cards", seed, count=20, partitions=1
    )
    include = ["orders", "payments[.].*"]
    world = ends.mirror("mirror", rights_at(AT_SOURCE), rights_at(AT_TARGET), include)
    async with world.running():
        await world.check(load)
        await world.check(cards)
        async with mirror_orders(world.config) as orders:
            assert sorted((await orders.plan()).chosen.names) == ["orders", "payments.cards"]
            await carry_groups(ends, orders)
            await command(world, orders)
        await grow(ends.source, "orders", 3)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(await asyncio.to_thread(bounds, target.bootstrap, "eu.orders")) < 3:
                await asyncio.sleep(0.1)
        await world.told(lambda parts: len(parts) == 4)
        async with mirror_orders(world.config) as orders, asyncio.timeout(PATIENCE_SECONDS):
            while (await orders.status())[0].troubles:
                await asyncio.sleep(0.1)


async def carry_groups(ends: Ends, orders: MirrorOrders) -> None:
    """Have a plain consumer go there and back."""
    at = TopicPartition("payments.cards", 0)
    await ends.source.reads("billing", at.topic, 5)
    here = await ends.source.place("billing", at.topic)
    assert here is not None
    copy, there = await orders.translate(at, here, back=False)
    await until_placed(ends.target, "billing", copy.topic, there)
    await ends.target.reads("billing", copy.topic, 3)
    there = await ends.target.place("billing", copy.topic)
    assert there is not None
    _, back = await orders.translate(at, there, back=True)
    assert back > here
    await until_placed(ends.source, "billing", at.topic, back)
    await ends.source.put("billing", {("payments.cards", 0): 1})
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (moved := await orders.rewind("billing")):
            await asyncio.sleep(0.1)
    assert list(moved) == [copy]


async def command(world: World, orders: MirrorOrders) -> None:
    """Give every order that there is."""

    def states(wanted: str) -> Callable[[list[PartitionStatus]], bool]:
        return lambda parts: {each.state for each in parts if each.topic == "orders"} == {wanted}

    await orders.pause("orders")
    await world.told(states("paused"))
    await orders.resume("orders")
    await world.told(states("mirroring"))
    end = (await asyncio.to_thread(bounds, world.source.bootstrap, "orders"))[0][1]
    await orders.skip(TopicPartition("orders", 0), end)
    await world.told(lambda parts: any(each.gaps for each in parts))


async def test_it_is_no_more_than_a_mirror_needs(ends: Ends) -> None:
    """Other topics can neither be read nor written, nor can another mirror's shards be taken."""
    for side, topics in ((ends.source, ("orders", "secrets")), (ends.target, ("eu.orders", "theirs"))):
        for topic in topics:
            await side.make(topic)
            await side.fill(topic, [b"value"])
    ends.mirror("mirror", rights_at(AT_SOURCE), rights_at(AT_TARGET), ["orders"])
    here, there = ends.log(ends.source), ends.log(ends.target)
    try:
        assert len(await here.read({TopicPartition("orders", 0): 0})) == 1
        assert len(await there.read({TopicPartition("eu.orders", 0): 0})) == 1
        for log, topic in ((here, "secrets"), (there, "theirs")):
            with pytest.raises(ForbiddenError):
                await log.read({TopicPartition(topic, 0): 0})
        for log, topic in ((here, "secrets"), (here, "orders"), (there, "theirs")):
            with pytest.raises(ForbiddenError):
                await log.append([Message(topic, b"key", b"value")])
        assert await begin_producer(there._cluster, "transom.mirror.orders.7")
        for cluster, name in (
            (there._cluster, "transom.mirror.others.7"),
            (here._cluster, "transom.mirror.orders.7"),
        ):
            with pytest.raises(ForbiddenError, match=f"transactional id '{name}'.*grant it Write"):
                await begin_producer(cluster, name)
    finally:
        await here.close()
        await there.close()
    assert await asyncio.to_thread(bounds, ends.target.brokers.bootstrap, "theirs") == {0: (0, 1)}


async def test_what_the_mirror_itself_lacks_ends_it_with_one_error_and_nothing_changed(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await ends.source.make("orders")
    here, there = rights_at(AT_SOURCE), rights_at(AT_TARGET)
    own = "Create and Read and Write and DescribeConfigs"
    lacks = {
        "mirror-0": (
            without(here, "topic", "transom-mirror-map"),
            there,
            "topic 'transom-mirror-map'; grant it Read (docs",
        ),
        "mirror-1": (
            here,
            without(there, "topic", "transom-mirror-control"),
            f"topic 'transom-mirror-control'; grant it {own} (docs",
        ),
        "mirror-2": (
            here,
            without(there, "transactional-id", "transom.mirror.orders.*"),
            "transactional id 'transom.mirror.orders.0' (TRANSACTIONAL_ID_AUTHORIZATION_FAILED); grant it Wr",
        ),
        "mirror-3": (
            here,
            without(there, "group", "*"),
            "group 'transom-mirror-orders' (GROUP_AUTHORIZATION_FAILED); grant it Read",
        ),
    }
    worlds = {
        user: ends.mirror(user, at_source, at_target, ["orders"])
        for user, (at_source, at_target, _) in lacks.items()
    }
    run = runner(monkeypatch, capsys)
    configs = [str(world.config) for world in worlds.values()]
    ran = [
        *(await asyncio.gather(*(transom("mirror", "-c", file, cwd=ends.folder) for file in configs[:2]))),
        *[await run("mirror", "--dry-run", "-c", file) for file in configs[2:]],
    ]
    for told, user in zip(ran, worlds, strict=True):
        refused(told, 1, f"does not let user {user!r} use {lacks[user][2]}")
    assert await topics_of(ends.target) == set()


async def test_a_right_that_is_missing_on_one_topic_is_named_and_keeps_no_other_from_being_mirrored(
    ends: Ends,
) -> None:
    everything = ("create", "read", "write", "alter", "alter-configs")
    at_source = ("read", "describe-configs")
    topics = ("fine", "no-settings", "no-copy", "no-create", "no-write", "no-use", "no-alter")
    for topic in topics:
        await ends.source.make(topic, 2)
        await ends.source.fill(topic, [b"value"])
    for topic in ("eu.no-write", "eu.no-alter"):
        await ends.target.make(topic)
    here = [Right("topic", "no-settings", ("read",)), Right("topic", "transom-mirror-map", ("read",))]
    here += [Right("topic", topic, at_source) for topic in topics if topic != "no-settings"]
    there = [
        *(Right("topic", topic, ("create", "read", "write", "describe-configs")) for topic in OWN),
        *(Right("topic", topic, everything) for topic in ("eu.fine", "eu.no-settings")),
        Right("topic", "eu.no-create", everything[1:]),
        Right("topic", "eu.no-write", ("create", "read", "describe-configs")),
        Right("topic", "eu.no-use", ("create", "describe")),
        Right("topic", "eu.no-alter", ("create", "read", "write", "alter-configs")),
        Right("transactional-id", "transom.mirror.orders.*", ("write",)),
        Right("group", "transom-mirror-orders", ("read",)),
        Right("group", "good", ("read",)),
        Right("group", "bad", ("describe",)),
    ]
    world = ends.mirror("mirror-4", [*here, Right("group", "*", ("read",))], there, [".*"])
    for group in ("good", "bad"):
        await ends.source.put(group, {("fine", 0): 1})
    said = {
        "no-settings: ": "use topic 'no-settings'; grant it DescribeConfigs (",
        "no-copy: ": "topic 'eu.no-copy'; grant it Create and Read and Write and Alter and AlterConfigs (",
        "no-create: ": "use topic 'eu.no-create' (TOPIC_AUTHORIZATION_FAILED); grant it Create (",
        "no-write: ": "use topic 'eu.no-write'; grant it Write (",
        "no-use: ": "use topic 'eu.no-use'; grant it Read and Write and DescribeConfigs (",
        "no-alter: ": "use topic 'eu.no-alter' (TOPIC_AUTHORIZATION_FAILED); grant it Alter (",
        "bad: ": "use group 'bad' (GROUP_AUTHORIZATION_FAILED); grant it Read (",
    }
    async with world.running():
        await world.told(lambda parts: {e.topic for e in parts if e.done == 1} == {"fine", "no-alter"})
        await until_placed(ends.target, "good", "eu.fine", await copied_to(world, "fine", 1))
        troubles: tuple[str, ...] = ()
        async with mirror_orders(world.config) as orders, asyncio.timeout(PATIENCE_SECONDS):
            while not all(any(told.startswith(about) for told in troubles) for about in said):
                await asyncio.sleep(0.1)
                troubles = (await orders.status())[0].troubles
    for about, wanted in said.items():
        (told,) = [each for each in troubles if each.startswith(about)]
        assert wanted in told
    assert await topics_of(ends.target) == {*OWN, "eu.fine", "eu.no-write", "eu.no-use", "eu.no-alter"}
    for topic in ("eu.no-write", "eu.no-use"):
        held = await asyncio.to_thread(bounds, ends.target.brokers.bootstrap, topic)
        assert set(held.values()) == {(0, 0)}, topic


async def copied_to(world: World, topic: str, offset: int) -> int:
    async with mirror_orders(world.config) as orders:
        return (await orders.translate(TopicPartition(topic, 0), offset, back=False))[1]
