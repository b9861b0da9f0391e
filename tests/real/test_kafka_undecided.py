"""Who looks without waiting sees all that was appended before, also behind what others have not decided."""

import asyncio

from aiokafka import AIOKafkaProducer

from engines.kafka import Brokers
from kafka_logs import emptied_log
from transom.links.mirror import MirrorPosition, PartitionPosition
from transom.links.positions import POSITIONS, position_message, read_position


async def test_a_position_behind_anothers_open_transaction_is_not_missed(brokers: Brokers) -> None:
    """A relay that began again at an older one published again what was published."""
    stood = MirrorPosition({"events/0": PartitionPosition("id", 7)})
    async with emptied_log(brokers) as log:
        await log.create([POSITIONS])
        other = AIOKafkaProducer(bootstrap_servers=brokers.bootstrap, transactional_id="other")
        async with other:
            await other.begin_transaction()
            await other.send_and_wait(POSITIONS.name, b"{}", key=b"other")
            fence = await log.take_fence("relay")
            await log.append([position_message("relay", stood)], fence=fence)
            reading = asyncio.create_task(read_position(log, "relay", MirrorPosition))
            await asyncio.wait([reading], timeout=0.5)  # as long as it likes to think that nothing is there
            await other.commit_transaction()
            assert await reading == stood
