"""Many rows, asked for as they are needed: a database that sent all at once would send more than is kept.

The first portion is small, so that the few rows there mostly are cost one question; those after it grow. All
of it happens in one transaction, which sees one revision. Next on the data's way: `store`.
"""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Column, Connection, Select

_FIRST = 50
_GROWTH = 10
_MOST = 1000


def in_portions(
    db: Connection, query: Select[*tuple[Any, ...]], by: Column[int], after: int, most: int
) -> Iterator[Any]:
    """Up to `most` rows of `query` whose column `by` is above `after`, in its order; no two share it."""
    portion = _FIRST
    while most > 0:
        asked = min(portion, most)
        found = db.execute(query.where(by > after).order_by(by).limit(asked)).all()
        yield from found
        if len(found) < asked:
            return
        after = found[-1]._mapping[by]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # its public name
        most -= asked
        portion = min(portion * _GROWTH, _MOST)
