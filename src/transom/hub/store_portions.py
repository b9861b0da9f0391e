"""Many rows, asked for as they are needed: a database that sent all at once would send more than is kept.

The first portion is small, so that the few rows there mostly are cost one question; those after it grow. All
of it happens in one transaction, which sees one revision. Next on the data's way: `store`.
"""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Column, Connection, Select, bindparam

_FIRST = 50
_GROWTH = 10
_MOST = 1000


class Portions:
    """A question whose rows are in the order of the column `by`, which no two of them share."""

    def __init__(self, query: Select[*tuple[Any, ...]], by: Column[int]) -> None:
        self._by = by
        self._portion = query.where(by > bindparam("behind")).order_by(by).limit(bindparam("asked"))

    def rows(self, db: Connection, after: int, most: int, **values: object) -> Iterator[Any]:
        """Up to `most` rows whose column is above `after`; `values` are the question's own."""
        portion = _FIRST
        while most > 0:
            asked = min(portion, most)
            found = db.execute(self._portion, {**values, "behind": after, "asked": asked}).all()
            yield from found
            if len(found) < asked:
                return
            after = found[-1]._mapping[self._by]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # its public name
            most -= asked
            portion = min(portion * _GROWTH, _MOST)
