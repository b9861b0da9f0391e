"""The checker of mirrors and compacted topics, without a mirror: a copy passes whenever it was made and
whoever was cleaned, and what must not be missing, be there, or live on is found.
"""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from engines.kafka import Brokers
from kafka_batches import batches
from kafka_logs import empty
from mirror_checker import DifferentError, check
from mirror_compacted import check_compacted
from mirror_compacted_loads import Compacted
from mirror_copying import copied, parts, raw, translation, write_copy
from mirror_loads import make_topic
from mirror_reading import Record, read


@pytest.fixture
async def bootstrap(brokers: Brokers) -> AsyncIterator[str]:
    yield brokers.bootstrap
    await empty(brokers)


@pytest.fixture
def randomness() -> random.Random:
    return random.Random(5)


async def test_compacted_topics_pass_whenever_they_are_copied_and_cleaned(
    brokers: Brokers, bootstrap: str, randomness: random.Random
) -> None:
    load = Compacted(bootstrap, "table", randomness, codec="lz4")
    load.write(200)
    before = copied(load.load, "before")
    await check(bootstrap, bootstrap, "table", "before", load.load.expected)
    load.clean()
    kept = [one for number in range(2) for one in batches(brokers, "table", number)]
    assert any(one.count == 0 for one in kept), "no batch that the cleaner emptied"
    assert any(one.delete_horizon for one in kept), "no delete marker with its horizon"
    assert any(0 < one.count <= one.last_offset - one.base_offset for one in kept), "no batch with gaps"
    load.write(200)
    before, while_ = copied(load.load, "before", before), copied(load.load, "while")
    load.clean()
    before, while_ = copied(load.load, "before", before), copied(load.load, "while", while_)
    after = copied(load.load, "after")
    assert len(before) > len(while_) > len(after) > 0
    for copy, places in (("before", before), ("while", while_), ("after", after)):
        there = (bootstrap, bootstrap, "table", copy, load.load.history)
        await check_compacted(*there, cleaned=False, to_target=translation(load.load, places))
    counted = {number: len(one.records) for number, one in read(bootstrap, "table", committed=True).items()}
    assert sum(counted.values()) == len(after)
    await check(bootstrap, bootstrap, "table", "after", counted)


async def test_a_copy_that_was_cleaned_too_passes(bootstrap: str, randomness: random.Random) -> None:
    load = Compacted(bootstrap, "table", randomness)
    load.write(80)
    load.clean()
    make_topic(bootstrap, "copy", 2, load.config)
    load.write(80)
    places = copied(load.load, "copy", {})
    load.clean()
    places = copied(load.load, "copy", places)  # with it goes what has the cleaner come
    there = (bootstrap, bootstrap, "table", "copy", load.load.history)
    async with asyncio.timeout(60):
        while sum(len(one.records) for one in read(bootstrap, "copy", committed=False).values()) > 60:
            await asyncio.sleep(0.05)
    right = translation(load.load, places)
    await check_compacted(*there, cleaned=True, to_target=right)
    copies = {one.timestamp_ms for one in read(bootstrap, "copy", committed=False)[0].records}
    gone = next(one for one in load.load.history[0] if one.timestamp_ms not in copies)
    held = next(one for one in load.load.history[0] if one.timestamp_ms in copies)
    for one, by in ((gone, 1000), (held, 1), (held, -1)):

        def to_target(topic: str, number: int, offset: int, one: Record = one, by: int = by) -> int:
            return right(topic, number, offset) + by * ((number, offset) == (0, one.offset))

        with pytest.raises(DifferentError, match=f"source offset {one.offset}: is translated to"):
            await check_compacted(*there, cleaned=True, to_target=to_target)


async def test_a_deleted_key_must_not_live_on(bootstrap: str, randomness: random.Random) -> None:
    load = Compacted(bootstrap, "table", randomness, delete_retention_ms=1)
    load.write(80)
    load.delete(3)
    in_time = copied(load.load, "in-time")
    without = [parts(one) for one in raw(bootstrap, "table") if (one.key(), one.value()) != (b"key-3", None)]
    write_copy(bootstrap, "too-late", without, 2)
    load.forget()
    copied(load.load, "in-time", in_time)
    copied(load.load, "after")
    copied(load.load, "too-late", in_time)
    for copy in ("in-time", "after"):
        await check_compacted(bootstrap, bootstrap, "table", copy, load.load.history, cleaned=False)
    told = "is the newest record of key b'key-3', and the copy ends with"
    with pytest.raises(DifferentError, match=told):
        await check_compacted(bootstrap, bootstrap, "table", "too-late", load.load.history, cleaned=True)


async def test_a_spoiled_copy_of_a_compacted_topic_is_found(
    bootstrap: str, randomness: random.Random
) -> None:
    load = Compacted(bootstrap, "table", randomness, partitions=1)
    load.write(80)
    seen = {one.offset() for one in raw(bootstrap, "table")}
    everything = raw(bootstrap, "table", committed=False)
    aborted = [parts(one) for one in everything if one.offset() not in seen]
    load.clean()
    whole = [parts(one) for one in raw(bootstrap, "table")]
    middle = next(place for place in range(5, len(whole)) if whole[place]["value"] is not None)
    swapped = [*whole[:middle], whole[middle + 1], whole[middle], *whole[middle + 2 :]]
    spoils = {
        "has no copy": whole[:middle] + whole[middle + 1 :],
        "is there twice or out of order": whole[: middle + 1] + whole[middle:],
        "out of order: .* precedes it": swapped,
        "is no record that was committed": whole[:middle] + aborted[:1] + whole[middle:],
    }
    for number, (words, records) in enumerate(spoils.items()):
        write_copy(bootstrap, f"spoiled-{number}", records, 1)
        there = (bootstrap, bootstrap, "table", f"spoiled-{number}", load.load.history)
        for cleaned in (False, True):
            with pytest.raises(DifferentError, match=words) as caught:
                await check_compacted(*there, cleaned=cleaned)
            assert not caught.value.difference.only_short
    one_more = {0: [*load.load.history[0], load.load.history[0][-1]._replace(value=b"never written")]}
    with pytest.raises(DifferentError, match="was written and is not at the source"):
        await check_compacted(*there[:-1], one_more, cleaned=True)
    write_copy(bootstrap, "unmarked", [one for one in whole if one["value"] is not None], 1)
    there = (bootstrap, bootstrap, "table", "unmarked", load.load.history)
    await check_compacted(*there, cleaned=True)
    with pytest.raises(DifferentError, match="has no copy"):
        await check_compacted(*there, cleaned=False)
