"""Bringing a store's tables up to this release's, on whichever engine. `store_sqlite` and `store_postgres`
know where the tables are and what stands in the way; the steps themselves are in `migrations/`.
"""

from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    insert,
    inspect,
    select,
)

from transom.hub.store_schema import HEAD, counter, metadata
from transom.model.errors import NewerDataError


def check_known(store: str, held: str) -> None:
    """Raise `NewerDataError` when `store` is at a migration that only a newer release knows."""
    if held != HEAD and held not in _known_revisions():
        raise NewerDataError(
            f"{store} is at migration {held!r}, which this release does not know (it knows {HEAD}); "
            "start the release that wrote it, or a newer one"
        )


def migrate(db: Connection, epoch: int) -> None:
    """Bring the tables up to date in the transaction of `db`; `epoch` is for a store that is new.

    A new one is made as the schema says: the tool for steps takes 8 MiB, for as long as the hub runs.
    """
    if inspect(db).has_table(_VERSION.name):
        from alembic import command  # noqa: PLC0415  # slow to load, and seldom needed

        config = _alembic()
        config.attributes["connection"] = db
        command.upgrade(config, "head")
    else:
        metadata.create_all(db)
        _VERSION.create(db)
        db.execute(insert(_VERSION).values(version_num=HEAD))
    if db.execute(select(counter.c.id)).first() is None:
        db.execute(insert(counter).values(id=1, epoch=epoch, revision=0, pruned_revision=0))


_VERSION = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""Where the tool keeps at which step a store is."""


def _known_revisions() -> set[str]:
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    return {script.revision for script in ScriptDirectory.from_config(_alembic()).walk_revisions()}


def _alembic() -> Any:
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
