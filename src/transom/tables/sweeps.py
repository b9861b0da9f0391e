"""How a table answers, over its own log, whether it agrees with the source that feeds it.

A publisher appends a `Request` to the region's topic `sweeps`; the region's answerer waits until its table
has read as far as the request says, and appends to `digests` that it agrees, or one digest for each bucket,
or the rows of the buckets asked for. Nothing is called across the border: a log is all that two sides share.
Next on the data's way: `links.publish` compares and repairs.
"""

from collections.abc import AsyncIterator, Iterator, Sequence

import msgspec

from transom.logs.protocol import Entry, Fence, Log, Message, Topic, TopicPartition
from transom.model.errors import UNREADABLE
from transom.model.records import Record
from transom.model.version import Version
from transom.runtime.telemetry import get_logger
from transom.tables.digests import BUCKETS, summary_of
from transom.tables.protocol import Table

log_event = get_logger(__name__)

_DAY_SECONDS = 86_400
SWEEPS = Topic("sweeps", retention_seconds=_DAY_SECONDS)
DIGESTS = Topic("digests", retention_seconds=_DAY_SECONDS)

ROWS_AN_ANSWER = 2000
BUCKETS_A_REQUEST_MAX = 64
_ANSWER_BYTES = 512 * 1024
"""About what the rows of one answer take: half of what a log takes as one entry."""
_ROW_BYTES = 96
"""What a row takes in an answer beside its key."""
_WAIT_SECONDS = 30.0
_LOOK_BACK = 32
"""So many requests are looked through for one that waits; the tables of a region are asked in turn."""
_CATCH_UP_SECONDS = 30.0


class Request(msgspec.Struct, frozen=True):
    """Asks for digests (no `buckets`) or for the rows of `buckets`, once the table has read up to `after`.

    `expected` is the summary of the asker's own digests: a table that has the same says only that.
    """

    id: str
    table: str
    after: dict[str, int]
    buckets: list[int] = []
    expected: bytes = b""


class RowVersion(msgspec.Struct, frozen=True):
    """What the table holds of a key: its version, and the fingerprint of the stored bytes."""

    key: str
    version: Version
    fingerprint: bytes


class Answer(msgspec.Struct, frozen=True):
    """That all is the `same`, or digests of all buckets, or some rows of those asked for.

    `last` ends the answers to one request.
    """

    id: str
    digests: list[bytes] = []
    rows: list[RowVersion] = []
    last: bool = True
    same: bool = False


_request = msgspec.msgpack.Decoder(Request)
_answer = msgspec.msgpack.Decoder(Answer)


def request_message(request: Request) -> Message:
    """The message that asks."""
    return Message(SWEEPS.name, request.table.encode(), msgspec.msgpack.encode(request))


def read_answer(entry: Entry) -> Answer:
    """The answer in an entry of `digests`. Raises `msgspec.DecodeError`."""
    return _answer.decode(entry.value or b"")


def partition_name(at: TopicPartition) -> str:
    """How a partition is named in a request."""
    return f"{at.topic}/{at.partition}"


async def answer_sweeps(name: str, table: Table, log: Log, fence: Fence | None = None) -> None:
    """Answer every request for the table called `name` that is appended from now on, for ever; first the
    newest one that stands there: whoever asked while nobody listened may wait still. Where several have such
    a table, who answers has `fence`.
    """
    positions = {
        TopicPartition(SWEEPS.name, number): max(bounds.start, bounds.end - _LOOK_BACK)
        for number, bounds in (await log.bounds(SWEEPS.name)).items()
    }
    requests = (await _next_requests(name, log, positions))[-1:]
    while True:
        for request in requests:
            if await _reached(table, request.after):
                # One at a time: together they could be more than a log takes at once.
                async for answer in answers(request, table):
                    await log.append([_message(answer)], fence=fence)
        requests = await _next_requests(name, log, positions)


async def _next_requests(name: str, log: Log, positions: dict[TopicPartition, int]) -> list[Request]:
    """What is asked of the table called `name` next; moves `positions`."""
    requests: list[Request] = []
    for entry in await log.read(positions, wait_seconds=_WAIT_SECONDS):
        positions[entry.position] = entry.offset + 1
        try:
            request = _request.decode(entry.value or b"")
        except UNREADABLE as error:
            log_event.warning("sweep request refused", offset=entry.offset, error=str(error))
            continue
        if request.table == name:
            requests.append(request)
    return requests


async def answers(request: Request, table: Table) -> AsyncIterator[Answer]:
    """What `table` says to `request`."""
    wanted = {bucket for bucket in request.buckets if 0 <= bucket < BUCKETS}
    if wanted:
        held: Answer | None = None
        for rows in _divided(await table.in_buckets(wanted)):
            if held is not None:
                yield held
            held = Answer(request.id, rows=rows, last=False)
        yield Answer(request.id) if held is None else msgspec.structs.replace(held, last=True)
        return
    digests = (await table.digest()).buckets
    if request.expected and summary_of(digests) == request.expected:
        yield Answer(request.id, same=True)
    else:
        yield Answer(request.id, digests=digests)


async def _reached(table: Table, after: dict[str, int]) -> bool:
    """Whether the table has read up to `after`, waiting a while for it."""
    while True:
        seen = table.changed.value
        held = {partition_name(at): offset for at, offset in (await table.positions()).items()}
        if all(held.get(name, 0) >= offset for name, offset in after.items()):
            return True
        if await table.changed.above(seen, _CATCH_UP_SECONDS) == seen:
            return False


def _divided(records: Sequence[Record]) -> Iterator[list[RowVersion]]:
    """The versions of `records`, in parts that fit into an answer each."""
    rows: list[RowVersion] = []
    size = 0
    for record in records:
        rows.append(RowVersion(record.key, record.version, record.fingerprint()))
        size += len(record.key.encode()) + _ROW_BYTES
        if len(rows) == ROWS_AN_ANSWER or size >= _ANSWER_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _message(answer: Answer) -> Message:
    return Message(DIGESTS.name, answer.id.encode(), msgspec.msgpack.encode(answer))
