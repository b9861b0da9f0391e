"""The course of one partition: what comes from the source, what goes to the target, what is kept before.

What is fetched waits here in order, each batch with the offset that it is going to have in the copy. A batch
with which offsets begin to differ otherwise goes out once that break is kept (`ledger`), so at any moment the
copy's end says where to go on at the source. Up to `FLYING_MAX` batches are under way at once; one that
failed goes out again before anything behind it, as the same bytes, so brokers know it when they have it.
Source: KIP-98 (sequences; a broker remembers a producer's last five batches). No I/O.
Next on the data's way: `sender`.
"""

import enum
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from transom.links.kafka import batches, recoding
from transom.links.kafka.batches import BadBatchError, Batch, Body
from transom.links.kafka.deletes import Deletes
from transom.links.kafka.epochs import Epochs
from transom.links.kafka.offset_map import OffsetMap
from transom.logs.kafka_produce import Producer
from transom.logs.protocol import TopicPartition

FLYING_MAX = 5
_JOINED_RECORDS_MAX = 10_000
_JOINED_BYTES = 900 << 10
"""Below a mebibyte, which is what topics take when nobody says otherwise."""
_PIECE_BYTES = 512
"""What a waiting batch takes beside its bytes, about."""


class Way(enum.Enum):
    """How a batch went on."""

    PASSED = "passed"
    RECODED = "recoded"
    JOINED = "joined"


class Outcome(enum.Enum):
    """What became of a batch that was sent."""

    OPEN = "open"
    WRITTEN = "written"
    AGAIN = "again"
    LOST = "lost"
    REFUSED = "refused"


class Piece(NamedTuple):
    """A batch that waits: its `size` records begin at the source's offset `source`, and are to begin at the
    target's offset `target`. It goes out once version `needs` of the map is kept.
    """

    batch: Batch
    body: Body | None
    source: int
    target: int
    size: int
    needs: int
    joined_bytes: int


@dataclass(eq=False, slots=True)
class Sent:
    """A batch under way: some pieces, the bytes that stand for them, and what became of them."""

    lane: "Lane"
    pieces: Sequence[Piece]
    data: memoryview
    sequence: int
    way: Way
    outcome: Outcome = Outcome.OPEN
    base: int = -1
    told: str = ""
    count: int = field(init=False)
    """How many records it holds."""
    newest_ms: int = field(init=False)
    """The time of its newest record."""

    def __post_init__(self) -> None:
        self.count = sum([piece.size for piece in self.pieces])
        self.newest_ms = max([piece.batch.max_timestamp for piece in self.pieces])


class Stopped(NamedTuple):
    """Why a partition goes no further: at which offset of the source, and what is wrong there."""

    offset: int
    why: str


@dataclass(eq=False)
class Lane:
    """One partition. It begins at the source's offset `fetch_at` and the target's offset `end`."""

    source: TopicPartition
    target: TopicPartition
    source_id: str
    map: OffsetMap
    fetch_at: int
    end: int
    batch_bytes_max: int = _JOINED_BYTES
    """How large a batch of several may be; less once the target has refused one."""
    written: int = field(init=False)
    """The target's offset behind the last record that is there."""
    done: int = field(init=False)
    """The source's offset behind that record."""
    stopped: Stopped | None = None
    lost: str = ""
    """Why the producer may write no more; then the shard is taken anew."""
    stale: str = ""
    """Why it must be looked at anew where the partition goes on."""
    trouble: str = ""
    """What keeps it waiting now, and passes."""
    rest_until: float = 0.0
    """Monotonic seconds before which nobody asks again."""
    strangers: int = 0
    """Records in the copy that somebody else wrote."""
    start: int = 0
    stable: int = 0
    high: int = 0
    """Where the source begins, up to where transactions have ended, and where it ends."""
    bytes_held: int = 0
    """What all batches that wait or are under way take."""
    waiting_records: int = 0
    waiting_bytes: int = 0
    newest_ms: int = 0
    """The time of the newest record that was written."""
    deletes: Deletes = field(default_factory=Deletes)
    epochs: Epochs = field(default_factory=Epochs)
    fetching: bool = False
    paused: bool = False
    _version: int = 0
    _kept: int = 0
    _sequence: int = 0
    _waiting: deque[Piece] = field(default_factory=deque[Piece])
    _flying: deque[Sent] = field(default_factory=deque[Sent])
    _again: deque[Sent] = field(default_factory=deque[Sent])
    _failing: bool = False
    """Whether some of what is under way is answered, and nothing new goes out until all is."""

    def __post_init__(self) -> None:
        self.written, self.done = self.end, self.fetch_at
        self._stand(self.fetch_at, self.end)

    # --- from the source ---

    def fetched(self, records: memoryview, aborted: Iterable[tuple[int, int]]) -> None:
        """Take what was fetched at `fetch_at`; `aborted` are (producer id, first offset) of transactions in
        reach that were aborted. A batch that cannot be passed on stops the partition there.
        """
        begin = sorted(aborted, key=lambda each: each[1])
        dropping: set[int] = set()
        try:
            for batch in batches.split(records):
                batches.check(batch)  # first: what says that it holds nothing of use may be damaged
                while begin and begin[0][1] <= batch.base:
                    dropping.add(begin.pop(0)[0])
                if self.epochs.read(batch.epoch, self.fetch_at):
                    self.note()
                if batch.is_control:
                    dropping.discard(batch.producer_id)  # whose other ones follow in the list, if any
                elif batch.next > self.fetch_at and batch.size and not batch.is_of(dropping):
                    self._put(batch)
                self.fetch_at = max(self.fetch_at, batch.next)
        except BadBatchError as error:
            self.stopped = Stopped(self.fetch_at, f"the batch at offset {self.fetch_at} {error}")
        self._advance()

    def _put(self, batch: Batch) -> None:
        body, source, size = None, batch.base, batch.size
        if batch.is_whole and source >= self.fetch_at:
            self._stand(source, self.end)
        else:
            records = list(recoding.records(batch, self.fetch_at))
            if not records:
                return
            body, source, size = recoding.joined(records, batch.attributes), records[0].offset, len(records)
            for number, record in enumerate(records):
                self._stand(record.offset, self.end + number)
        piece = Piece(batch, body, source, self.end, size, self._version, recoding.joined_bytes(batch))
        self.end += size
        self._waiting.append(piece)
        self.bytes_held += len(batch.data) + _PIECE_BYTES
        self.waiting_records += size
        self.waiting_bytes += piece.joined_bytes

    def _stand(self, source: int, target: int) -> None:
        if self.map.extend(source, target):
            self._version += 1

    # --- what must be kept ---

    @property
    def unkept(self) -> bool:
        """Whether there are breaks that are not kept yet."""
        return self._version > self._kept

    def note(self) -> None:
        """There is more to keep, before anything goes out that is fetched from now on."""
        self._version += 1

    @property
    def version(self) -> int:
        """Of the map; to be handed to `kept`."""
        return self._version

    def kept(self, version: int) -> None:
        """What the map said at `version` is kept."""
        self._kept = max(self._kept, version)

    # --- to the target ---

    @property
    def sendable(self) -> bool:
        """Whether something could go out now."""
        if not (self._waiting or self._again) or self.lost or self.stale or len(self._flying) >= FLYING_MAX:
            return False
        if self._again:
            return True
        return not self._failing and self._waiting[0].needs <= self._kept

    @property
    def waiting_batches(self) -> int:
        """How many batches wait."""
        return len(self._waiting)

    @property
    def is_ended(self) -> bool:
        """Whether its shard is to be taken anew for it."""
        return bool(self.lost or self.stale)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits or is under way."""
        return not (self._waiting or self._flying or self._again)

    def take(self, producer: Producer, *, join: bool) -> Sent:
        """The next batch to send, when something is `sendable`; several waiting ones as one, to `join`."""
        if self._again:
            sent = self._again.popleft()
            sent.outcome = Outcome.OPEN
            self._flying.append(sent)
            return sent
        pieces = [self._waiting.popleft()]
        if join:
            self._gather(pieces)
        try:
            way, data = _one(pieces, producer, self._sequence)
        except BadBatchError:  # whether it may go on unread is the target's to say, of each alone
            self._waiting.extendleft(reversed(pieces[1:]))
            del pieces[1:]
            way, data = _one(pieces, producer, self._sequence)
        sent = Sent(self, pieces, data, self._sequence, way)
        self.waiting_records -= sent.count
        self.waiting_bytes -= sum([piece.joined_bytes for piece in pieces])
        self._sequence = batches.after(self._sequence, sent.count)
        self._flying.append(sent)
        return sent

    def _gather(self, pieces: list[Piece]) -> None:
        room = self.batch_bytes_max - pieces[0].joined_bytes
        count = pieces[0].size
        kind = pieces[0].batch.attributes & batches.CODEC
        while self._waiting:
            piece = self._waiting[0]
            room -= piece.joined_bytes
            count += piece.size
            if room < 0 or count > _JOINED_RECORDS_MAX or piece.needs > self._kept:
                return
            if piece.batch.attributes & batches.CODEC != kind:
                return
            pieces.append(self._waiting.popleft())

    def answered(self, sent: Sent, outcome: Outcome, base: int = -1, told: str = "") -> list[Sent]:
        """Take the broker's answer to `sent`: where it begins, or what is wrong; returns what is written for
        good now, in order.
        """
        sent.outcome, sent.base, sent.told = outcome, base, told
        written: list[Sent] = []
        while self._flying and self._flying[0].outcome is Outcome.WRITTEN:
            written.append(self._flying.popleft())
            self._write(written[-1])
        opened = [each for each in self._flying if each.outcome is Outcome.OPEN]
        self._failing = len(opened) < len(self._flying)
        if self._failing and not opened:
            self._fail()
        self._advance()
        return written

    def _write(self, sent: Sent) -> None:
        self.bytes_held -= sum([len(piece.batch.data) + _PIECE_BYTES for piece in sent.pieces])
        expected = sent.pieces[0].target
        if sent.base < expected:
            self.lost = f"the copy ended before offset {expected}; it lost records, or was made anew"
            return
        if sent.base > expected:
            self._shift(sent, sent.base - expected)
        self.written = sent.base + sent.count
        self.done = sent.pieces[-1].batch.next
        self.newest_ms = max(self.newest_ms, sent.newest_ms)

    def _shift(self, sent: Sent, strangers: int) -> None:
        """Somebody else has written to the copy before `sent`: all that follows stands farther on."""
        self.strangers += strangers
        breaks = self.map.breaks
        source, target = sent.pieces[0].source, sent.pieces[0].target
        self.map.cut(target)
        self.map.extend(source, sent.base)
        for each in breaks:
            if each.target > target:
                self.map.extend(each.source, each.target + strangers)
        self.end += strangers
        for each in (*self._flying, *self._again):
            each.pieces = [piece._replace(target=piece.target + strangers) for piece in each.pieces]
        self._version += 1
        moved = [
            piece._replace(target=piece.target + strangers, needs=self._version) for piece in self._waiting
        ]
        self._waiting = deque(moved)

    def _fail(self) -> None:
        """All that is under way is answered, and the first was not written."""
        first, self._failing = self._flying[0], False
        if first.outcome is Outcome.LOST:
            self.lost = first.told
        elif first.outcome is Outcome.REFUSED and len(first.pieces) > 1:
            self._take_apart()
        elif first.outcome is Outcome.REFUSED:
            piece = first.pieces[0]
            self.stopped = Stopped(piece.source, f"the batch at offset {piece.source} {first.told}")
            self._drop()
        else:
            # Those behind it as well, though some may be there: brokers tell, and answer as before.
            self._again.extendleft(reversed(self._flying))
            self._flying.clear()

    def _take_apart(self) -> None:
        """Send one by one what was refused as one; their sequences together are the same."""
        sent = [*self._flying, *self._again]
        self._flying.clear()
        self._again.clear()
        self._sequence = sent[0].sequence
        self.batch_bytes_max = max(1, len(sent[0].data) // 2)
        pieces = [piece for each in sent for piece in each.pieces]
        self._waiting.extendleft(reversed(pieces))
        self.waiting_records += sum(piece.size for piece in pieces)
        self.waiting_bytes += sum(piece.joined_bytes for piece in pieces)

    def _drop(self) -> None:
        self._flying.clear()
        self._again.clear()
        self._waiting.clear()
        self.bytes_held = self.waiting_records = self.waiting_bytes = 0

    def _advance(self) -> None:
        """With nothing under way, what holds no records is behind us, too."""
        if self.is_idle and not (self.stopped or self.lost):
            self.done = self.fetch_at

    def settle(self) -> None:
        """Have the map say that what holds no records is behind us: when it is gone at the source, nothing is
        lost.
        """
        if self.is_idle and not (self.stopped or self.lost) and self.map.extend(self.fetch_at, self.end):
            self._version += 1

    @property
    def lag(self) -> int:
        """How many offsets of the source are not in the copy yet."""
        return max(0, self.high - self.done)

    # --- telling offsets ---

    def to_target(self, source: int) -> int | None:
        """Where a reader of the source, whose next offset is `source`, goes on in the copy; None while that
        is not there yet.
        """
        if source >= self.done:
            return self.written if source == self.done else None
        found = self.map.to_target(source)
        return None if found is None else min(found, self.written)

    def to_source(self, target: int) -> int | None:
        """Where a reader of the copy, whose next offset is `target`, goes on in the source."""
        return self.done if target >= self.written else self.map.to_source(target)


def _one(pieces: Sequence[Piece], producer: Producer, sequence: int) -> tuple[Way, memoryview]:
    """The batch that stands for `pieces`, as `producer` writes it, and how it came about."""
    if len(pieces) > 1:
        found = [record for piece in pieces for record in recoding.records(piece.batch, piece.source)]
        body = recoding.joined(found, pieces[0].batch.attributes)
        return Way.JOINED, batches.stamped(body, producer, sequence)
    (piece,) = pieces
    if piece.body is None:
        return Way.PASSED, batches.restamped(piece.batch, producer, sequence)
    return Way.RECODED, batches.stamped(piece.body, producer, sequence)
