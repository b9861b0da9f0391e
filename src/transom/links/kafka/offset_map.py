"""Which offset of a partition is which offset of its copy: exact, for every record, in a few numbers.

A map is a list of breaks `(source, target)`: from `source` on, records have the offset `target` and onwards,
with a constant difference, until the next break. Where the source has offsets without records (markers of
transactions, what compaction took out), or the target has, one break follows. So a partition without any has
one break, whatever its size.

Breaks are made before what is behind them is written, and kept in chunks, each under a key of its own (see
`ledger`). Pure. Next on the data's way: `lane`.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import NamedTuple

CHUNK_BREAKS = 256
"""How many breaks a chunk has at most; it is written anew with each break that it gets."""


class Break(NamedTuple):
    """From here on the difference between offsets is another."""

    source: int
    target: int


class OffsetMap:
    """The breaks of one partition, in order, and which chunks of them are to be kept anew."""

    def __init__(self, chunks: Mapping[int, Sequence[Break]] | None = None) -> None:
        """`chunks` as they were kept, by number; those before a missing one were forgotten."""
        self._sources, self._targets = array("q"), array("q")
        kept = sorted(chunks or {})
        self._first = kept[0] if kept else 0
        for number in kept:
            self._sources.extend(each.source for each in (chunks or {})[number])
            self._targets.extend(each.target for each in (chunks or {})[number])
        self._same = self._kept = len(self._sources)
        """How many of the first breaks are kept as they are, and how many are kept."""

    def __len__(self) -> int:
        return len(self._sources)

    @property
    def breaks(self) -> list[Break]:
        """All of them."""
        return [Break(*each) for each in zip(self._sources, self._targets, strict=True)]

    def extend(self, source: int, target: int) -> bool:
        """Have the record at `source` stand at `target`, behind all there are; whether that took a break.

        A break behind which nothing stands is replaced. All that leads to where it stood leads to `target`
        then, also where marks or strangers' records have come between.
        """
        if self._sources:
            if source - self._sources[-1] == target - self._targets[-1]:
                return False
            if target == self._targets[-1] or source == self._sources[-1]:
                self._replace(source, target)
        self._sources.append(source)
        self._targets.append(target)
        return True

    def _replace(self, source: int, target: int) -> None:
        """Take back what leads to where the last break stands; `source` and `target` come in its place."""
        stood = self._targets[-1]
        first = bisect_left(self._targets, stood)
        begin = self._sources[first]
        self._keep_first(first)
        if not first:
            return
        begin = min(begin, self._sources[-1] + stood - self._targets[-1])
        if begin < source and self._targets[-1] + begin - self._sources[-1] < target:
            self._sources.append(begin)
            self._targets.append(target)

    def cut(self, end: int) -> None:
        """Forget the breaks beyond the target's offset `end`: what was to be there was never written."""
        self._keep_first(bisect_right(self._targets, end))

    def rewind(self, source: int) -> None:
        """Forget the breaks at the source's offset `source` or behind: the source has other records there."""
        self._keep_first(bisect_left(self._sources, source))

    def forget(self, start: int) -> list[int]:
        """Forget chunks of which the target holds nothing any more, because it begins at `start`; their
        numbers.
        """
        chunks = max(0, bisect_right(self._targets, start) - 1) // CHUNK_BREAKS
        gone = chunks * CHUNK_BREAKS
        del self._sources[:gone], self._targets[:gone]
        self._same, self._kept = max(0, self._same - gone), max(0, self._kept - gone)
        forgotten = list(range(self._first, self._first + chunks))
        self._first += chunks
        return forgotten

    def unkept(self) -> dict[int, list[Break]]:
        """The chunks that are not kept as they are, by number, in the order in which they are to be kept; an
        empty one is to be forgotten. From now on they count as kept.
        """
        if self._same == self._kept == len(self._sources):
            return {}
        breaks = self.breaks
        held = _chunks(len(breaks))
        # What is forgotten goes from its end: if it is kept in part, what there is remains without holes.
        gone = range(_chunks(self._kept) - 1, held - 1, -1)
        numbers = (*gone, *range(self._same // CHUNK_BREAKS, held))
        self._same = self._kept = len(breaks)
        return {self._first + n: breaks[n * CHUNK_BREAKS : (n + 1) * CHUNK_BREAKS] for n in numbers}

    def to_target(self, source: int) -> int | None:
        """Where the record at `source` stands, or, when there is none, the next one; None before anything is
        known. Not bounded by what has been written so far.
        """
        return _across(self._sources, self._targets, source)

    def to_source(self, target: int) -> int | None:
        """Which record of the source stands at `target`, or, when none does, the next one."""
        return _across(self._targets, self._sources, target)

    def _keep_first(self, count: int) -> None:
        del self._sources[count:], self._targets[count:]
        self._same = min(self._same, count)


def _chunks(breaks: int) -> int:
    return -(-breaks // CHUNK_BREAKS)


def _across(here: Sequence[int], there: Sequence[int], offset: int) -> int | None:
    """`offset` of one side on the other: within a run by its difference, behind it the next run's begin."""
    if not here:
        return None
    found = bisect_right(here, offset) - 1
    if found < 0:
        return there[0]
    beyond = offset - here[found]
    if found + 1 < len(here):
        records = min(here[found + 1] - here[found], there[found + 1] - there[found])
        if beyond >= records:
            return there[found + 1]
    return there[found] + beyond
