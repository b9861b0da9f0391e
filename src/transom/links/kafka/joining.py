"""Whether many waiting batches go out as one: decided from what is measured on the way.

Passing a batch on costs next to nothing, but each partition has at most `FLYING_MAX` of them under way, one a
request: on a long road, or when batches are tiny, waiting for answers is what takes the time. Joining them
costs time for each record, and one answer. Pure. Next on the data's way: `sender`.
"""

from math import inf

from transom.links.kafka.lane import FLYING_MAX, Lane

_WEIGHT = 0.1
_CLEARLY = 4.0
"""Joining must be this much quicker: it uses the processor, waiting does not."""

_WINDOW_SECONDS = 10.0


class Joining:
    """What is measured, and the decision."""

    def __init__(self) -> None:
        self.record_seconds = 2e-6
        """How long joining takes for a record."""
        self.answer_seconds = 0.0
        """How long the target takes for a request when nothing is in its way: the road, and the disk.

        The quickest of late: what is slow because everybody works, this process included, would be slower
        still if it worked more.
        """
        self._quickest = [inf, inf]
        """The quickest answers of this window and of the one before."""
        self._until = 0.0

    def answered(self, seconds: float, now: float) -> None:
        """A request was answered after so long, at `now` (monotonic seconds)."""
        if now >= self._until:
            self._until = now + _WINDOW_SECONDS
            self._quickest = [seconds, self._quickest[0]]
        self._quickest[0] = min(self._quickest[0], seconds)
        self.answer_seconds = min(self._quickest)

    def joined(self, records: int, seconds: float) -> None:
        """So many records were joined in so long."""
        self.record_seconds += _WEIGHT * (seconds / records - self.record_seconds)

    def is_better(self, lane: Lane) -> bool:
        """Whether what waits in `lane` goes out quicker as few large batches."""
        count = lane.waiting_batches
        if count <= 1:
            return False
        large = max(1.0, lane.waiting_bytes / lane.batch_bytes_max)
        passing = count / FLYING_MAX * self.answer_seconds
        joining = large / FLYING_MAX * self.answer_seconds + lane.waiting_records * self.record_seconds
        return passing > _CLEARLY * joining
