"""Whether a topic's copy is its copy: record by record, read from both clusters by clients that know nothing
of the mirror that made it.

The source is read as committed readers see it, the copy as plain clients do, which see everything: each
committed record must be there once, in order, in the same partition, with the same key, value, headers and
timestamp. What was written is counted by whoever wrote it (`mirror_loads`), so that a reader that sees
nothing does not pass. An offset map is checked at every offset. `mirror_compacted` does the same for topics
of which cleaners take records away; `mirror_findings` finds the words for what differs.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from engines import jars
from mirror_findings import Difference, different
from mirror_reading import Reading, ReadingError, bounds, read, read_with_aiokafka, read_with_console

Translation: TypeAlias = Callable[[str, int, int], int]
"""An offset map: topic, partition and source offset to the offset in the copy."""
_AGAIN_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Checked:
    """What was compared and found equal."""

    partitions: int
    records: int
    offsets: int
    """At how many source offsets the offset map was asked."""


class DifferentError(AssertionError):
    """The copy is none: the first difference, and how much was read."""

    def __init__(self, difference: Difference, source: Reading, copy: Reading) -> None:
        super().__init__(f"{difference} ({count(source)} records at the source, {count(copy)} in the copy)")
        self.difference = difference


async def check(
    source: str,
    target: str,
    topic: str,
    copy: str,
    expected: Mapping[int, int],
    *,
    to_target: Translation | None = None,
    within_seconds: float = 0.0,
) -> Checked:
    """Compare `topic` at the brokers `source` with `copy` at the brokers `target`.

    `expected`: committed records of each partition, counted by who wrote them. `within_seconds`: how long the
    copy may still be growing. Raises `DifferentError`, `ReadingError`.
    """

    def judge(here: Reading, there: Reading) -> Difference | None:
        found = difference(topic, here, there, expected)
        return found or (wrong_translation(topic, here, there, to_target) if to_target else None)

    here, _ = await compared((source, topic), (target, copy), expected, judge, within_seconds)
    return Checked(len(here), count(here), positions(here) if to_target else 0)


async def compared(
    source: tuple[str, str],
    target: tuple[str, str],
    least: Mapping[int, int],
    judge: Callable[[Reading, Reading], Difference | None],
    within_seconds: float,
) -> tuple[Reading, Reading]:
    """Read two topics, each given as brokers and name, until `judge` finds nothing wrong, or more than that
    the copy is still too short. `least`: offsets that the copy's partitions have at least.

    Raises `DifferentError`, `ReadingError`.
    """
    until = time.monotonic() + within_seconds
    while time.monotonic() < until and not await asyncio.to_thread(_may_be_whole, *target, least):
        await asyncio.sleep(_AGAIN_SECONDS)
    while True:
        here, there = await asyncio.gather(
            asyncio.to_thread(read, *source, committed=True),
            asyncio.to_thread(read, *target, committed=False),
        )
        found = judge(here, there)
        if found is None:
            return here, there
        if not found.only_short or time.monotonic() >= until:
            raise DifferentError(found, here, there)
        await asyncio.sleep(_AGAIN_SECONDS)


async def check_with_aiokafka(
    source: str, target: str, topic: str, copy: str, expected: Mapping[int, int]
) -> Checked:
    """The same comparison, with aiokafka as the plain client that reads the copy."""
    return await _check_with(source, topic, read_with_aiokafka(target, copy), expected)


async def check_with_console(
    source: str,
    target: str,
    topic: str,
    copy: str,
    expected: Mapping[int, int],
    version: str = jars.NEWEST,
) -> Checked:
    """The same comparison, with Kafka's own console consumer, for topics of few records."""
    reading = asyncio.to_thread(read_with_console, target, copy, sum(expected.values()), version)
    return await _check_with(source, topic, reading, expected)


async def _check_with(
    source: str, topic: str, reading: Awaitable[Reading], expected: Mapping[int, int]
) -> Checked:
    there = await reading
    here = await asyncio.to_thread(read, source, topic, committed=True)
    found = difference(topic, here, there, expected)
    if found is not None:
        raise DifferentError(found, here, there)
    return Checked(len(here), count(here), 0)


def difference(topic: str, source: Reading, copy: Reading, expected: Mapping[int, int]) -> Difference | None:
    """The first difference, None when there is none."""
    if len(source) != len(copy):
        return Difference(topic, what=f"{len(source)} partitions at the source, {len(copy)} in the copy")
    short: Difference | None = None
    for number, partition in sorted(source.items()):
        if len(partition.records) != (written := expected.get(number, 0)):
            told = f"{written} records were committed, {len(partition.records)} are at the source"
            return Difference(topic, number, what=told)
        wanted, got = partition.records, copy[number].records
        for place, (one, other) in enumerate(zip(wanted, got, strict=False)):
            if one.content != other.content:
                return different(topic, number, place, source, copy)
        if len(got) > len(wanted):
            return different(topic, number, len(wanted), source, copy)
        if len(got) < len(wanted) and short is None:
            short = different(topic, number, len(got), source, copy)
    return short


def wrong_translation(
    topic: str, source: Reading, copy: Reading, to_target: Translation
) -> Difference | None:
    """The first source offset that is not translated to the copy of the record there, or of the next one.

    Behind the last record that is anywhere behind its copy, up to the copy's end: what comes next goes there.
    """
    for number, partition in sorted(source.items()):
        there, following, least = copy[number], 0, copy[number].start
        for offset in range(partition.start, partition.end):
            if following < len(partition.records) and offset > partition.records[following].offset:
                least, following = there.records[following].offset + 1, following + 1
            translated = to_target(topic, number, offset)
            if following < len(partition.records):
                least = most = there.records[following].offset
            else:
                most = there.end
            if not least <= translated <= most:
                right = f"{least}" if least == most else f"between {least} and {most}"
                told = f"is translated to {translated}, and {right} is right"
                return Difference(topic, number, offset, what=told)
    return None


def _may_be_whole(target: str, copy: str, least: Mapping[int, int]) -> bool:
    """Whether the copy is long enough, which is cheaper to see than what is in it."""
    try:
        limits = bounds(target, copy)
    except ReadingError:
        return False
    return all(number in limits and limits[number][1] >= end for number, end in least.items())


def count(reading: Reading) -> int:
    """Records of all partitions."""
    return sum(len(partition.records) for partition in reading.values())


def positions(reading: Reading) -> int:
    """Offsets of all partitions, holes included."""
    return sum(partition.end - partition.start for partition in reading.values())
