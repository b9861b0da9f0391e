"""The rights that docs/how-to/engines.md tells people to give are enough, and no more than it says."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engines.kafka import Brokers
from engines.kafka_secure import Secure
from kafka_acls import rights_in
from transom.links.positions import POSITIONS
from transom.logs.kafka import KafkaLog
from transom.logs.protocol import Message, Topic, TopicPartition
from transom.model.errors import ForbiddenError
from transom.region.registry import PROCESSES, LogRegistry, fence_of
from transom.region.topics import GATEWAY_RIGHTS, LINK_RIGHTS, TOPICS
from transom.runtime.clock import SystemClock
from transom.runtime.duties import Member
from transom.runtime.randomness import Randomness

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "engines.md"
USERS = {name: f"{name}-password" for name in ("eu", "link", "gateway", "hub")}


@asynccontextmanager
async def log_of(brokers: Brokers, user: str) -> AsyncIterator[KafkaLog]:
    assert brokers.secure is not None
    url = f"kafka://{user}@{brokers.secure.bootstrap('SASL_PLAINTEXT')}"
    log = KafkaLog(url, SystemClock(), Randomness(), password=USERS[user])
    try:
        yield log
    finally:
        await log.close()


@pytest.fixture
def strict_brokers(shared_brokers: Brokers) -> Brokers:
    """Started only where brokers can be."""
    return Brokers(secure=Secure(USERS))


async def append_to(log: KafkaLog, topics: Sequence[str]) -> None:
    for topic in topics:
        await log.append([Message(topic, b"key", b"value")])


async def read_from(log: KafkaLog, topics: Sequence[str]) -> None:
    await log.topics()
    for topic in topics:
        await log.bounds(topic)
        await log.read({TopicPartition(topic, 0): 0})


async def refused(log: KafkaLog, topics: Sequence[str]) -> None:
    for topic in topics:
        with pytest.raises(ForbiddenError):
            await append_to(log, [topic])


async def test_what_the_page_says_is_enough_and_no_more(strict_brokers: Brokers) -> None:
    own = ["status", "heartbeats", "gateways", "digests"]
    async with strict_brokers as brokers:
        for user in ("eu", "link", "gateway"):
            brokers.allow(user, *rights_in(PAGE, "$ACLS", user))
        async with log_of(brokers, "eu") as region:
            await region.create(TOPICS)
            await append_to(region, own)
            many = [Message("status", b"%d" % number, bytes(900_000)) for number in range(3)]
            await region.append(many)  # a transaction: more than a batch holds
            await read_from(region, [topic.name for topic in TOPICS])
            registry = LogRegistry(region)
            seen = (await registry.beat("one", Member("", 1), ["zone/a"])).leases["zone/a"]
            lease = await registry.take(seen, None, "one")
            assert lease is not None
            await region.append(many[:1], fence=fence_of(lease))
            await refused(region, ["desired", "contexts", "contexts-bulk", "sweeps"])
        async with log_of(brokers, "link") as link:
            await link.create([POSITIONS])
            fence = await link.take_fence("publish/eu")
            batch = [Message(topic, b"key", b"value") for topic in sorted(LINK_RIGHTS.append)]
            await link.append(batch, fence=fence)
            await append_to(link, sorted(LINK_RIGHTS.append))
            await read_from(link, sorted(LINK_RIGHTS.read))
            await refused(link, [*own, PROCESSES.name])
            with pytest.raises(ForbiddenError):
                await link.take_fence(fence_of(lease).name)
        async with log_of(brokers, "gateway") as gateway:
            await append_to(gateway, sorted(GATEWAY_RIGHTS.append))
            await read_from(gateway, sorted(GATEWAY_RIGHTS.read))
            await refused(gateway, ["desired", "contexts", "status", "heartbeats"])
            with pytest.raises(ForbiddenError):
                await gateway.take_fence("publish/eu")


async def test_what_the_page_gives_to_a_hub_is_enough(strict_brokers: Brokers) -> None:
    async with strict_brokers as brokers:
        brokers.allow("hub", *rights_in(PAGE, "$ACLS", "hub"))
        async with log_of(brokers, "hub") as hub:
            await hub.create([POSITIONS, Topic("changes", 2), Topic("status.live-eu", compact=True)])
            await hub.create([Topic("changes", 3)])
            fence = await hub.take_fence("relay")
            await hub.append(
                [Message("changes", b"a", b"1"), Message("status.live-eu", b"b", b"2")], fence=fence
            )
            await read_from(hub, ["changes", "status.live-eu"])
            while (member := await hub.join("controllers", "one", ["changes"])).generation < 0:
                await asyncio.sleep(0.01)
            await hub.commit(member, {member.assigned[0]: 0})
            assert await hub.committed("controllers")
