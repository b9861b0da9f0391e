"""Which partitions are mirrored now: what `topics` has found and made, as `shard` takes it.

The owner of the first shard makes and changes copies, and notes whose they are under the shard's fence; the
other processes take what is there. Next on the data's way: `mirroring`.
"""

from collections.abc import Mapping, Sequence

from transom.links.kafka.lanes import Lanes
from transom.links.kafka.ledger import COPIES_SHARD, read_copies
from transom.links.kafka.rights import COPY, lacking
from transom.links.kafka.shard import Copied, Ends
from transom.links.kafka.topic_plan import Adopt, Copy, Create, Refuse
from transom.links.kafka.topics import Looked, Topics
from transom.logs.kafka_produce import ProducerLostError
from transom.model.errors import FencedError

_CONNECTION = (1 << 18) + 1


class Planning:
    """The topics of one mirror."""

    def __init__(self, ends: Ends, topics: Topics, lanes: Lanes) -> None:
        self._ends, self._topics, self._lanes = ends, topics, lanes
        self._left_out: Mapping[str, str] = {}

    @property
    def troubles(self) -> dict[str, str]:
        """What is chosen and not mirrored, and why."""
        return {**self._left_out, **self._topics.troubles}

    async def wait(self) -> None:
        """Until another look is worth while."""
        await self._topics.wait()

    async def plan(self) -> Looked:
        """What is to be done. Raises what the clusters raise."""
        there = await read_copies(self._ends.source, _CONNECTION)
        return await self._topics.look(there, await read_copies(self._ends.target, _CONNECTION))

    async def look(self, *, change: bool) -> Sequence[Copied]:
        """Look at both clusters, and, to `change`, make copies what they are to be; those that there are."""
        looked = await self.plan()
        self._left_out = looked.chosen.left_out
        if change:
            names = await self._topics.carry_out(looked, self._note)
        else:
            # What is no copy yet is left alone until it is noted as one: a mark or a record in it, and it
            # looks like somebody else's.
            new = {step.topic for step in looked.steps if isinstance(step, Create | Adopt | Refuse)}
            names = {topic: copy for topic, copy in looked.chosen.names.items() if topic not in new}
        return await self._copied(names, looked.deletes_kept)

    async def _note(self, copies: Mapping[str, Copy]) -> None:
        shard = self._lanes.shards.get(COPIES_SHARD)
        if shard is None:
            raise FencedError("the first shard went to another process; it makes the copies")
        try:
            await shard.keep_copies(copies)
        except ProducerLostError as error:
            raise FencedError(f"the first shard was taken by another process: {error}") from None

    async def _copied(self, names: Mapping[str, str], deletes_kept: Mapping[str, float]) -> list[Copied]:
        source = await self._ends.source.layouts(names)
        target = await self._ends.target.layouts(list(names.values()))
        # What was made just now could not be asked about before.
        forbidden = await lacking(self._ends.target, names.values(), COPY)
        return [
            Copied(
                topic,
                copy,
                source[topic].topic_id,
                target[copy].topic_id,
                min(len(source[topic].leaders), len(target[copy].leaders)),
                deletes_kept[topic],
            )
            for topic, copy in sorted(names.items())
            if topic in source and copy in target and copy not in forbidden
        ]
