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
from transom.model.contexts import DELETED, VALUE_BYTES_MAX, ContextKinds, takes_rights
from transom.model.errors import UNREADABLE, InvalidError, Problem
from transom.model.records import Record
from transom.model.roads import CANARY_BULK, CANARY_FAST, CONTEXTS, CONTEXTS_BULK, Canary
from transom.region.contexts.doubts import Doubts
from transom.runtime.telemetry import get_logger, is_told, metrics
from transom.tables.keeper import OWN_MARKS

log_event = get_logger(__name__)

KEY_CHARACTERS_MAX = 1024
TOLD_MAX = 20
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
        """The record in `entry`. Raises `InvalidError` when it is refused, which is remembered.

        One that takes rights away is let in all the same, if the hub sent it: the last good one must not stay
        where it was taken back. Who then cannot read it answers that it cannot be told.
        """
        try:
            record = self._checked(entry)
        except InvalidError as error:
            self.refuse(_key_of(entry), str(error))
            if (restricting := self._restricting(entry)) is None:
                raise
            return restricting
        except Exception as error:  # whoever stumbles over one record stumbles over it alone
            why = f"cannot be judged: {type(error).__name__}: {error}"
            self.refuse(_key_of(entry), why)
            raise _refusal("shape", f"entry {entry.offset} of {entry.topic}", why) from error
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
        if is_told(self.refused_count):
            log_event.warning("context refused", key=key, why=why, count=self.refused_count)

    def undoes(self, record: Record, held: Record | None) -> bool:
        """Whether `record` would give back what `held`, of another epoch, took away; see `ContextKind`."""
        kind: Any = self._kinds.of_key(record.key)
        if kind is None or record.deleted or held is None or held.version.epoch == record.version.epoch:
            return False
        try:
            return _undoes(kind, record, held)
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

    def _restricting(self, entry: Entry) -> Record | None:
        """The record in a refused entry, if the hub takes rights away with it."""
        if not takes_rights(entry.value or b"") or len(entry.key or b"") > KEY_CHARACTERS_MAX:
            return None
        try:
            record = from_entry(entry)
            if self._seals is not None:
                self._seals.check(entry.headers, record)
        except InvalidError:
            return None
        return None if record.key.startswith("~") else record

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


def _undoes(kind: Any, record: Record, held: Record) -> bool:
    value = kind.decode(record.value)
    if held.deleted:
        return kind.deletes_for_good and held.value == DELETED and not kind.is_final(value)
    if takes_rights(held.value) and not kind.restricts(value):
        return True
    before = kind.decode(held.value)
    return (kind.is_final(before) and not kind.is_final(value)) or (
        kind.restricts(before) and not kind.restricts(value)
    )


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
    except UNREADABLE as error:
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
