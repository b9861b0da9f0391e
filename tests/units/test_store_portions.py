"""Rows that are asked for in portions are the same rows, and no more are asked for than are looked at."""

import itertools

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table, create_engine, event, insert, select

from transom.hub.store_portions import Portions

NUMBERS = Table("numbers", MetaData(), Column("n", Integer, primary_key=True), Column("half", Integer))
COUNT = 1700


@pytest.fixture
def db() -> Connection:
    db = create_engine("sqlite://").connect()
    NUMBERS.create(db)
    db.execute(insert(NUMBERS), [{"n": 3 * n, "half": n % 2} for n in range(1, COUNT + 1)])
    return db


def numbers(db: Connection, after: int, most: int) -> list[int]:
    query = select(NUMBERS.c.half, NUMBERS.c.n).where(NUMBERS.c.half == 0)
    return [n for _, n in Portions(query, NUMBERS.c.n).rows(db, after, most)]


@pytest.mark.parametrize("most", [0, 1, 49, 50, 51, 549, 550, 551, 849, 850, 851, 5000])
@pytest.mark.parametrize("after", [0, 6, 7, 3000, 3 * COUNT])
def test_portions_are_the_rows_in_order(db: Connection, after: int, most: int) -> None:
    assert numbers(db, after, most) == [n for n in range(6, 3 * COUNT + 1, 6) if n > after][:most]


def test_who_looks_at_a_few_asks_for_a_few(db: Connection) -> None:
    asked: list[int] = []
    event.listen(db, "before_cursor_execute", lambda *told: asked.append(told[3][-2]))
    found = Portions(select(NUMBERS.c.n), NUMBERS.c.n).rows(db, 0, COUNT)
    assert list(itertools.islice(found, 50)) == [(3 * n,) for n in range(1, 51)]
    assert asked == [50]
    next(found)
    assert asked == [50, 500]
