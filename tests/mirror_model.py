"""A broker and a topic of the source as far as a lane can tell: for tests that try any order of events.

The broker appends an idempotent producer's batches by the rules of KIP-98. The source has batches with gaps,
marks, and transactions that were aborted.
"""

from collections.abc import Sequence
from typing import NamedTuple

from mirror_batches import Made, batch_bytes, client_reads, control_bytes, header, record
from transom.logs.kafka_produce import Producer

REMEMBERED = 5
OUT_OF_ORDER, TOO_LARGE = "out of order", "too large"


class Answer(NamedTuple):
    """What a broker says: where a batch begins, or what is wrong with it."""

    base: int = -1
    error: str = ""


class Broker:
    """One partition of the target."""

    def __init__(self, batch_bytes_max: int = 1 << 20) -> None:
        self.held: list[Made | None] = []
        """What stands at each offset; None for marks."""
        self.batch_bytes_max = batch_bytes_max
        self.poison: set[int] = set()
        """Records whose batch is refused, when they are alone in it."""
        self.writer: Producer | None = None
        self.last_writer: int | None = None
        self._next = 0
        self._recent: list[tuple[int, int, int]] = []

    @property
    def records_end(self) -> int:
        """The offset behind the last record."""
        return max((at + 1 for at, each in enumerate(self.held) if each is not None), default=0)

    @property
    def places(self) -> list[int]:
        """The offsets of the mirror's records."""
        return [at for at, each in enumerate(self.held) if each is not None and each.offset >= 0]

    @property
    def records(self) -> list[tuple[int, bytes | None, bytes | None]]:
        """The time, key and value of the mirror's records, in order."""
        return [(each.timestamp, each.key, each.value) for each in self.held if each and each.offset >= 0]

    def fence(self, producer: Producer) -> None:
        """A new epoch leaves its mark."""
        self.writer, self._next = producer, 0
        self._recent.clear()
        self.held.append(None)

    def stranger(self) -> None:
        """Somebody else appends a record."""
        self.held.append(Made(-1, 0, b"a stranger's", None))

    def append(self, data: bytes) -> Answer:
        """What becomes of a batch."""
        head = header(data)
        assert (head.producer_id, head.producer_epoch) == self.writer, "a producer that was shut out"
        made = client_reads(data)
        first, count = head.base_sequence, len(made)
        for begin, size, base in self._recent:
            if (begin, size) == (first, count):
                return Answer(base)
        if first != self._next:
            return Answer(error=OUT_OF_ORDER)
        if len(data) > self.batch_bytes_max or any(each.timestamp in self.poison for each in made):
            return Answer(error=TOO_LARGE)
        base = len(self.held)
        assert [each.offset for each in made] == list(range(count))
        self.held += made
        self._next += count
        self._recent = [*self._recent, (first, count, base)][-REMEMBERED:]
        self.last_writer = head.producer_id
        return Answer(base)


class Source:
    """One partition of the source: its batches, what readers of committed records get, what is aborted."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int, bytes]] = []
        """First offset, offset behind the last, bytes."""
        self.aborted: list[tuple[int, int, int]] = []
        """Producer, first and last offset of a transaction."""
        self.committed: list[Made] = []
        self.end = 0

    def plain(self, count: int, *, codec: int = 0) -> None:
        """A batch of records."""
        self._put([record(self.end + number) for number in range(count)], codec=codec)

    def compacted(self, gaps: Sequence[int], tail: int) -> None:
        """A batch from which records were taken out: `gaps` before each that is left, `tail` at the end."""
        base, made = self.end, list[Made]()
        at = base
        for gap in gaps:
            at += gap
            made.append(record(at))
            at += 1
        self._put(made, base=base, last=at - 1 + tail)

    def emptied(self, count: int) -> None:
        """A batch of which nothing is left."""
        self._put([], base=self.end, last=self.end + count - 1)

    def transaction(self, batches: Sequence[int], producer: int, *, commit: bool) -> None:
        """The batches of a transaction, and the mark at its end; another producer's are between them."""
        by, first = Producer(producer, 0), self.end
        for count in batches:
            made = [record(self.end + number) for number in range(count)]
            self._put(made, attributes=0x10, producer=by, counted=commit)
            self.plain(1)
        if not commit:
            self.aborted.append((producer, first, self.end))
        self.batches.append((self.end, self.end + 1, control_bytes(self.end, by, commit=commit)))
        self.end += 1

    def fetch(self, offset: int, count: int, cut: int) -> tuple[bytes, list[tuple[int, int]]]:
        """`count` batches from the one with `offset` on, and `cut` bytes of another; which were aborted."""
        ahead = [each for each in self.batches if each[1] > offset]
        taken = ahead[:count]
        data = b"".join(each[2] for each in taken)
        if len(ahead) > count:
            data += ahead[count][2][:-1][:cut]
        until = taken[-1][1] if taken else offset
        aborted = [(who, first) for who, first, last in self.aborted if last >= offset and first < until]
        return data, aborted

    def _put(
        self,
        made: list[Made],
        *,
        counted: bool = True,
        base: int | None = None,
        last: int | None = None,
        codec: int = 0,
        attributes: int = 0,
        producer: Producer = Producer(1, 0),  # noqa: B008  # a tuple
    ) -> None:
        data = batch_bytes(made, base=base, last=last, codec=codec, attributes=attributes, producer=producer)
        begin = made[0].offset if base is None else base
        end = (made[-1].offset if last is None else last) + 1
        self.batches.append((begin, end, data))
        self.end = end
        if counted:
            self.committed += made
