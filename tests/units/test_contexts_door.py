"""The door before a region's contexts: what is refused is refused alone, said, no answer about its key."""

import pytest
from tests.context_parts import a_key, canaries, entry_of, key_name, key_record, route_record

from transom.catalog.contexts import shipped_contexts
from transom.logs.protocol import Entry, Headers
from transom.model.errors import InvalidError, Problem
from transom.model.records import Record
from transom.model.roads import CANARY_FAST, CONTEXTS, CONTEXTS_BULK
from transom.model.version import Version
from transom.region.contexts.door import OWN_MARKS, TOLD_MAX, Door


class MarkedBatches:
    """Takes a header for a batch's seal."""

    def check(self, headers: Headers, record: Record) -> bytes:
        mark = dict(headers).get("batch", b"")
        if not mark:
            raise InvalidError(record.key, [Problem("", "is not signed")])
        return mark


def a_door(**limits: int) -> Door:
    return Door(MarkedBatches(), shipped_contexts(), **limits)


def sealed(record: Record, batch: bytes = b"1", topic: str = CONTEXTS, offset: int = 0) -> Entry:
    return entry_of(record, topic=topic, offset=offset, headers=(("batch", batch),))


def value_of(record: Record, value: bytes) -> Record:
    return Record(record.key, record.version, value)


GOOD = key_record(a_key(), 3)


def test_a_good_record_comes_in() -> None:
    door = a_door()
    for record in (GOOD, route_record("acme", "shop", 4), key_record(a_key(), 4, deleted=True)):
        assert door.read(sealed(record)) == record
    assert (door.refused, door.refused_count) == ({}, 0)


REFUSALS = {
    "not signed": entry_of(GOOD),
    "a required field is missing": sealed(value_of(GOOD, b'{"name": "x", "tenant": "acme"}')),
    "a blank where there must be a name": sealed(value_of(GOOD, GOOD.value.replace(b'"acme"', b'""'))),
    "no scopes": sealed(value_of(GOOD, GOOD.value.replace(b'["*"]', b"[]"))),
    "empty": sealed(value_of(GOOD, b"")),
    "too large": sealed(value_of(GOOD, b" " * 20_000 + GOOD.value)),
    "a key too long": sealed(Record("x" * 2000, Version(1, 1, "hub"), b"{}")),
    "no version": Entry(CONTEXTS, 0, 0, 0, b"api_key/x", b"{}", (("batch", b"1"),)),
    "no key": Entry(CONTEXTS, 0, 0, 0, None, b"{}", (("batch", b"1"),)),
    "a canary of the other lane": sealed(canaries(1, 1.0)[0], topic=CONTEXTS_BULK),
    "a canary that says nothing": sealed(Record(CANARY_FAST, Version(1, 1, "hub"), b"{}")),
    "a canary deleted": sealed(Record(CANARY_FAST, Version(1, 1, "hub"), b"{}", deleted=True)),
    "the gateway's own rows": sealed(Record(f"{OWN_MARKS}topic/contexts", Version(1, 1, "hub"), b"x")),
}


@pytest.mark.parametrize("entry", REFUSALS.values(), ids=REFUSALS)
def test_what_is_wrong_is_refused_alone_and_said(entry: Entry) -> None:
    door = a_door()
    with pytest.raises(InvalidError):
        door.read(entry)
    assert door.refused_count == 1
    ((key, why),) = door.refused.items()
    assert why
    assert door.doubts(key)
    assert not door.doubts("api_key/another")
    assert door.read(sealed(GOOD)) == GOOD


TAKES = b',"~restricts":true}'
UNREADABLE = {
    "a later schema": b'{"state":"revoked"' + TAKES,
    "no value of any kind": b"\xff\x00" + TAKES,
    "too large": GOOD.value[:-1] + b" " * 20_000 + TAKES,
}


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE)
def test_what_takes_rights_away_comes_in_whatever_else_it_says_and_is_said(value: bytes) -> None:
    door = a_door()
    record = value_of(GOOD, value)
    assert door.read(sealed(record)) == record
    assert list(door.refused) == [GOOD.key]
    assert door.doubts(GOOD.key)
    with pytest.raises(InvalidError):
        door.read(entry_of(record))  # sealed by nobody
    with pytest.raises(InvalidError):
        door.read(sealed(Record(f"{OWN_MARKS}doubts", record.version, value)))
    with pytest.raises(InvalidError):
        door.read(sealed(value_of(GOOD, value[: -len(TAKES)] + b"}")))


def test_what_took_rights_away_unread_is_not_undone_by_a_store_that_forgot_it() -> None:
    door, held = a_door(), value_of(GOOD, UNREADABLE["a later schema"])
    forgot = Record(GOOD.key, Version(2, 1, "hub"), GOOD.value)
    assert door.undoes(forgot, held)
    assert not door.undoes(Record(GOOD.key, Version(1, 9, "hub"), GOOD.value), held)


def test_unknown_fields_and_unknown_kinds_come_in() -> None:
    door = a_door()
    newer = value_of(GOOD, GOOD.value[:-1] + b',"colour":"blue"}')
    assert door.read(sealed(newer)) == newer
    unknown = Record("quota/acme", Version(1, 1, "hub"), b"\x00\x01")
    assert door.read(sealed(unknown)) == unknown


def test_a_good_record_ends_the_doubt_about_its_key() -> None:
    door = a_door()
    with pytest.raises(InvalidError):
        door.read(entry_of(GOOD))
    assert door.doubts(GOOD.key)
    door.read(sealed(GOOD))
    assert not door.doubts(GOOD.key)
    assert (door.refused, door.refused_count) == ({}, 1)


def test_two_values_of_a_key_in_one_batch_are_refused_and_in_two_are_not() -> None:
    door, other = a_door(), value_of(GOOD, GOOD.value.replace(b'"acme"', b'"globex"'))
    door.read(sealed(GOOD, b"1"))
    assert door.read(sealed(GOOD, b"1")) == GOOD  # read twice: nothing new
    door.read(sealed(route_record("acme", "shop", 1), b"9", topic=CONTEXTS_BULK))  # the lanes take turns
    with pytest.raises(InvalidError, match="twice in one batch"):
        door.read(sealed(other, b"1"))
    later = Record(other.key, Version(1, 9, "hub"), other.value)
    assert door.read(sealed(later, b"2")) == later


def test_what_is_remembered_of_refusals_is_bounded_and_then_every_absence_is_in_doubt() -> None:
    door = a_door()
    for number in range(10_001):
        door.refuse(f"api_key/{number}", "bad")
    assert len(door.refused) == TOLD_MAX
    assert list(door.refused)[-1] == "api_key/10000"
    assert door.refused_count == 10_001
    assert door.doubts(key_name(a_key()))


def test_no_refusal_shows_a_value() -> None:
    door = a_door()
    with pytest.raises(InvalidError) as caught:
        door.read(sealed(value_of(GOOD, b'{"name": "sesame"')))
    assert "sesame" not in str(caught.value)
    assert "sesame" not in str(door.refused)
