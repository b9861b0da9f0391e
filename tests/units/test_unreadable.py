"""Bytes that nobody can read (text that is not UTF-8, what is nested too deep) are refused like any other.

Their errors are no `msgspec.MsgspecError`. A reader that expects only those would end at the first such
record, and at each new start again: one flipped bit would keep every later revocation from arriving.
"""

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.context_parts import a_key, canaries, entry_of, key_record

from transom.catalog.contexts import shipped_contexts
from transom.hub import archive
from transom.links.positions import POSITIONS, read_position
from transom.logs import wire
from transom.logs.memory import MemoryLog
from transom.logs.protocol import Entry, Message
from transom.model.contexts import VALUE_BYTES_MAX
from transom.model.errors import UNREADABLE, InvalidError
from transom.model.records import Record
from transom.model.roads import CONTEXTS
from transom.region.contexts.door import Door
from transom.region.contexts.doubts import Doubts
from transom.runtime.clock import ManualClock
from transom.runtime.signing import Signer, Trust, make_signing_key
from transom.tables.seals import Seals, seal
from transom.tables.sweeps import Answer

SOURCES = Path(__file__).parents[2] / "src"
NOT_UTF8 = b'{"name": "\xff"}'
TOO_DEEP = b'{"name": ' + b"[" * (VALUE_BYTES_MAX - 100)
GOOD = key_record(a_key(), 3)


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return make_signing_key(tmp_path / "signing.key")


def sealed(record: Record, signer: Signer) -> Entry:
    (headers,) = seal([record], "eu", signer)
    return entry_of(record, topic=CONTEXTS, headers=headers)


def a_door(signer: Signer) -> Door:
    return Door(Seals("eu", Trust([signer.public_text])), shipped_contexts())


def flipped(data: bytes) -> list[bytes]:
    """`data` with one bit of one byte changed, in every way."""
    return [
        data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
        for at in range(len(data))
        for bit in range(8)
    ]


def test_whatever_bit_of_a_record_is_flipped_it_is_refused_alone(signer: Signer) -> None:
    entry = sealed(GOOD, signer)
    assert a_door(signer).read(entry) == GOOD
    assert entry.key is not None
    assert entry.value is not None
    broken = [msgspec.structs.replace(entry, key=key) for key in flipped(entry.key)]
    broken += [msgspec.structs.replace(entry, value=value) for value in flipped(entry.value)]
    for name, data in entry.headers:
        others = dict(entry.headers)
        broken += [
            msgspec.structs.replace(entry, headers=tuple({**others, name: wrong}.items()))
            for wrong in flipped(data)
        ]
    door = a_door(signer)
    for each in broken:
        with pytest.raises(InvalidError):
            door.read(each)
    assert door.refused_count == len(broken) > 1000
    assert door.read(entry) == GOOD


@pytest.mark.parametrize("value", [NOT_UTF8, TOO_DEEP], ids=["not UTF-8", "too deep"])
def test_a_value_that_nobody_can_read_is_refused_alone(value: bytes, signer: Signer) -> None:
    door = a_door(signer)
    for record in (GOOD, canaries(1, 1.0)[0]):
        with pytest.raises(InvalidError):
            door.read(sealed(msgspec.structs.replace(record, value=value), signer))
    assert door.refused_count == 2


def test_whatever_a_kind_raises_stops_no_other_record(
    signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = a_door(signer)
    kinds = shipped_contexts()
    kind = kinds.of_key(GOOD.key)

    def stumble(_self: object, _data: bytes) -> None:
        raise LookupError("of anybody's module")

    monkeypatch.setattr(type(kind), "decode", stumble)
    with pytest.raises(InvalidError, match="LookupError"):
        door.read(sealed(GOOD, signer))
    assert door.doubts(GOOD.key)


READERS: dict[str, Callable[[bytes], object]] = {
    "a zone's report": lambda data: archive._status(Record("k", GOOD.version, data)),
    "a gateway's doubts": lambda data: Doubts().recall(data),
}


@pytest.mark.parametrize("value", [NOT_UTF8, TOO_DEEP], ids=["not UTF-8", "too deep"])
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_no_other_reader_ends_at_it(read: Callable[[bytes], object], value: bytes) -> None:
    try:
        read(value)
    except InvalidError:
        return


async def test_a_position_that_nobody_can_read_is_named() -> None:
    log = MemoryLog(ManualClock())
    await log.create([POSITIONS])
    await log.append([Message(POSITIONS.name, b"link", b'{"id": "\xff"}')])
    with pytest.raises(InvalidError, match="link"):
        await read_position(log, "link", Answer)


def test_an_error_of_a_log_that_nobody_can_read_is_none() -> None:
    assert wire.decode_error(b"\x92\xa1\xff\x90") is None


def test_nobody_expects_less_than_what_reading_raises() -> None:
    assert {UnicodeDecodeError, RecursionError} < set(UNREADABLE)
    narrow = re.compile(r"except [^\n]*msgspec\.(MsgspecError|DecodeError)")
    found = [
        f"{path.relative_to(SOURCES)}: {line.strip()}"
        for path in sorted(SOURCES.rglob("*.py"))
        for line in path.read_text().splitlines()
        if narrow.search(line)
    ]
    assert found == [], "catch transom.model.errors.UNREADABLE"
