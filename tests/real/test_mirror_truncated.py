"""A source that loses records and grows beyond where it was has others there: noticed by the epochs of its
leaders, whether the mirror runs meanwhile or not. (By offsets alone nobody can tell.)
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from engines.kafka import Brokers
from mirror_reading import bounds, quietly, read
from mirror_world import World, emptied
from transom.links.kafka.status import PartitionStatus

FIRST, SECOND = 1, 2  # brokers that have the topic; the other one is the controller
KEPT, LOST, NEW = 30, 20, 45


@pytest.fixture
async def empty_clusters(brokers3: Brokers, far_brokers: Brokers) -> AsyncIterator[None]:
    async with emptied(brokers3, far_brokers):
        yield


class Source:
    """A topic of two replicas, of which the one that is behind may lead."""

    def __init__(self, brokers: Brokers, topic: str) -> None:
        self.brokers, self.topic = brokers, topic
        nodes = [FIRST + 1, SECOND + 1]
        settings = {"unclean.leader.election.enable": "true", "min.insync.replicas": "1"}
        new = NewTopic(topic, 1, replica_assignment=[nodes], config=settings)
        admin = AdminClient(quietly(brokers.bootstrap))
        for made in admin.create_topics([new]).values():
            made.result(30)

    def write(self, begin: int, count: int) -> None:
        producer = Producer(quietly(self.brokers.bootstrap) | {"acks": "1"})
        for number in range(begin, begin + count):
            producer.produce(self.topic, b"%d" % number, partition=0)
        assert producer.flush(60) == 0

    def lose(self) -> None:
        """Lose what only one replica has, once it is mirrored, and write more than that."""
        self.brokers.kill(FIRST)
        self.brokers.start(SECOND)
        self.write(1000, NEW)
        assert bounds(self.brokers.bootstrap, self.topic)[0] == (0, KEPT + NEW)


async def stopped(world: World) -> PartitionStatus:
    (told,) = await world.told(lambda parts: any(each.state == "stopped" for each in parts))
    return told


@pytest.mark.parametrize(("mirror", "policy"), [("stopped", "stop"), ("frozen", "continue")])
async def test_a_leader_that_was_behind_is_noticed(
    brokers3: Brokers, far_brokers: Brokers, tmp_path: Path, empty_clusters: None, mirror: str, policy: str
) -> None:
    topic = f"{mirror}-{policy}"
    source = await asyncio.to_thread(Source, brokers3, topic)
    await asyncio.to_thread(source.write, 0, KEPT)
    world = World(brokers3, far_brokers, tmp_path, include=[topic], topics=f'when_lost = "{policy}"')
    async with world.running():
        await world.caught_up(topic)
        await asyncio.to_thread(brokers3.kill, SECOND)
        await asyncio.to_thread(source.write, KEPT, LOST)
        while (await asyncio.to_thread(bounds, brokers3.bootstrap, topic))[0][1] < KEPT + LOST:
            await asyncio.sleep(0.1)  # until the other is known to be gone, nobody may read it
        await world.caught_up(topic)
        if mirror == "frozen":
            world.parts[0].signal(signal.SIGSTOP)
            await asyncio.to_thread(source.lose)
            world.parts[0].signal(signal.SIGCONT)
            await judged(world, topic, policy)
    if mirror == "stopped":
        await asyncio.to_thread(source.lose)
        async with world.running():
            await judged(world, topic, policy)


async def judged(world: World, topic: str, policy: str) -> None:
    gap = (KEPT, KEPT + LOST)
    if policy == "stop":
        told = await stopped(world)
        assert f"truncated at offset {KEPT} and written anew" in told.why
    else:
        await world.caught_up(topic)
    record = (await world.kept(topic, 0)).record
    assert record is not None
    assert [(each.begin, each.end) for each in record.gaps] == [gap]
    copy = (await asyncio.to_thread(read, world.target.bootstrap, f"eu.{topic}", committed=True))[0]
    new = range(1000, 1000 + NEW) if policy == "continue" else ()
    assert [int(each.value) for each in copy.records] == [*range(KEPT + LOST), *new]
