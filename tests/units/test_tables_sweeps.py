"""What a table answers to a sweep: that it agrees, or digests, or rows in parts that a log takes."""

import asyncio
import contextlib

import msgspec
import pytest

from transom.logs.memory import MemoryLog
from transom.logs.protocol import TopicPartition
from transom.logs.rules import BATCH_BYTES_MAX, ENTRY_BYTES_MAX, payload_bytes
from transom.model.records import Record
from transom.model.version import Version
from transom.runtime.clock import ManualClock
from transom.tables import sweeps
from transom.tables.digests import BUCKETS, summary_of
from transom.tables.memory import MemoryTable
from transom.tables.sweeps import (
    DIGESTS,
    SWEEPS,
    Answer,
    Request,
    answer_sweeps,
    answers,
    read_answer,
    request_message,
)


def record(key: str, counter: int = 1) -> Record:
    return Record(key, Version(1, counter, "hub"), b"v")


async def said(table: MemoryTable, buckets: list[int] | None = None, expected: bytes = b"") -> list[Answer]:
    request = Request("id", "t", {}, buckets or [], expected)
    return [answer async for answer in answers(request, table)]


async def test_a_table_that_agrees_says_only_that() -> None:
    table = MemoryTable()
    await table.apply([record("a"), record("~mark")], {})
    digests = (await table.digest()).buckets
    (answer,) = await said(table, expected=summary_of(digests))
    assert answer == Answer("id", same=True)
    assert payload_bytes(sweeps._message(answer)) < 128
    await table.apply([record("b")], {})
    (answer,) = await said(table, expected=summary_of(digests))
    assert answer == Answer("id", digests=(await table.digest()).buckets)
    assert payload_bytes(sweeps._message(answer)) <= 64 * 1024
    assert await said(table) == [answer]


@pytest.mark.parametrize("size", [8, 2000])
async def test_rows_are_answered_in_parts_that_a_log_takes(size: int) -> None:
    table = MemoryTable()
    rows = [record(f"{number:0{size}}") for number in range(2 * sweeps.ROWS_AN_ANSWER + 7)]
    await table.apply(rows, {})
    told = await said(table, list(range(BUCKETS)))
    assert len(told) >= 3
    assert [answer.last for answer in told] == [False] * (len(told) - 1) + [True]
    assert sorted(row.key for answer in told for row in answer.rows) == sorted(row.key for row in rows)
    assert max(payload_bytes(sweeps._message(answer)) for answer in told) <= ENTRY_BYTES_MAX < BATCH_BYTES_MAX
    kept = {row.key: (row.version, row.fingerprint) for answer in told for row in answer.rows}
    assert all(kept[row.key] == (row.version, row.fingerprint()) for row in rows)


async def test_no_rows_are_an_answer_too() -> None:
    assert await said(MemoryTable(), [3]) == [Answer("id")]
    table = MemoryTable()
    await table.apply([record("~mark")], {})
    assert await said(table, list(range(BUCKETS))) == [Answer("id")]


def test_a_request_is_small_whatever_it_asks() -> None:
    buckets = list(range(BUCKETS))[-sweeps.BUCKETS_A_REQUEST_MAX :]
    request = Request("i" * 36, "contexts/gateway", {"contexts/0": 10**12}, buckets, bytes(32))
    message = request_message(request)
    assert payload_bytes(message) < 1024
    assert msgspec.msgpack.decode(message.value or b"", type=Request) == request


async def test_who_asked_while_nobody_listened_is_answered_once_somebody_does() -> None:
    log = MemoryLog(ManualClock())
    await log.create([SWEEPS, DIGESTS])
    for name, table in (("given up", "t"), ("waits", "t"), ("of another", "u")):
        await log.append([request_message(Request(name, table, {}))])
    answering = asyncio.create_task(answer_sweeps("t", MemoryTable(), log))
    answered: list[str] = []
    async with asyncio.timeout(30):
        while len(answered) < 2:
            at = {TopicPartition(DIGESTS.name, 0): len(answered)}
            answered += [read_answer(entry).id for entry in await log.read(at, wait_seconds=30)]
            if answered == ["waits"]:
                await log.append([request_message(Request("later", "t", {}))])
    assert answered == ["waits", "later"]
    answering.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await answering
