"""Which leaders wrote what was read of a partition: by that a source that was truncated gives itself away.

A leader that did not have all of the one before may take its place (an unclean election, a disk restored from
a copy). The source is shorter then for a moment, and as long as before soon, with other records. Every batch
says in which epoch of leadership it was written, and brokers know where an epoch ended, so whoever remembers
in which one the last record was written is told that it is not there any more.
Source: KIP-101, KIP-320, KIP-595 (diverging epochs in fetches). Pure. Next on the data's way: `lane`.
"""

from collections.abc import Iterable
from typing import NamedTuple

EPOCHS_MAX = 16
"""How many are remembered: those before are missed only if the source loses all that these wrote."""

UNKNOWN = -1


class Epoch(NamedTuple):
    """What was read from the offset `begin` on was written in the leadership `number`."""

    number: int
    begin: int


class Epochs:
    """The newest leaderships of one partition of a source, oldest first."""

    def __init__(self, known: Iterable[Epoch] = ()) -> None:
        self._known = list(known)
        self.newest = self._known[-1].number if self._known else UNKNOWN

    @property
    def known(self) -> tuple[Epoch, ...]:
        """As they are to be kept."""
        return tuple(self._known)

    def read(self, number: int, begin: int) -> bool:
        """What was read behind the offset `begin` was written in this epoch; whether that is another than
        what was before it.
        """
        if number == self.newest:
            return False
        self.forget(begin)
        self._known = [*self._known, Epoch(number, begin)][-EPOCHS_MAX:]
        self.newest = number
        return True

    def before(self, offset: int) -> int:
        """In which epoch that was written which was read before `offset`; `UNKNOWN` when nobody knows."""
        return next((each.number for each in reversed(self._known) if each.begin < offset), UNKNOWN)

    def forget(self, offset: int) -> None:
        """Forget what was read from `offset` on."""
        self._known = [each for each in self._known if each.begin < offset]
        self.newest = self._known[-1].number if self._known else UNKNOWN

    def agreed(self, number: int, end: int) -> int:
        """Up to which offset a source has what was read of it, when it says that of the epochs up to the
        newest of these it knows `number` as the last, and that this one ended at `end`.
        """
        return min([end, *(each.begin for each in self._known if each.number > number)])
