"""What is wrong with a copy, in words: where, what stands there, and where it comes from.

`mirror_checker` knows that a place differs; here the records around it tell whether one was lost, doubled,
moved, changed, or should never have been copied.
"""

from dataclasses import dataclass

from mirror_reading import Bytes, Digest, Reading, Record

_SHOWN_BYTES = 60


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between a topic and its copy."""

    topic: str
    partition: int | None = None
    source_offset: int | None = None
    target_offset: int | None = None
    what: str = ""
    only_short: bool = False
    """The copy is right as far as it goes, and ends too early: it may still be growing."""

    def __str__(self) -> str:
        places = {
            "partition": self.partition,
            "source offset": self.source_offset,
            "target offset": self.target_offset,
        }
        named = [f"{name} {place}" for name, place in places.items() if place is not None]
        return f"{', '.join([self.topic, *named])}: {self.what}"


def different(topic: str, number: int, place: int, source: Reading, copy: Reading) -> Difference:
    """Words for the first difference of a partition, at the `place`-th record of source or copy or both."""
    wanted = _at(source[number].records, place)
    got = _at(copy[number].records, place)
    if got is None:
        assert wanted is not None
        elsewhere = _partition_with(wanted, number, copy)
        told = "has no copy: the copy ends before it" if elsewhere is None else f"is in partition {elsewhere}"
        return Difference(topic, number, wanted.offset, None, told, only_short=elsewhere is None)
    told = _stranger(number, place, got, source, copy)
    if wanted is None:
        return Difference(topic, number, None, got.offset, told or "is a record too many")
    if told is None and _find(wanted, copy[number].records[place:]) is not None:
        told = "is a record that committed readers of the source do not see"
    return Difference(topic, number, wanted.offset, got.offset, told or changed(wanted, got))


def _stranger(number: int, place: int, got: Record, source: Reading, copy: Reading) -> str | None:
    """What a record of the copy is that belongs elsewhere; None when the source has none like it."""
    records = source[number].records
    if _find(got, records[:place]) is not None:
        return f"is a second copy of source offset {_offset(got, records[:place])}"
    later = _find(got, records[place:])
    if later is not None:
        missing = records[place]
        moved = _find(missing, copy[number].records[place:])
        told = "comes later" if moved is not None else "is missing"
        elsewhere = None if moved is not None else _partition_with(missing, number, copy)
        told = told if elsewhere is None else f"is in partition {elsewhere}"
        return (
            f"is the copy of source offset {_offset(got, records[place:])}; that of {missing.offset} {told}"
        )
    elsewhere = _partition_with(got, number, source)
    return None if elsewhere is None else f"is a record of partition {elsewhere}"


def changed(wanted: Record, got: Record) -> str:
    """Which parts of a record are not those of its source."""
    told: list[str] = []
    if wanted.timestamp_ms != got.timestamp_ms:
        told.append(f"timestamp {wanted.timestamp_ms} became {got.timestamp_ms}")
    if wanted.key != got.key:
        told.append(f"key {shown(wanted.key)} became {shown(got.key)}")
    if wanted.value != got.value:
        told.append(f"value {shown(wanted.value)} became {shown(got.value)}")
    if wanted.headers != got.headers:
        told.append(_headers(wanted, got))
    return ", ".join(told)


def _headers(wanted: Record, got: Record) -> str:
    if len(wanted.headers) != len(got.headers):
        return f"{len(wanted.headers)} headers became {len(got.headers)}"
    if all(wanted.headers.count(one) == got.headers.count(one) for one in wanted.headers):
        return "the headers are in another order"
    pairs = enumerate(zip(wanted.headers, got.headers, strict=True))
    place, (one, other) = next((place, pair) for place, pair in pairs if pair[0] != pair[1])
    return f"header {place} {one[0]!r}: {shown(one[1])} became {other[0]!r}: {shown(other[1])}"


def shown(data: Bytes) -> str:
    """Bytes, short enough for a message."""
    if data is None:
        return "null"
    if isinstance(data, Digest):
        return f"{data.size_bytes} bytes ({data.blake2b})"
    return repr(data) if len(data) <= _SHOWN_BYTES else f"{data[:_SHOWN_BYTES]!r}… ({len(data)} bytes)"


def _at(records: list[Record], place: int) -> Record | None:
    return records[place] if place < len(records) else None


def _find(one: Record, records: list[Record]) -> int | None:
    return next((place for place, other in enumerate(records) if one.content == other.content), None)


def _offset(one: Record, records: list[Record]) -> int:
    place = _find(one, records)
    assert place is not None
    return records[place].offset


def _partition_with(one: Record, but: int, reading: Reading) -> int | None:
    others = (
        number for number, held in reading.items() if number != but and _find(one, held.records) is not None
    )
    return next(others, None)
