"""How a table answers, over its own log, whether it agrees with the source that feeds it.

A publisher appends a `Request` to the region's topic `sweeps`; the region's answerer waits until its table
has read as far as the request says, and appends to `digests` one digest for each bucket, or the rows of the
buckets asked for. Nothing is called across the border: a log is all that two sides share.
Next on the data's way: `links.publish` compares and repairs.
"""

from collections.abc import Sequence

import msgspec

from transom.logs.protocol import Entry, Log, Message, Topic, TopicPartition
from transom.model.records import Record
from transom.model.version import Version
from transom.runtime.telemetry import get_logger
from transom.tables.digests import BUCKETS
from transom.tables.protocol import Table

log_event = get_logger(__name__)

_DAY_SECONDS = 86_400
SWEEPS = Topic("sweeps", retention_seconds=_DAY_SECONDS)
DIGESTS = Topic("digests", retention_seconds=_DAY_SECONDS)

ROWS_AN_ANSWER = 2000
BUCKETS_A_REQUEST_MAX = 64
_WAIT_SECONDS = 30.0
_CATCH_UP_SECONDS = 10.0


class Request(msgspec.Struct, frozen=True):
    """Asks for digests (no `buckets`) or for the rows of `buckets`, once the table has read up to `after`."""

    id: str
    table: str
    after: dict[str, int]
    buckets: list[int] = []


class RowVersion(msgspec.Struct, frozen=True):
    """What the table holds of a key: its version, and the fingerprint of the stored bytes."""

    key: str
    version: Version
    fingerprint: bytes


class Answer(msgspec.Struct, frozen=True):
    """Digests of all buckets, or some rows of those asked for; `last` ends the answers to one request."""

    id: str
    digests: list[bytes] = []
    rows: list[RowVersion] = []
    last: bool = True


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


async def answer_sweeps(name: str, table: Table, log: Log) -> None:
    """Answer every request for the table called `name` that is appended from now on, for ever.

    A request that was waiting when this process ended is not answered; whoever asked asks again.
    """
    positions = {
        TopicPartition(SWEEPS.name, number): bounds.end
        for number, bounds in (await log.bounds(SWEEPS.name)).items()
    }
    while True:
        for entry in await log.read(positions, wait_seconds=_WAIT_SECONDS):
            positions[entry.position] = entry.offset + 1
            try:
                request = _request.decode(entry.value or b"")
            except msgspec.DecodeError as error:
                log_event.warning("sweep request refused", offset=entry.offset, error=str(error))
                continue
            if request.table == name and await _reached(table, request.after):
                await log.append([_message(answer) for answer in await answers(request, table)])


async def answers(request: Request, table: Table) -> list[Answer]:
    """What `table` says to `request`."""
    wanted = {bucket for bucket in request.buckets if 0 <= bucket < BUCKETS}
    if not wanted:
        return [Answer(request.id, digests=(await table.digest()).buckets)]
    records = await table.in_buckets(wanted)
    parts = [records[at : at + ROWS_AN_ANSWER] for at in range(0, len(records), ROWS_AN_ANSWER)] or [[]]
    return [
        Answer(request.id, rows=_versions(part), last=number == len(parts) - 1)
        for number, part in enumerate(parts)
    ]


async def _reached(table: Table, after: dict[str, int]) -> bool:
    """Whether the table has read up to `after`, waiting a while for it."""
    while True:
        seen = table.changed.value
        held = {partition_name(at): offset for at, offset in (await table.positions()).items()}
        if all(held.get(name, 0) >= offset for name, offset in after.items()):
            return True
        if await table.changed.above(seen, _CATCH_UP_SECONDS) == seen:
            return False


def _versions(records: Sequence[Record]) -> list[RowVersion]:
    return [RowVersion(record.key, record.version, record.fingerprint()) for record in records]


def _message(answer: Answer) -> Message:
    return Message(DIGESTS.name, answer.id.encode(), msgspec.msgpack.encode(answer))
