"""The publisher's side of a sweep: ask a region's tables for digests, find the rows that differ.

`differences` is the pure heart. The source is read page by page and summed, so a sweep of a million rows
takes no more memory than one of ten. When a table agrees it says so in a hundred bytes; otherwise it says its
digests, and the rows of the buckets that differ are compared one by one, some thousands at a time.
Source of the idea: anti-entropy with hash trees (Dynamo, 2007), one level deep.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from transom.links.carrier import Carrier
from transom.links.source import Source
from transom.logs.protocol import TopicPartition
from transom.model.errors import UNREADABLE, UnreachableError
from transom.model.records import Record
from transom.model.version import Version
from transom.runtime.clock import Clock
from transom.runtime.randomness import Randomness
from transom.runtime.telemetry import get_logger
from transom.tables.digests import BUCKETS, MARK, Sums, bucket_of, differing, summary_of
from transom.tables.sweeps import (
    BUCKETS_A_REQUEST_MAX,
    DIGESTS,
    Answer,
    Request,
    RowVersion,
    partition_name,
    read_answer,
    request_message,
)

log_event = get_logger(__name__)

_ANSWER_SECONDS = 60.0
"""A table of a million rows takes about ten seconds to sum, on a machine that has other things to do."""
_ROWS_A_REQUEST = 32_768
"""About how many rows are compared at once: what a sweep that finds differences keeps in memory."""


def differences(
    source: Iterable[Record], revision: int, epoch: int, held: Sequence[RowVersion]
) -> list[Record]:
    """What must be appended so that a table holding `held` agrees with `source` as it was at `revision`.

    A row that the table lacks, or has older, is appended as it is; one that the source does not have any more
    gets a delete marker at `revision`. Rows of either side beyond `revision` are on their way and left alone.
    One that the source never had, because it is of another epoch of its storage, is left alone: a source that
    lost its rows must not take them from the regions (`strangers`; invariant 5, absence is never a delete). A
    row that the table has at the same version with other bytes cannot be mended by appending (no table takes
    it): it is said and left to a person.
    """
    rows = {row.key: row for row in held}
    wanted: set[str] = set()
    repairs: list[Record] = []
    for record in source:
        wanted.add(record.key)
        if record.version.epoch == epoch and record.version.counter > revision:
            continue
        row = rows.get(record.key)
        if row is None or row.version < record.version:
            repairs.append(record)
        elif row.version == record.version and row.fingerprint != record.fingerprint():
            log_event.error(
                "a region stored other bytes",
                key=record.key,
                version=str(record.version),
                hint="its disk is damaged: stop the region, remove this table's file, start it again",
            )
    for row in held:
        if row.key not in wanted and row.version.epoch == epoch and row.version.counter <= revision:
            # Above every version of the row there was, below every one there can be.
            marker = Version(epoch, revision, f"{row.version.origin}~sweep")
            repairs.append(Record(row.key, marker, b"{}", deleted=True))
    return repairs


def strangers(source: Iterable[Record], epoch: int, held: Sequence[RowVersion]) -> list[str]:
    """The keys of rows that a table holds from an earlier epoch of the source, unknown to it now."""
    known = {record.key for record in source}
    return [row.key for row in held if row.key not in known and row.version.epoch < epoch]


async def sums_of(source: Source, revision: int) -> Sums:
    """The sums of a source's rows up to `revision`."""
    sums = Sums()
    async for page in source.rows():
        for record in page:
            if record.version.epoch < source.epoch or record.version.counter <= revision:
                sums.add(record)
    return sums


def in_groups(buckets: Sequence[int], counts: Sequence[int]) -> Iterator[list[int]]:
    """`buckets` in groups of about `_ROWS_A_REQUEST` rows, given how many rows each bucket has."""
    group: list[int] = []
    rows = 0
    for bucket in buckets:
        if group and (len(group) == BUCKETS_A_REQUEST_MAX or rows + counts[bucket] > _ROWS_A_REQUEST):
            yield group
            group, rows = [], 0
        group.append(bucket)
        rows += counts[bucket]
    if group:
        yield group


@dataclass
class Sweep:
    """One sweep of one link: what its source has at `revision`, compared with each table behind it.

    `after` is how far a table must have read to be compared. `strangers` are those found on the way.
    """

    source: Source
    carrier: Carrier
    revision: int
    after: Mapping[TopicPartition, int]
    clock: Clock
    randomness: Randomness
    strangers: list[str] = field(default_factory=list[str])
    _sums: Sums | None = None

    async def repairs(self, table: str) -> AsyncIterator[list[Record]]:
        """What must be appended to make `table` agree, some thousand rows at a time.

        Raises `UnreachableError` when nobody answers, or nothing that makes sense.
        """
        if self._sums is None:
            self._sums = await sums_of(self.source, self.revision)
        mine = self._sums.digests()
        answer = [answer async for answer in self._ask(table, (), summary_of(mine))][-1]
        if answer.same:
            return
        if len(answer.digests) != BUCKETS:
            raise self._nonsense(table, f"{len(answer.digests)} digests; there are {BUCKETS}")
        for group in in_groups(differing(mine, answer.digests), self._sums.counts):
            wanted = frozenset(group)
            held = [row async for a in self._ask(table, wanted) for row in a.rows]
            records = await self._rows_in(wanted)
            self.strangers.extend(strangers(records, self.source.epoch, held))
            yield differences(records, self.revision, self.source.epoch, held)

    def _nonsense(self, table: str, wrong: str) -> UnreachableError:
        # Whatever a region answers, it ends neither this publisher nor the hub.
        return UnreachableError(
            f"table {table!r} behind link {self.carrier.link!r} said what cannot be read ({wrong}); "
            "is the region of another release?"
        )

    async def _rows_in(self, buckets: Collection[int]) -> list[Record]:
        """The source's rows in some buckets, each once, in its newest state."""
        found: dict[str, Record] = {}
        async for page in self.source.rows():
            for record in page:
                if bucket_of(record.key) in buckets and not record.key.startswith(MARK):
                    found[record.key] = record
        return list(found.values())

    async def _ask(
        self, table: str, buckets: Collection[int], expected: bytes = b""
    ) -> AsyncIterator[Answer]:
        after = {partition_name(at): offset for at, offset in self.after.items() if offset}
        target = self.carrier.target
        request = Request(self.randomness.uid(), table, after, sorted(buckets), expected)
        positions = {
            TopicPartition(DIGESTS.name, number): bounds.end
            for number, bounds in (await target.bounds(DIGESTS.name)).items()
        }
        await self.carrier.tell(request_message(request))
        until = self.clock.monotonic() + _ANSWER_SECONDS
        while (left := until - self.clock.monotonic()) > 0:
            for entry in await target.read(positions, wait_seconds=left):
                positions[entry.position] = entry.offset + 1
                # Others ask over the same topics.
                if entry.key != request.id.encode():
                    continue
                try:
                    answer = read_answer(entry)
                except UNREADABLE as error:
                    raise self._nonsense(table, str(error)) from None
                yield answer
                if answer.last:
                    return
                until = self.clock.monotonic() + _ANSWER_SECONDS
        raise UnreachableError(
            f"table {table!r} behind link {self.carrier.link!r} did not answer a sweep within "
            f"{_ANSWER_SECONDS:.0f} s; is the region's process running?"
        )
