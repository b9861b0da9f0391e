"""A row of the table `contexts`: the newest state of one context, and which regions have or had it.

Next on the data's way: `planning` says which rows change.
"""

import hashlib
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from transom.model.contexts import EVERYWHERE
from transom.model.names import is_label

FAST = "fast"
BULK = "bulk"
LANES = (FAST, BULK)

EVERY_REGION = "*"
NOTHING = b"{}"
"""The value of a delete marker."""


class Row(NamedTuple):
    """One context. Columns as in `hub.store_schema`; sets of regions are texts as they stand there.

    `revision` and `added` are 0 in a row that is not written yet (`added`: that has just come to be).
    """

    key: str
    kind: str
    tenant: str
    subject: str
    schema: int
    revision: int
    added: int
    lane: str
    regions: str
    leaving: str
    former: str
    restricts: bool
    deleted: bool
    value: bytes


class Told(Enum):
    """What a region is told of a row."""

    VALUE = "value"
    MARKER = "marker"


def told(row: Row, region: str) -> Told | None:
    """What `region` is told of `row`: its value, a delete marker, or nothing because it never had it."""
    name = f",{region},"
    if row.regions == EVERY_REGION or name in row.regions or name in row.leaving:
        return Told.MARKER if row.deleted else Told.VALUE
    return Told.MARKER if name in row.former else None


def mark_of(row: Row) -> int:
    """A number of 64 bits for what a row says of its key. Those of many rows, combined by XOR, tell whether
    they are the same rows, in whatever order they were met.
    """
    says = b"" if row.deleted else row.value
    return int.from_bytes(hashlib.sha256(b"%b\0%d%b" % (row.key.encode(), row.deleted, says)).digest()[:8])


def marked(rows: Iterable[Row]) -> int:
    """The marks of some rows as one."""
    mark = 0
    for row in rows:
        mark ^= mark_of(row)
    return mark


def regions_text(regions: Iterable[str]) -> str:
    """A set of regions as it is stored."""
    names = frozenset(regions)
    if names >= EVERYWHERE:
        return EVERY_REGION
    return f",{','.join(sorted(names))}," if names else ""


def all_regions(rows: Iterable[Row]) -> str:
    """The regions that some rows concern, as a stored set."""
    texts = {text for row in rows for text in (row.regions, row.leaving)}
    return joined(*texts)


def joined(*texts: str) -> str:
    """Stored sets of regions as one."""
    if EVERY_REGION in texts:
        return EVERY_REGION
    return regions_text(name for text in texts for name in text.split(",") if name)


def region_names(text: str, declared: frozenset[str]) -> frozenset[str]:
    """The regions that a stored set names; `declared` are those there are, for "*"."""
    return declared if text == EVERY_REGION else frozenset(name for name in text.split(",") if name)


def are_regions(regions: frozenset[str]) -> bool:
    """Whether `regions` can be stored: every region, or names; an empty set is neither."""
    return regions == EVERYWHERE or (bool(regions) and all(is_label(name) for name in regions))
