"""The door before a region's contexts: every record is checked, and a bad one is refused alone (invariant 9).

What is behind the door was signed by the hub for this region, is of a size that a context has, and can be
read by this release. What is refused changes nothing: the last good value stays, and until a good one comes
nobody takes the key's absence for an answer (invariant 10). Next on the data's way: `table`.
"""

from collections import OrderedDict
from typing import Any, Protocol

import msgspec
from prometheus_client import Counter

from transom.logs.protocol import Entry, Headers
from transom.logs.records import from_entry
from transom.model.contexts import VALUE_BYTES_MAX, ContextKinds
from transom.model.errors import InvalidError, Problem
from transom.model.records import Record
from transom.model.roads import CANARY_BULK, CANARY_FAST, CONTEXTS, CONTEXTS_BULK, Canary
from transom.region.contexts.doubts import Doubts
from transom.runtime.telemetry import get_logger, metrics
from transom.tables.keeper import OWN_MARKS

log_event = get_logger(__name__)

KEY_CHARACTERS_MAX = 1024
TOLD_MAX = 20
_TELL_EVERY = 1000
_TOPIC_OF_CANARY = {CANARY_FAST: CONTEXTS, CANARY_BULK: CONTEXTS_BULK}

_refused = Counter(
    "transom_context_refused_records_total", "Contexts that a region refused", ["why"], registry=metrics
)


class Seals(Protocol):
    """Tells whether a record is of a batch that the hub signed for this region; see `tables.seals`."""

    def check(self, headers: Headers, record: Record) -> bytes:
        """What tells the record's batch from all others. Raises `InvalidError`."""
        ...


class Door:
    """Checks the records of one region's contexts. `seals` None leaves the signatures unchecked.

    `refused` holds the newest 20 refusals that still stand, by key; `refused_count` counts all since the
    start. `doubted` are the keys they were of, kept beyond this process by the table.
    """

    def __init__(self, seals: Seals | None, kinds: ContextKinds, bytes_max: int = VALUE_BYTES_MAX) -> None:
        self._seals = seals
        self._kinds = kinds
        self._bytes_max = bytes_max
        self._batches: dict[str, _Batch] = {}
        self.doubted = Doubts()
        self.refused: OrderedDict[str, str] = OrderedDict()
        self.refused_count = 0

    def read(self, entry: Entry) -> Record:
        """The record in `entry`. Raises `InvalidError` when it is refused, which is remembered."""
        try:
            record = self._checked(entry)
        except InvalidError as error:
            self.refuse(_key_of(entry), str(error))
            raise
        self.refused.pop(record.key, None)
        self.doubted.settle(record.key)
        return record

    def refuse(self, key: str, why: str) -> None:
        """Remember that a record of `key` was refused, here or behind the door."""
        self.refused_count += 1
        self.refused.pop(key, None)
        self.refused[key] = why
        if len(self.refused) > TOLD_MAX:
            self.refused.popitem(last=False)
        self.doubted.add(key)
        # A lane full of them (a key of the hub that nobody here trusts) is some lines, not a flood.
        if self.refused_count <= TOLD_MAX or self.refused_count % _TELL_EVERY == 0:
            log_event.warning("context refused", key=key, why=why, count=self.refused_count)

    def undoes(self, record: Record, held: Record | None) -> bool:
        """Whether `record` would give back what was taken away for good; see `ContextKind.is_final`."""
        kind: Any = self._kinds.of_key(record.key)
        if kind is None or record.deleted or held is None or held.deleted:
            return False
        try:
            return kind.is_final(kind.decode(held.value)) and not kind.is_final(kind.decode(record.value))
        except Exception as error:  # noqa: BLE001  # anybody's module: what stumbles there stops nobody else
            log_event.warning("a context cannot be judged", key=record.key, error=str(error))
            return False

    def doubts(self, key: str) -> bool:
        """Whether a record of `key` was refused since the last good one: then its absence is no answer."""
        return key in self.doubted

    def _checked(self, entry: Entry) -> Record:
        where = f"entry {entry.offset} of {entry.topic}"
        if len(entry.key or b"") > KEY_CHARACTERS_MAX:
            raise _refusal("size", where, f"its key is over {KEY_CHARACTERS_MAX} bytes")
        if len(entry.value or b"") > self._bytes_max:
            raise _refusal("size", where, f"it is over {self._bytes_max} bytes")
        try:
            record = from_entry(entry)
        except InvalidError:
            _refused.labels("shape").inc()
            raise
        batch = self._sealed(entry, record)
        self._decoded(entry, record)
        held = self._batches.get(entry.topic)
        if held is None or held.mark != batch:
            held = self._batches[entry.topic] = _Batch(batch)
        if held.differs(record):
            raise _refusal("duplicate", record.key, "stands twice in one batch, with different values")
        return record

    def _sealed(self, entry: Entry, record: Record) -> bytes:
        if self._seals is None:
            return b""
        try:
            return self._seals.check(entry.headers, record)
        except InvalidError:
            _refused.labels("signature").inc()
            raise

    def _decoded(self, entry: Entry, record: Record) -> None:
        """Raises `InvalidError` unless its value is one that this release can read, or of an unknown kind."""
        if record.key.startswith("~"):
            _check_mark(entry, record)
            return
        kind: Any = self._kinds.of_key(record.key)
        if kind is None or record.deleted:
            return
        try:
            kind.decode(record.value)
        except InvalidError:
            _refused.labels("schema").inc()
            raise


class _Batch:
    """The records of one signed batch; at most as many as one signature covers (`tables.seals`)."""

    def __init__(self, mark: bytes) -> None:
        self.mark = mark
        self._seen: dict[str, Record] = {}

    def differs(self, record: Record) -> bool:
        """Whether the batch had another record of this key."""
        return bool(self.mark) and self._seen.setdefault(record.key, record) != record


def read_canary(record: Record) -> Canary:
    """The canary in a record. Raises `InvalidError`."""
    try:
        return msgspec.json.decode(record.value, type=Canary)
    except msgspec.MsgspecError as error:
        raise InvalidError(f"canary {record.key}", [Problem("", str(error))]) from None


def _check_mark(entry: Entry, record: Record) -> None:
    if record.key.startswith(OWN_MARKS):
        raise _refusal("schema", record.key, "is for the gateway's own rows")
    topic = _TOPIC_OF_CANARY.get(record.key)
    if topic is None:
        return
    if topic != entry.topic or record.deleted:
        raise _refusal("schema", record.key, f"is no canary of topic {entry.topic}")
    try:
        read_canary(record)
    except InvalidError:
        _refused.labels("schema").inc()
        raise


def _key_of(entry: Entry) -> str:
    return (entry.key or b"")[:KEY_CHARACTERS_MAX].decode(errors="replace")


def _refusal(why: str, what: str, wrong: str) -> InvalidError:
    _refused.labels(why).inc()
    return InvalidError(what, [Problem("", wrong)])
