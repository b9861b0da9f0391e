"""Stores of tests on either engine: the same test in a SQLite file and in a real PostgreSQL.

A module opts in with `pytestmark = pytest.mark.usefixtures("each_engine")`; its stores are then where
`store_at` says. What is one path is one database, so a test that opens a path again finds what it left.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.postgres import Postgres
from transom.hub.store_engine import Database
from transom.hub.store_postgres_setup import postgres_database

ENGINES = ("embedded", "real")


class _Places:
    """The databases of the test that runs now; None when its stores are files."""

    def __init__(self) -> None:
        self.server: Postgres | None = None
        self.stack = contextlib.ExitStack()
        self.made: dict[Path, Database] = {}


_places = _Places()


def store_at(path: Path) -> Path | Database:
    """What `Store.open` is to be given for the store that belongs at `path`."""
    if _places.server is None:
        return path
    if path not in _places.made:
        url = _places.stack.enter_context(_places.server.database())
        _places.made[path] = postgres_database(url, None, None)
    return _places.made[path]


@pytest.fixture(params=ENGINES)
def each_engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """The engine of this run of the test."""
    if request.param == "embedded":
        yield request.param
        return
    with contextlib.ExitStack() as stack:
        _places.server, _places.stack = request.getfixturevalue("postgres"), stack
        yield request.param
        _places.server = None
        _places.made.clear()
