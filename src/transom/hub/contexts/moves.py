"""Moving a context to other regions: add, verify, then remove. Pure.

A row that must leave a region stays there until every region that is to have it has read it; only then does
the old region get a delete marker. A region that nobody is heard from verifies nothing: absence proves
nothing. Next on the data's way: `builder` writes the finished rows.
"""

from collections.abc import Iterable, Mapping, Sequence

from transom.hub.contexts.row import FAST, Row, region_names, regions_text
from transom.model.roads import GatewayBeat

Heard = Mapping[str, Sequence[GatewayBeat]]
"""The newest beats of the gateways heard lately, by region."""


def finished(rows: Iterable[Row], heard: Heard, declared: frozenset[str], epoch: int) -> list[Row]:
    """Those of `rows` that every region they are for is known to have, with their leaving done."""
    return [left(row) for row in rows if _arrived(row, heard, declared, epoch)]


def left(row: Row) -> Row:
    """The row once it has left the regions it was leaving: they are told to delete it."""
    named = region_names(row.regions, frozenset())
    gone = region_names(row.former, frozenset()) | region_names(row.leaving, frozenset())
    return row._replace(revision=0, leaving="", former=regions_text(gone - named))


def _arrived(row: Row, heard: Heard, declared: frozenset[str], epoch: int) -> bool:
    return all(
        heard.get(region) and all(_has(beat, row, epoch) for beat in heard[region])
        for region in region_names(row.regions, declared)
    )


def _has(beat: GatewayBeat, row: Row, epoch: int) -> bool:
    reached = beat.revision if row.lane == FAST else beat.bulk_revision
    return beat.epoch == epoch and reached >= row.revision and row.key not in beat.refused
