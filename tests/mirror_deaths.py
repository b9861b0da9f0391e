"""A mirror that dies while producers write, at its durable steps or at any moment, and is started again."""

import asyncio
import signal
from collections.abc import Sequence

from benchmarks.plant import Part

from mirror_checker import Checked
from mirror_world import World
from mirror_writers import Writer

ANY_MOMENT = "at"
_REACHED_SECONDS = 60


async def die_and_go_on(world: World, topic: str, die_at: Sequence[str], seed: int) -> Checked:
    """Make `topic`, have the only process of `world` die at each of these ("carry.kept:3", or "at:0.5", in
    seconds after its start), and then go on; the copy is exact.
    """
    writer = await asyncio.to_thread(Writer, world.source.bootstrap, topic, seed)
    await writer.times(2)
    (part,) = world.parts
    for point in die_at:
        await _die(part, point, writer)
    part.start()
    await writer.times(5)
    checked = await world.check(writer.load)
    assert checked.records > 100
    return checked


async def _die(part: Part, point: str, writer: Writer) -> None:
    """Start, and die when the time has come, while `writer` writes."""
    kind, when = point.split(":")
    if kind == ANY_MOMENT:
        part.start()
        over = asyncio.get_running_loop().time() + float(when)
        await writer.until(lambda: asyncio.get_running_loop().time() > over)
        part.kill()
        return
    part.start(die_at=point)
    try:
        async with asyncio.timeout(_REACHED_SECONDS):
            await writer.until(lambda: not part.running)
    except TimeoutError:
        raise AssertionError(f"never came to {point}:\n{part.output()[-3000:]}") from None
    assert part.process is not None
    assert part.process.returncode == -signal.SIGKILL, part.output()[-3000:]
