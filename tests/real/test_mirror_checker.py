"""The checker of mirrors and the loads it is used on, without a mirror: a copy that is made record by record
passes, one that is spoiled does not, and each load is as difficult as it says.
"""

import asyncio
import random
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from engines.jars import OLDEST
from engines.kafka import Brokers
from kafka_batches import CODECS, batches
from kafka_logs import empty
from mirror_checker import DifferentError, check, check_with_aiokafka, check_with_console, compared
from mirror_copying import copied, parts, raw, translation, write_copy
from mirror_findings import Difference
from mirror_loads import (
    FIRST_TIMESTAMP_MS,
    Load,
    Transaction,
    Writing,
    behind_deleted,
    large,
    make_topic,
    many_partitions,
    plain,
    transactional,
)
from mirror_reading import QUIET_SECONDS, read, record


@pytest.fixture
async def bootstrap(brokers: Brokers) -> AsyncIterator[str]:
    yield brokers.bootstrap
    await empty(brokers)


@pytest.fixture
def randomness() -> random.Random:
    return random.Random(5)


# --- loads are what they say, and a true copy of each passes ---


@pytest.mark.parametrize("codec", CODECS)
async def test_a_copy_of_every_codec_passes(
    brokers: Brokers, bootstrap: str, randomness: random.Random, codec: str
) -> None:
    load = plain(bootstrap, "source", randomness, codec=codec, idempotent=codec == "lz4")
    written = [one for number in range(3) for one in batches(brokers, "source", number)]
    # What cannot be made smaller stays as it is.
    assert codec in {one.codec for one in written}
    assert min(one.count for one in written) == 1
    assert max(one.count for one in written) > 3
    assert (written[0].producer_id >= 0) == (codec == "lz4")
    places = copied(load)
    done = await check(
        bootstrap, bootstrap, "source", "copy", load.expected, to_target=translation(load, places)
    )
    assert (done.partitions, done.records, done.offsets) == (3, 300, 300)


async def test_a_copy_of_transactions_passes_while_some_are_open_and_after(
    brokers: Brokers, bootstrap: str, randomness: random.Random
) -> None:
    load, opened = transactional(bootstrap, "source", randomness, partitions=2)
    early = load.expected
    assert 0 < sum(early.values()) < len(raw(bootstrap, "source", committed=False))
    for transaction in opened[1:]:
        transaction.commit()
    opened[0].abort()
    assert sum(load.expected.values()) > sum(early.values())
    written = [one for number in range(2) for one in batches(brokers, "source", number)]
    assert any(one.control for one in written)
    assert {one.codec for one in written if one.transactional and not one.control} == {
        "none",
        "gzip",
        "snappy",
    }
    places = copied(load)
    done = await check(
        bootstrap, bootstrap, "source", "copy", load.expected, to_target=translation(load, places)
    )
    assert done.records == sum(load.expected.values())
    assert done.offsets > done.records


async def test_open_transactions_are_not_part_of_a_copy(bootstrap: str, randomness: random.Random) -> None:
    load, opened = transactional(bootstrap, "source", randomness, partitions=1, writers=1)
    copied(load)
    await check(bootstrap, bootstrap, "source", "copy", load.expected)
    opened[0].commit()
    with pytest.raises(DifferentError, match="has no copy: the copy ends before it") as caught:
        await check(bootstrap, bootstrap, "source", "copy", load.expected)
    assert caught.value.difference.only_short


async def test_large_records_pass(bootstrap: str, randomness: random.Random) -> None:
    load = large(bootstrap, "source", randomness, codec="zstd")
    copied(load)
    assert (await check(bootstrap, bootstrap, "source", "copy", load.expected)).records == 10


async def test_append_times_are_the_times_of_a_copy(
    brokers: Brokers, bootstrap: str, randomness: random.Random
) -> None:
    load = plain(
        bootstrap, "source", randomness, count=50, config={"message.timestamp.type": "LogAppendTime"}
    )
    assert all(one.log_append_time for one in batches(brokers, "source", 0))
    copied(load)
    await check(bootstrap, bootstrap, "source", "copy", load.expected)
    assert not any(one.log_append_time for one in batches(brokers, "copy", 0))
    times = [one.timestamp_ms for one in read(bootstrap, "copy", committed=False)[0].records]
    assert times == [one.timestamp_ms for one in load.history[0]]


async def test_a_source_that_begins_above_0_passes(bootstrap: str, randomness: random.Random) -> None:
    load = behind_deleted(bootstrap, "source", randomness)
    assert load.history[2] == []
    assert all(one.start > 0 for one in read(bootstrap, "source", committed=True).values())
    places = copied(load)
    await check(bootstrap, bootstrap, "source", "copy", load.expected, to_target=translation(load, places))


async def test_an_empty_topic_passes(bootstrap: str) -> None:
    load = make_topic(bootstrap, "source", 2)
    copied(load)
    done = await check(bootstrap, bootstrap, "source", "copy", load.expected, to_target=translation(load, {}))
    assert (done.partitions, done.records) == (2, 0)


async def test_hundreds_of_partitions_pass(bootstrap: str, randomness: random.Random) -> None:
    load = many_partitions(bootstrap, "source", randomness, partitions=200, count=500)
    assert 0 in load.expected.values()
    copied(load)
    assert (await check(bootstrap, bootstrap, "source", "copy", load.expected)).partitions == 200


@pytest.mark.parametrize("cluster", ["brokers", "broker39"])
async def test_other_plain_clients_see_the_same(
    request: pytest.FixtureRequest, randomness: random.Random, cluster: str
) -> None:
    brokers: Brokers = request.getfixturevalue(cluster)
    bootstrap, version = brokers.bootstrap, brokers.version
    assert (version == OLDEST) == (cluster == "broker39")
    try:
        load = plain(bootstrap, "source", randomness, codec="gzip")
        copied(load)
        whole = (bootstrap, bootstrap, "source", "copy", load.expected)
        assert (await check_with_console(*whole, version)).records == 300
        assert (await check_with_aiokafka(*whole)).records == 300
    finally:
        await empty(brokers)


async def test_other_plain_clients_find_what_is_spoiled(bootstrap: str) -> None:
    load = spoilable(bootstrap)
    write_copy(bootstrap, "spoiled", spoiled("a header's null", bootstrap, load))
    for other in (check_with_console, check_with_aiokafka):
        with pytest.raises(DifferentError, match=SPOILS["a header's null"]):
            await other(bootstrap, bootstrap, "source", "spoiled", load.expected)


# --- a spoiled copy is found ---

SPOILS = {
    "a lost record": "is the copy of source offset {after}; that of {offset} is missing",
    "the last lost": "has no copy: the copy ends before it",
    "a doubled record": "is a second copy of source offset {offset}",
    "the last doubled": "is a second copy of source offset {last}",
    "two swapped": "is the copy of source offset {after}; that of {offset} comes later",
    "a header's value": r"header 1 b'place': b'\d+' became b'place': b'another'",
    "a header's null": r"header 0 b'nothing': null became b'nothing': b''",
    "headers reordered": "the headers are in another order",
    "a header less": "3 headers became 2",
    "a timestamp": r"timestamp \d+ became \d+",
    "another partition": r"partition 0, .*target offset \d+: is a record of partition 1",
    "an aborted record": "is a record that committed readers of the source do not see",
    "an empty key": "key null became b''",
    "a null value": "value b'' became null",
    "a value": "value b'' became b'another'",
}


def spoiled(how: str, bootstrap: str, load: Load) -> list[dict[str, Any]]:
    """The source's records with one thing wrong in the middle of partition 1."""
    records = [parts(one) for one in raw(bootstrap, load.topic)]
    mine = [place for place, one in enumerate(records) if one["partition"] == 1]
    at, after = mine[len(mine) // 2], mine[len(mine) // 2 + 1]
    if how == "a lost record":
        del records[at]
    elif how == "the last lost":
        del records[mine[-1]]
    elif how == "a doubled record":
        records.insert(after, records[at])
    elif how == "the last doubled":
        records.insert(mine[-1] + 1, records[mine[-1]])
    elif how == "two swapped":
        records[at], records[after] = records[after], records[at]
    elif how == "an aborted record":
        seen = {one.offset() for one in raw(bootstrap, load.topic) if one.partition() == 1}
        everything = raw(bootstrap, load.topic, committed=False)
        aborted = [one for one in everything if one.partition() == 1 and one.offset() not in seen]
        records.insert(at, parts(aborted[0]))
    else:
        one = records[at]
        headers = list(one["headers"])
        records[at] = (
            one
            | {
                "a header's value": {"headers": [headers[0], ("place", b"another"), *headers[2:]]},
                "a header's null": {"headers": [("nothing", b""), *headers[1:]]},
                "headers reordered": {"headers": headers[::-1]},
                "a header less": {"headers": headers[1:]},
                "a timestamp": {"timestamp": one["timestamp"] + 1},
                "another partition": {"partition": 0},
                "an empty key": {"key": b""},
                "a null value": {"value": None},
                "a value": {"value": b"another"},
            }[how]
        )
    return records


def spoilable(bootstrap: str) -> Load:
    """Records that are alike but for their time and one header, and in the middle some that were aborted."""
    load = make_topic(bootstrap, "source", 3)
    outside, inside = Writing(load, {}), Writing(load, {"transactional.id": "spoilable"})
    inside.producer.init_transactions(QUIET_SECONDS)
    inside.producer.begin_transaction()
    aborted = Transaction(load, inside)
    for number in range(60):
        headers = [("nothing", None), ("place", b"%d" % number), ("last", b"")]
        one = record(number % 3, -1, FIRST_TIMESTAMP_MS + number, None, b"", headers)
        if number % 10 == 1:
            inside.send(one)
            aborted.flush()
        else:
            outside.send(one)
            load.add(outside.flush())
    aborted.abort()
    return load


async def test_whatever_is_spoiled_is_found_and_told(bootstrap: str) -> None:
    load = spoilable(bootstrap)
    wanted = load.history[1]
    middle = len(wanted) // 2
    told = {
        "offset": wanted[middle].offset,
        "after": wanted[middle + 1].offset,
        "last": wanted[-1].offset,
    }
    assert len({one.offset for one in wanted}) < len(raw(bootstrap, "source", committed=False))
    write_copy(bootstrap, "true", [parts(one) for one in raw(bootstrap, "source")])
    assert (await check(bootstrap, bootstrap, "source", "true", load.expected)).records == 54
    for number, (how, words) in enumerate(SPOILS.items()):
        copy = f"spoiled-{number}"
        write_copy(bootstrap, copy, spoiled(how, bootstrap, load))
        with pytest.raises(DifferentError) as caught:
            await check(bootstrap, bootstrap, "source", copy, load.expected)
        assert re.search(words.format_map(told), str(caught.value)), f"{how}: {caught.value}"


async def test_a_reading_that_sees_too_little_does_not_pass(
    bootstrap: str, randomness: random.Random
) -> None:
    load = plain(bootstrap, "source", randomness, count=30)
    copied(load)
    more = load.expected | {2: load.expected[2] + 1}
    with pytest.raises(DifferentError, match="records were committed"):
        await check(bootstrap, bootstrap, "source", "copy", more)
    write_copy(bootstrap, "wider", [parts(one) for one in raw(bootstrap, "source")], 4)
    with pytest.raises(DifferentError, match="3 partitions at the source, 4 in the copy"):
        await check(bootstrap, bootstrap, "source", "wider", load.expected)


async def test_what_was_aborted_in_the_copy_itself_is_seen_as_plain_clients_see_it(
    bootstrap: str, randomness: random.Random
) -> None:
    load = plain(bootstrap, "source", randomness, count=30)
    copied(load)
    writing = Writing(Load(bootstrap, "copy", {}), {"transactional.id": "copy"})
    writing.producer.init_transactions(QUIET_SECONDS)
    writing.producer.begin_transaction()
    transaction = Transaction(load, writing)
    writing.send(load.history[1][-1])
    transaction.abort()
    with pytest.raises(DifferentError, match=r"partition 1, .*is a second copy of source offset"):
        await check(bootstrap, bootstrap, "source", "copy", load.expected)


async def test_a_copy_may_take_its_time(bootstrap: str, randomness: random.Random) -> None:
    load = plain(bootstrap, "source", randomness, count=30)
    checking = asyncio.create_task(
        check(bootstrap, bootstrap, "source", "copy", load.expected, within_seconds=60)
    )
    await asyncio.to_thread(copied, load)
    assert (await checking).records == 30


async def test_a_copy_that_is_only_short_is_read_again_until_it_is_not(bootstrap: str) -> None:
    make_topic(bootstrap, "source")
    short, wrong = Difference("source", only_short=True), Difference("source")
    found: list[Difference | None] = [short, short, None, short, wrong, short]

    async def compare(within_seconds: float) -> None:
        await compared(
            (bootstrap, "source"),
            (bootstrap, "source"),
            {0: 0},
            lambda here, there: found.pop(0),
            within_seconds,
        )

    await compare(60)
    assert len(found) == 3
    for within_seconds in (60, 0):
        with pytest.raises(DifferentError):
            await compare(within_seconds)
    assert not found


async def test_an_offset_map_does_not_point_at_what_is_no_record(bootstrap: str) -> None:
    source = make_topic(bootstrap, "source")
    copy = make_topic(bootstrap, "copy")
    plainly, fenced = Writing(source, {}), Writing(copy, {"transactional.id": "copy"})
    fenced.producer.init_transactions(QUIET_SECONDS)
    for number in range(2):
        one = record(0, -1, FIRST_TIMESTAMP_MS + number, None, b"", [])
        plainly.send(one)
        fenced.producer.begin_transaction()
        fenced.send(one)
        Transaction(copy, fenced).commit()
    source.add(plainly.flush())
    # In the copy: a record, a marker, a record, a marker.
    there = (bootstrap, bootstrap, "source", "copy", source.expected)
    await check(*there, to_target=lambda topic, partition, offset: 2 * offset)
    with pytest.raises(DifferentError, match="source offset 1: is translated to 1, and 2 is right"):
        await check(*there, to_target=lambda topic, partition, offset: offset)


async def test_an_offset_map_that_is_one_off_anywhere_is_found(
    bootstrap: str, randomness: random.Random
) -> None:
    load, opened = transactional(bootstrap, "source", randomness, count=100, partitions=1)
    for transaction in opened:
        transaction.commit()
    assert sum(load.expected.values()) < len(raw(bootstrap, "source", committed=False)), "none was aborted"
    places = copied(load)
    right = translation(load, places)
    end = read(bootstrap, "source", committed=True)[0].end
    holes = set(range(end)) - {offset for _, offset in places}
    last = max(offset for _, offset in places)
    assert min(holes) < last < max(holes)
    for wrong in (0, min(holes), last // 2, last, end - 1):
        for by in (-1, 1):

            def to_target(topic: str, number: int, offset: int, wrong: int = wrong, by: int = by) -> int:
                return right(topic, number, offset) + by * (offset == wrong)

            with pytest.raises(DifferentError, match=f"source offset {wrong}: is translated to"):
                await check(bootstrap, bootstrap, "source", "copy", load.expected, to_target=to_target)
