"""Opening a store in PostgreSQL: what is made, what is left alone, and what is said when it cannot be."""

import asyncio
import sys
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from engines.certificates import Authority
from engines.postgres import Postgres
from engines.process import free_port
from engines.tls_front import TlsFront
from hub_parts import CLOCK, put, tenant
from transom.catalog.kinds import shipped
from transom.hub import migrations, store_postgres_setup
from transom.hub.store import Store
from transom.hub.store_engine import named_database
from transom.hub.store_postgres_setup import postgres_database
from transom.hub.store_schema import metadata
from transom.model.errors import InvalidError, NewerDataError, TransomError, UnreachableError
from transom.runtime.randomness import Randomness

PASSWORD = "correct horse"  # noqa: S105


def name_of(url: str) -> str:
    return url.rpartition("/")[2]


def refusal(url: str, password_file: Path | None = None) -> TransomError:
    with pytest.raises(TransomError) as caught:
        postgres_database(url, password_file, None).prepare(epoch=1)
    return caught.value


def everything(url: str) -> list[tuple[str, str, str]]:
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT table_name, column_name, data_type FROM information_schema.columns "
            "WHERE table_schema = 'public' ORDER BY 1, 2"
        ).fetchall()


# --- what is made --------------------------------------------------------------------------------------


def test_the_migrations_make_exactly_what_a_new_store_has(postgres: Postgres, database: str) -> None:
    postgres_database(database, None, None).prepare(epoch=5)
    with postgres.database() as other:
        shapes: list[list[tuple[object, ...]]] = []
        for url in (database, other):
            engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
            if url is other:
                config = Config()
                config.set_main_option("script_location", str(Path(migrations.__file__).parent))
                with engine.begin() as connection:
                    config.attributes["connection"] = connection
                    command.upgrade(config, "head")
            with engine.connect() as connection:
                differences = compare_metadata(MigrationContext.configure(connection), metadata)
                assert differences == []
            engine.dispose()
            shapes.append(shape_of(url))
        assert shapes[0] == shapes[1]


def shape_of(url: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        columns = connection.execute(
            "SELECT table_name, column_name, data_type, collation_name, is_nullable "
            "FROM information_schema.columns WHERE table_schema = 'public' "
            "AND table_name <> 'alembic_version' ORDER BY table_name, ordinal_position"
        ).fetchall()
        indexes = connection.execute(
            "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version' "
            "ORDER BY indexname"
        ).fetchall()
    texts = [row for row in columns if row[2] == "character varying"]
    # Keys must sort as everywhere else, whatever language the database was made for.
    assert len(texts) > 20
    assert {row[3] for row in texts} == {"C"}
    return [*columns, *indexes]


async def test_several_processes_that_start_at_once_make_one_store(database: str) -> None:
    databases = [postgres_database(database, None, None) for _ in range(4)]
    async with asyncio.TaskGroup() as group:
        for number, each in enumerate(databases):
            group.create_task(asyncio.to_thread(each.prepare, number + 1))
    with psycopg.connect(database) as connection:
        rows = connection.execute("SELECT id, revision, pruned_revision FROM counter").fetchall()
    assert rows == [(1, 0, 0)]


async def test_an_epoch_is_the_storages_not_the_processs(database: str) -> None:
    postgres_database(database, None, None).prepare(epoch=5)
    postgres_database(database, None, None).prepare(epoch=6)
    store = await Store.open(postgres_database(database, None, None), shipped(), CLOCK, Randomness(1))
    assert store.epoch == 5
    await store.close()


async def test_what_is_acknowledged_is_on_disk_whatever_the_server_is_set_to(
    postgres: Postgres, database: str
) -> None:
    for asked, given in (("off", "on"), ("remote_apply", "remote_apply")):
        postgres.execute(f'ALTER DATABASE "{name_of(database)}" SET synchronous_commit = {asked}')
        writer = postgres_database(database, None, None).writer()
        found = writer.run(lambda db: db.exec_driver_sql("SHOW synchronous_commit").scalar())
        writer.close()
        assert found == given


# --- what is left alone --------------------------------------------------------------------------------


def test_a_store_of_a_newer_release_is_refused_and_left_untouched(database: str) -> None:
    postgres_database(database, None, None).prepare(epoch=5)
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("DROP TABLE outbox")
    before = everything(database)
    error = refusal(database)
    assert isinstance(error, NewerDataError)
    assert "'9999'" in str(error)
    assert everything(database) == before


@pytest.mark.parametrize("table", ["theirs (x text)", "alembic_version (version_num text)"])
def test_another_programs_database_is_refused_and_left_untouched(table: str, database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(f"CREATE TABLE {table}".encode())
    before = everything(database)
    error = refusal(database)
    assert isinstance(error, InvalidError)
    assert "some other program's database" in str(error)
    assert everything(database) == before


# --- what is said --------------------------------------------------------------------------------------


@pytest.fixture
def account(postgres: Postgres, tmp_path: Path) -> tuple[str, Path]:
    """A user with a password, and the file that holds it."""
    user = f"u_{free_port()}"
    postgres.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}'")
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    file.chmod(0o600)
    return user, file


def test_a_user_that_owns_the_database_proves_itself(
    account: tuple[str, Path], postgres: Postgres, database: str
) -> None:
    user, file = account
    postgres.execute(f'ALTER DATABASE "{name_of(database)}" OWNER TO {user}')
    url = database.replace("postgres@", f"{user}@")
    made = postgres_database(url, file, None)
    made.prepare(epoch=1)
    assert PASSWORD not in f"{made} {made!r} {vars(made)}"

    error = refusal(url)
    assert isinstance(error, InvalidError)
    assert "no password supplied; name the file with its password in store_password_file" in str(error)
    file.write_text("something else")
    error = refusal(url, file)
    assert isinstance(error, InvalidError)
    assert f'password authentication failed for user "{user}"' in str(error)
    assert "something else" not in str(error)
    file.chmod(0o644)
    with pytest.raises(InvalidError, match="chmod 600"):
        postgres_database(url, file, None)


def test_a_user_without_rights_is_told_which(account: tuple[str, Path], database: str) -> None:
    user, file = account
    error = refusal(database.replace("postgres@", f"{user}@"), file)
    assert isinstance(error, InvalidError)
    assert "permission denied for schema public; make it the owner of the database" in str(error)


def test_a_user_without_rights_on_the_tables_is_told_which(account: tuple[str, Path], database: str) -> None:
    postgres_database(database, None, None).prepare(epoch=1)
    user, file = account
    error = refusal(database.replace("postgres@", f"{user}@"), file)
    assert isinstance(error, InvalidError)
    assert "permission denied for table" in str(error)


def test_what_is_not_there_is_named(postgres: Postgres) -> None:
    error = refusal(postgres.url("nowhere"))
    assert isinstance(error, InvalidError)
    assert 'database "nowhere" does not exist; make it with' in str(error)
    error = refusal(f"postgresql://postgres@127.0.0.1:{free_port()}/hub")
    assert isinstance(error, UnreachableError)
    assert "cannot be reached" in str(error)


def test_a_database_that_cannot_hold_a_store_is_refused(
    postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"latin_{free_port()}"
    postgres.execute(
        f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
    )
    assert "is encoded as LATIN1; make one with" in str(refusal(postgres.url(name)))
    postgres.execute(f"DROP DATABASE {name}")
    monkeypatch.setattr(store_postgres_setup, "_OLDEST", 99)
    assert "99 or newer is needed" in str(refusal(database))
    monkeypatch.undo()
    postgres.execute(f'ALTER DATABASE "{name_of(database)}" SET default_transaction_read_only = on')
    assert "is a standby, or set to be read only" in str(refusal(database))
    assert everything(database) == []


def test_without_the_driver_its_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.startswith("transom.hub.store_postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InvalidError, match=r"pip install 'transom\[postgres\]'"):
        named_database("postgresql://a@localhost/b", tmp_path, None, None)


async def test_a_server_elsewhere_must_prove_who_it_is(
    postgres: Postgres, database: str, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    authority, stranger = Authority(tmp_path), Authority(tmp_path / "other")
    async with TlsFront(postgres.port, authority.issue("postgres", ["localhost"])) as front:

        def named(host: str, port: int, trust: Path) -> str:
            url = f"postgresql://postgres@{host}:{port}/{name_of(database)}"
            try:
                postgres_database(url, None, trust).prepare(epoch=1)
            except InvalidError as error:
                return str(error)
            return ""

        assert await asyncio.to_thread(named, "localhost", front.port, authority.trust) == ""
        wrong = await asyncio.to_thread(named, "localhost", front.port, stranger.trust)
        assert "certificate verify failed; store_trust must hold" in wrong
        wrong = await asyncio.to_thread(named, "127.0.0.1", front.port, authority.trust)
        assert "name the server in store as its certificate does" in wrong
        wrong = await asyncio.to_thread(named, "localhost", front.port, tmp_path / "none.pem")
        assert "store_trust must be a file of certificates" in wrong
        wrong = await asyncio.to_thread(named, "localhost", postgres.port, authority.trust)
        assert "turn TLS on at the server" in wrong


async def test_a_database_made_read_only_later_refuses_writes_and_reads_on(
    postgres: Postgres, database: str
) -> None:
    store = await Store.open(postgres_database(database, None, None), shipped(), CLOCK, Randomness(1))
    await store.write(put(tenant("acme")))
    postgres.execute(f'ALTER DATABASE "{name_of(database)}" SET default_transaction_read_only = on')
    postgres.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name LIKE 't%'"
    )
    with pytest.raises(UnreachableError, match="standby, or set to be read only"):
        await store.write(put(tenant("zeta")))
    assert [item.metadata.name for item in await store.all_of("Tenant")] == ["acme"]
    await store.close()
