"""The publisher's side of a sweep: ask the region for digests, find the rows that differ, mend them.

`differences` is the pure heart. Rows that the region has at a version beyond the snapshot were published
after it and are left alone. Source of the idea: anti-entropy with hash trees (Dynamo, 2007), one level deep.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from transom.logs.protocol import Fence, Log, TopicPartition
from transom.model.errors import UnreachableError
from transom.model.records import Record
from transom.model.version import Version
from transom.runtime.randomness import Randomness
from transom.runtime.telemetry import get_logger
from transom.tables.digests import bucket_of, differing, digest_of
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

_ANSWER_SECONDS = 30.0


def differences(
    source: Sequence[Record], revision: int, epoch: int, held: Sequence[RowVersion]
) -> list[Record]:
    """What must be appended so that a table holding `held` agrees with `source` as it was at `revision`.

    A row that the table lacks, or has older, is appended as it is; one that the source does not have any more
    gets a delete marker at `revision`. One that the source never had, because it is of another epoch of its
    storage, is left alone: a source that lost its rows must not take them from the regions (`strangers`;
    invariant 5, absence is never a delete). A row that the table has at the same version with other bytes
    cannot be mended by appending (no table takes it): it is said and left to a person.
    """
    rows = {row.key: row for row in held}
    wanted: set[str] = set()
    repairs: list[Record] = []
    for record in source:
        wanted.add(record.key)
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


def strangers(source: Sequence[Record], epoch: int, held: Sequence[RowVersion]) -> list[str]:
    """The keys of rows that a table holds from an earlier epoch of the source, unknown to it now."""
    known = {record.key for record in source}
    return [row.key for row in held if row.key not in known and row.version.epoch < epoch]


@dataclass
class Sweeper:
    """Asks the answerer of one table, over the region's log; `strangers` are those found on the way."""

    link: str
    target: Log
    table: str
    randomness: Randomness
    strangers: list[str] = field(default_factory=list[str])

    async def repairs(
        self,
        source: Sequence[Record],
        revision: int,
        epoch: int,
        after: Mapping[TopicPartition, int],
        fence: Fence,
    ) -> list[Record]:
        """What must be appended to make the table agree. Raises `UnreachableError` when nobody answers."""
        reached = {partition_name(at): offset for at, offset in after.items() if offset}
        digests = [a.digests async for a in self._ask(reached, (), fence)][-1]
        buckets = differing(digest_of(source), digests)
        found: list[Record] = []
        for at in range(0, len(buckets), BUCKETS_A_REQUEST_MAX):
            wanted = frozenset(buckets[at : at + BUCKETS_A_REQUEST_MAX])
            held = [row async for a in self._ask(reached, wanted, fence) for row in a.rows]
            mine = [record for record in source if bucket_of(record.key) in wanted]
            found.extend(differences(mine, revision, epoch, held))
            self.strangers.extend(strangers(mine, epoch, held))
        return found

    async def _ask(
        self, after: Mapping[str, int], buckets: Collection[int], fence: Fence
    ) -> AsyncIterator[Answer]:
        request = Request(self.randomness.uid(), self.table, dict(after), sorted(buckets))
        positions = {
            TopicPartition(DIGESTS.name, number): bounds.end
            for number, bounds in (await self.target.bounds(DIGESTS.name)).items()
        }
        await self.target.append([request_message(request)], fence=fence)
        while entries := await self.target.read(positions, wait_seconds=_ANSWER_SECONDS):
            for entry in entries:
                positions[entry.position] = entry.offset + 1
                if entry.key != request.id.encode():
                    continue
                answer = read_answer(entry)
                yield answer
                if answer.last:
                    return
        raise UnreachableError(
            f"table {self.table!r} behind link {self.link!r} did not answer a sweep within "
            f"{_ANSWER_SECONDS:.0f} s; is the region's process running?"
        )
