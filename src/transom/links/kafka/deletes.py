"""Which deletes a copy may lack: those that the source forgot before they were read.

A compacted topic keeps a delete marker for `delete.retention.ms` after its cleaner came by. Who reads later
than that sees no marker, only that offsets are missing, as where records were replaced; what the copy has of
that key lives on, and nothing that is left at the source tells. So it is remembered when all that the source
had was in the copy, and offsets that are missing from what is read too long after that are noted as a gap.
Source: KIP-534. Pure. Next on the data's way: `lane`.
"""

from contextlib import suppress
from dataclasses import dataclass
from math import inf

from transom.links.kafka.batches import BadBatchError, split

WHY = (
    "the source may have forgotten deletes there before they were read, and what they deleted is still in "
    "the copy; delete the copy, and it is made anew"
)

_KEEP_SECONDS_MAX = 600.0
_KEEP_SHARE = 0.1
"""How much older what is kept may be than what is known; the latter of how long deletes are kept."""


@dataclass(eq=False, slots=True)
class Deletes:
    """What is known of one partition. Times are seconds since the epoch, by the clock of who reads."""

    kept_seconds: float = inf
    """How long the source keeps a delete marker, at least; infinite where nothing is compacted."""
    complete_at: float = 0.0
    """When all that the source had was in the copy; 0: it has nothing yet."""
    missing: tuple[int, int] | None = None
    """Offsets of the source between which deletes may be missing, and nobody has noted it yet."""
    _kept_at: float = inf
    _read_at: float = 0.0
    _read_to: int = 0

    def __post_init__(self) -> None:
        self._kept_at = self._read_at = self.complete_at

    def missed(self, records: memoryview, offset: int, asked_at: float, told_at: float) -> bool:
        """Look at what was fetched at `offset`, and when it was read; whether that is to be noted."""
        if not self.complete_at:
            self.complete_at = self._read_at = asked_at  # what is read now is all the copy has
            return False
        if told_at - self.complete_at <= self.kept_seconds:
            return False
        found: tuple[int, int] | None = None
        with suppress(BadBatchError):  # where it ends for others, too
            for batch in split(records):
                if batch.next > offset:
                    if batch.base > offset or batch.size <= batch.last_delta:
                        found = (found[0] if found else offset, batch.next)
                    offset = batch.next
        if found:
            self.missing = (self.missing[0] if self.missing else found[0], found[1])
        return found is not None

    def read_all(self, asked_at: float, offset: int, done: int) -> None:
        """Nothing of what the source had at `asked_at` stands at `offset` or behind it, and what is before
        `done` is in the copy.
        """
        if done >= self._read_to:
            self.complete_at = self._read_at
            self._read_at, self._read_to = asked_at, offset

    @property
    def outdated(self) -> bool:
        """Whether what is kept is so old that it is to be kept anew."""
        return self.complete_at - self._kept_at > min(_KEEP_SECONDS_MAX, _KEEP_SHARE * self.kept_seconds)

    def noted(self) -> tuple[int, int] | None:
        """`missing`; from now on it and `complete_at` count as kept."""
        missing, self.missing = self.missing, None
        self._kept_at = self.complete_at
        return missing
