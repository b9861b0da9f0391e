"""A kind of your own: a Database is a SQLite file, with its tables, in every region that it names."""

import sqlite3
from typing import Any

from transom.model.regional import InRegion, Regional, Thing, regional


class Database(Regional):
    """What people declare: tables with their columns. The first of `regions` may write to them."""

    tables: dict[str, list[str]]

    def in_region(self, region: str) -> "RegionalDatabase":
        return RegionalDatabase(tables=self.tables, writable=region == self.regions[0])


class RegionalDatabase(InRegion):
    """What one region is asked for."""

    tables: dict[str, list[str]]
    writable: bool


class Files:
    """What a region does about it. Both may be called again at any time, and then find it done."""

    def make(self, thing: Thing) -> dict[str, Any]:
        with sqlite3.connect(thing.folder / "data.db") as database:
            for table, columns in thing.spec.tables.items():
                database.execute(f'CREATE TABLE IF NOT EXISTS "{table}" ({", ".join(columns)})')
        return {"file": str(thing.folder / "data.db"), "writable": thing.spec.writable}

    def remove(self, thing: Thing) -> None:
        (thing.folder / "data.db").unlink(missing_ok=True)


KINDS = regional(Database, RegionalDatabase, group="acme.example", short_names=("db",))
DRIVERS = {"RegionalDatabase": Files()}
