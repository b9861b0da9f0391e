"""How long a record is on its way through a mirror: sent to the source → read at the target.

Batches are sent at a steady pace, whether or not the one before has been mirrored; the first record of each
carries when it was sent. A reader that waits at the target takes the time when it has it. Both are this
process. Next on the data's way: `mirror.py`.
"""

import asyncio
import time

from benchmarks.mirror_load import Wire, make_batch, make_batches
from benchmarks.mirror_sides import Clusters, Side, Starter, passing
from transom.runtime.clock import SystemClock

TOPIC = "pace"
PARTITIONS = 8
WARM_RECORDS = 1_000_000
"""What is mirrored before: Java is to have compiled what it runs."""
SETTLE_SECONDS = 3.0
SECONDS = 8.0
_AT_ONCE = {"target.producer.linger.ms": 0}
"""The tuning for MirrorMaker's latency; its batches grow by themselves while a request is under way."""
_READING, _WAIT_MS = 7, 500


async def measure(both: Clusters, start: Starter, rate: float) -> list[float]:
    """Milliseconds of every batch in `SECONDS`, at `rate` records a second in batches of 16 KiB."""
    batches, each = make_batches(100, 16 << 10)
    await both.at_source.create(TOPIC, PARTITIONS)
    await both.at_source.load(TOPIC, PARTITIONS, batches, WARM_RECORDS // each)
    warm = WARM_RECORDS // each * each
    async with start(both.source.bootstrap, both.target.bootstrap, TOPIC, _AT_ONCE) as mirror:
        await passing(mirror, both.at_target, TOPIC, [warm], [])
        found = await _paced(both, mirror, rate / each)
    await both.at_target.delete(mirror.copy(TOPIC))
    await both.at_source.delete(TOPIC)
    return found


async def _paced(both: Clusters, mirror: Side, batches_per_second: float) -> list[float]:
    """Send for a while; the milliseconds of what was sent after the mirror had settled."""
    found: dict[int, float] = {}
    read = asyncio.Event()
    settling, count = (int(batches_per_second * seconds) for seconds in (SETTLE_SECONDS, SECONDS))
    wanted = settling + count
    copy = mirror.copy(TOPIC)

    async def follow() -> None:
        offsets = await both.at_target.ends(copy)
        while len(found) < wanted:
            for partition, batch in await both.at_target.fetch(copy, offsets, _WAIT_MS, _READING):
                now = time.perf_counter()
                offsets[partition] = max(offsets[partition], batch.next_offset)
                for record in batch:
                    if record.key:
                        number, sent = record.key.split()
                        found[int(number)] = 1000 * (now - float(sent))
        read.set()

    async with asyncio.TaskGroup() as group:
        reader = group.create_task(follow())
        await _send(both.at_source, batches_per_second, wanted)
        async with asyncio.timeout(60):
            await read.wait()
        reader.cancel()
    return [taken for number, taken in found.items() if number >= settling]


async def _send(source: Wire, batches_per_second: float, count: int) -> None:
    now_ms = int(SystemClock().wall() * 1000)
    values = [b"%0100d" % number for number in range(149)]
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            due = began + number / batches_per_second
            await asyncio.sleep(due - time.perf_counter())
            keys = [b"%d %f" % (number, time.perf_counter()), *[None] * (len(values) - 1)]
            batch = make_batch(values, now_ms, keys)
            group.create_task(source.produce(TOPIC, [(number % PARTITIONS, batch)]))
