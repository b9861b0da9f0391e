"""A partition's course: each committed record once and in order, whatever is lost, refused or late."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mirror_batches import Made
from mirror_model import OUT_OF_ORDER, Answer, Broker, Source
from transom.links.kafka.lane import FLYING_MAX, Lane, Outcome, Sent
from transom.links.kafka.ledger import Kept, PartitionRecord
from transom.links.kafka.resuming import Policy, Sight, resumed
from transom.links.kafka.tail import Tail
from transom.logs.kafka_produce import Producer
from transom.logs.protocol import TopicPartition

FROM, TO = TopicPartition("orders", 0), TopicPartition("eu.orders", 0)
PRODUCER = Producer(7, 0)
FEW = st.integers(1, 4)


class Carrying(RuleBasedStateMachine):
    """One partition, the model of its source and of its broker, and a process that may die at any moment."""

    @initialize()
    def begin(self) -> None:
        self.source, self.broker = Source(), Broker()
        self.kept = Kept()
        self.epoch = self.strangers = 0
        self.take()

    # --- the shard is taken, at first and by whoever comes next ---

    @precondition(lambda self: not self.unsettled)
    @rule()
    def take(self) -> None:
        """The process dies and another goes on from what is kept and what the broker holds."""
        self._fence()
        self.lane, self.kept.record = self._resumed()
        self.keep()
        self.flying: list[tuple[Sent, Answer | None]] = []
        self.strangers = 0

    def _fence(self) -> None:
        self.epoch += 1
        self.producer = PRODUCER._replace(epoch=self.epoch)
        self.broker.fence(self.producer)

    def _resumed(self) -> tuple[Lane, PartitionRecord]:
        tail = Tail(len(self.broker.held), self.broker.records_end, self.broker.last_writer)
        sight = Sight(FROM, "a", 0, self.source.end, TO, "b", tail, PRODUCER.id, 0.0)
        return resumed(sight, self.kept, Policy())

    @property
    def unsettled(self) -> bool:
        """Whether a stranger's record was not noticed yet, or what was noticed is not kept."""
        return self.strangers > self.lane.strangers or bool(self.strangers and self.lane.unkept)

    @precondition(lambda self: not self.unsettled)
    @rule()
    def die_taking(self) -> None:
        """Whoever took the shard dies before anything of it is kept."""
        self._fence()
        self.take()

    # --- the source grows ---

    @rule(count=FEW, codec=st.sampled_from((0, 0, 3)))
    def write(self, count: int, codec: int) -> None:
        self.source.plain(count, codec=codec)

    @rule(gaps=st.lists(st.integers(0, 2), min_size=1, max_size=3), tail=st.integers(0, 2))
    def compact(self, gaps: list[int], tail: int) -> None:
        self.source.compacted(gaps, tail)

    @rule(count=FEW)
    def empty(self, count: int) -> None:
        self.source.emptied(count)

    @rule(batches=st.lists(FEW, max_size=2), producer=st.integers(40, 41), commit=st.booleans())
    def transact(self, batches: list[int], producer: int, commit: bool) -> None:  # noqa: FBT001
        self.source.transaction(batches, producer, commit=commit)

    # --- the lane works ---

    @rule(count=st.integers(1, 6), cut=st.sampled_from((0, 30, 70)))
    def fetch(self, count: int, cut: int) -> None:
        before = self.lane.fetch_at
        self.lane.high = self.source.end
        data, aborted = self.source.fetch(before, count, cut)
        self.lane.fetched(memoryview(bytearray(data)), aborted)
        assert self.lane.stopped is None
        assert self.lane.fetch_at > before or not data or before == self.source.end

    @rule()
    def keep(self) -> None:
        version = self.lane.version
        for number, breaks in self.lane.map.unkept().items():
            if breaks:
                self.kept.chunks[number] = breaks
            else:
                self.kept.chunks.pop(number, None)
        self.lane.kept(version)
        assert not self.lane.unkept

    @rule()
    def settle(self) -> None:
        self.lane.settle()

    @precondition(lambda self: self.lane.sendable)
    @rule(join=st.booleans(), arrives=st.booleans())
    def send(self, join: bool, arrives: bool) -> None:  # noqa: FBT001
        """A batch goes out, and is lost on the way, or reaches the broker."""
        sent = self.lane.take(self.producer, join=join)
        self.flying.append((sent, self.broker.append(bytes(sent.data)) if arrives else None))
        assert len(self.flying) <= FLYING_MAX

    @precondition(lambda self: self.flying)
    @rule(which=st.integers(0, FLYING_MAX - 1), heard=st.booleans())
    def answer(self, which: int, heard: bool) -> None:  # noqa: FBT001
        """Any of the answers comes, or its connection breaks before."""
        self._answer(which % len(self.flying), heard=heard)

    @rule()
    def stranger(self) -> None:
        """Somebody else appends; unless the process dies before it is noticed and kept, nothing is lost."""
        self.strangers += 1
        self.broker.stranger()

    @rule(limit=st.sampled_from((400, 1 << 20)))
    def limit(self, limit: int) -> None:
        """The topic takes large batches, or such as the source has and none that is joined of several."""
        self.broker.batch_bytes_max = limit

    def _answer(self, which: int, *, heard: bool) -> None:
        sent, told = self.flying.pop(which)
        if told is None or not heard:
            self.lane.answered(sent, Outcome.AGAIN)
        elif not told.error:
            self.lane.answered(sent, Outcome.WRITTEN, told.base)
        elif told.error == OUT_OF_ORDER:
            self.lane.answered(sent, Outcome.LOST, told="out of order")
        else:
            self.lane.answered(sent, Outcome.REFUSED, told="is refused")
        assert not self.lane.lost, "batches behind one that failed are not what ends a producer"

    # --- what must hold at any moment ---

    @invariant()
    def each_committed_record_is_there_once_and_in_order(self) -> None:
        assert self.broker.records == [_of_copy(each) for each in self.source.committed[: self.there]]

    @property
    def there(self) -> int:
        """How many records the broker holds."""
        return len(self.broker.records)

    @invariant()
    def whoever_goes_on_now_goes_on_with_the_next_record(self) -> None:
        if self.unsettled:
            return
        lane, record = self._resumed()
        assert lane.stopped is None
        assert not record.gaps
        assert [each.offset < lane.fetch_at for each in self.source.committed] == [
            number < self.there for number in range(len(self.source.committed))
        ]

    @invariant()
    def offsets_translate_exactly(self) -> None:
        places = self.broker.places
        for original, target in list(zip(self.source.committed, places, strict=False))[-20:]:
            if target < self.lane.written:
                assert self.lane.to_target(original.offset) == target
                assert self.lane.to_source(target) == original.offset
        assert self.lane.to_target(self.lane.done) == self.lane.written
        assert self.lane.to_source(self.lane.written) == self.lane.done

    @invariant()
    def what_is_held_is_counted(self) -> None:
        assert (self.lane.bytes_held == 0) == self.lane.is_idle
        assert self.lane.lag == self.lane.high - self.lane.done
        if not self.lane.waiting_batches:
            assert (self.lane.waiting_records, self.lane.waiting_bytes) == (0, 0)

    def teardown(self) -> None:
        """Without further faults everything arrives."""
        if not hasattr(self, "lane"):
            return
        self.broker.batch_bytes_max = 1 << 20
        self.source.plain(1)  # behind which strangers are noticed
        for _ in range(1000):
            if self.lane.fetch_at == self.source.end and self.lane.is_idle:
                break
            self.fetch(3, 0)
            self.keep()
            if self.lane.sendable:
                self.send(join=True, arrives=True)
            elif self.flying:
                self._answer(0, heard=True)
        self.each_committed_record_is_there_once_and_in_order()
        self.offsets_translate_exactly()
        self.what_is_held_is_counted()
        assert self.there == len(self.source.committed)
        assert (self.lane.lag, self.lane.strangers) == (0, self.strangers)


def _of_copy(made: Made) -> tuple[int, bytes | None, bytes | None]:
    return made.timestamp, made.key, made.value


TestCarrying = Carrying.TestCase
TestCarrying.settings = settings(
    max_examples=250, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]
)
