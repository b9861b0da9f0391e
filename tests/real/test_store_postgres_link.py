"""A connection that sends what needs no answer along with what does, and what then becomes of errors."""

import itertools
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.errors import DivisionByZero, UniqueViolation
from test_store_postgres import stores

from engines.postgres import Postgres
from hub_parts import deployment, put
from transom.hub import store_postgres_link
from transom.hub.store_postgres_link import Link


@pytest.fixture
def link(database: str) -> Iterator[Link]:
    """In flight; of tables there is `held`, with one column, whose values differ."""
    with Link.connect(database) as made:
        made.execute("CREATE TABLE held (n int PRIMARY KEY)")
        made.commit()
        made.take_off()
        yield made


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every wait for an answer of a link that has taken off."""
    counted: list[int] = []
    arrive = store_postgres_link._Flight.arrive

    def counting(flight: store_postgres_link._Flight) -> object:
        counted.append(len(flight.result_queue))
        return arrive(flight)

    monkeypatch.setattr(store_postgres_link._Flight, "arrive", counting)
    return counted


def held(database: str) -> list[int]:
    with psycopg.connect(database) as other:
        return [n for (n,) in other.execute("SELECT n FROM held ORDER BY n")]


def test_what_needs_no_answer_flies_along(link: Link, database: str, waits: list[int]) -> None:
    for n in range(5):
        link.cursor().execute("INSERT INTO held VALUES (%s)", [n])
    assert waits == []
    link.commit()
    assert len(waits) == 1
    assert held(database) == list(range(5))


async def test_a_write_waits_for_what_it_asks_and_a_read_too(database: str, waits: list[int]) -> None:
    async with stores(database, 1) as (store,):
        waits.clear()
        await store.write(put(deployment("web")))
        # For the counter and its lock, for what is held of it and of what it names, and for the commit.
        assert len(waits) == 4
        waits.clear()
        await store.outbox(0, 100)
        await store.region_rows("eu", 0, 100)
        assert len(waits) == 1 + 2  # no rows: the revision is asked for apart


def test_an_error_of_what_flew_along_is_raised_by_who_waits_next(link: Link, database: str) -> None:
    cursor = link.cursor()
    for n in (1, 2, 1, 3):
        cursor.execute("INSERT INTO held VALUES (%s)", [n])
    with pytest.raises(UniqueViolation):
        link.commit()
    link.rollback()
    assert held(database) == []
    cursor.execute("INSERT INTO held VALUES (1)")
    with pytest.raises(DivisionByZero):
        cursor.execute("SELECT 1 / 0")
    link.rollback()
    cursor.execute("INSERT INTO held VALUES (4)")
    assert cursor.execute("SELECT n FROM held").fetchall() == [(4,)]
    link.commit()
    assert held(database) == [4]


def test_what_is_rolled_back_is_not_even_sent(link: Link, database: str) -> None:
    insert = "INSERT INTO held VALUES (%s)"
    for n in itertools.chain.from_iterable([[1] * 9, [2] * 9]):  # prepared after some times, and dropped
        link.cursor().execute(insert, [n])
        link.rollback()
    link.cursor().execute("INSERT INTO nowhere VALUES (1)")
    link.rollback()
    for n in range(9):
        link.cursor().execute(insert, [n])
        link.commit()
    assert held(database) == list(range(9))


def test_many_are_sent_before_anyone_waits(link: Link, database: str, waits: list[int]) -> None:
    cursor = link.cursor()
    cursor.executemany("INSERT INTO held VALUES (%s)", [[n] for n in range(1000)])
    assert link._pipeline is not None
    assert len(link._pipeline.command_queue) < 200
    assert waits == []
    link.commit()
    assert held(database) == list(range(1000))


def test_a_session_that_ends_is_told_of_by_its_reason(link: Link, postgres: Postgres, database: str) -> None:
    link.cursor().execute("SELECT 1")
    link.cursor().execute("INSERT INTO held VALUES (1)")
    postgres.execute("SELECT pg_terminate_backend(%s, 5000)", link.info.backend_pid)
    with pytest.raises(psycopg.OperationalError, match="terminating connection"):
        link.commit()
    assert link.closed
    assert held(database) == []


def test_the_server_sees_that_it_waits_for_us(link: Link, postgres: Postgres) -> None:
    link.cursor().execute("SELECT n FROM held FOR UPDATE")
    link.cursor().execute("INSERT INTO held VALUES (1)")
    asked = "SELECT state FROM pg_stat_activity WHERE pid = %s"
    assert postgres.execute(asked, link.info.backend_pid) == [("idle in transaction",)]
