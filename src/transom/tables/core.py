"""Which of two records of one key stays (invariant 2): the newer version, whatever order they came in."""

from collections.abc import Callable, Iterable

from transom.model.errors import VersionClashError
from transom.model.records import Record


def supersedes(incoming: Record, held: Record | None) -> bool:
    """Whether `incoming` replaces `held`.

    Raises `VersionClashError` when both have one version and different bytes: then two writers believe they
    are one, and choosing between them would hide it.
    """
    if held is None or incoming.version > held.version:
        return True
    if incoming.version == held.version and incoming != held:
        raise VersionClashError(
            f"key {incoming.key!r} has two different values at version {incoming.version}: two writers share "
            "one identity; stop one of them and start the other with a new epoch"
        )
    return False


def newest(records: Iterable[Record], held: Callable[[str], Record | None]) -> dict[str, Record]:
    """What a batch changes, by key: each record compared with the table and with those before it."""
    winners: dict[str, Record] = {}
    for record in records:
        known = winners.get(record.key) or held(record.key)
        if supersedes(record, known):
            winners[record.key] = record
    return winners
