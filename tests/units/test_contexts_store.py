"""Contexts in the store, and as the rows that publishers read."""

import contextlib
import functools
import sqlite3

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import select

from hub_contexts_parts import Works, gate, gates, tenant, works
from transom.hub import migrations
from transom.hub.contexts.guards import Limits
from transom.hub.contexts.planning import Cause
from transom.hub.contexts.row import BULK, FAST
from transom.hub.contexts.rows import ContextRows
from transom.hub.contexts.state import Builder, Job, Scope
from transom.hub.store_schema import counter
from transom.hub.store_sqlite import SqliteDatabase
from transom.model.contexts import DELETED
from transom.model.version import Version

pytestmark = pytest.mark.usefixtures("each_engine")

NO_GUARD = Limits(share=None)


@pytest.fixture
async def hub(tmp_path):
    async with works(tmp_path, limits=NO_GUARD, bulk_rows=5) as made:
        yield made


def source(hub: Works, region="eu", lane=FAST) -> ContextRows:
    return ContextRows(hub.contexts, region, lane, lambda: hub.builder.known)


# --- migration -----------------------------------------------------------------------------------------


TENANT = b'{"apiVersion":"transom.dev/v1","kind":"Tenant","metadata":{"name":"acme"}}'


def test_a_store_without_contexts_is_migrated_and_keeps_everything(tmp_path):
    path = tmp_path / "store.db"
    config = Config()
    config.set_main_option("script_location", str(migrations.__path__[0]))
    database = SqliteDatabase(path)
    writer = database.writer()

    def upgrade(connection):
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")

    writer.run(upgrade)
    writer.close()
    tables = ("counter", "resources", "history", "outbox", "positions")
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("INSERT INTO counter VALUES (1, 77, 5, 2)")
        row = ("Tenant//acme", "Tenant", "", "acme", "u", 5, 4, None, None, 0, TENANT)
        db.execute("INSERT INTO resources VALUES (?,?,?,?,?,?,?,?,?,?,?)", row)
        db.execute("INSERT INTO positions VALUES ('archive', 'status', 0, 9)")
    before = {name: rows_of(path, name) for name in tables}
    database.prepare(epoch=99)
    # Later releases keep more of each row; and of changes before theirs they cannot tell all.
    assert before.pop("counter") == [(1, 77, 5, 2)]
    assert [row[:4] for row in rows_of(path, "counter")] == [(1, 77, 5, 6)]
    for name, rows in before.items():
        assert [row[: len(rows[0])] for row in rows_of(path, name)] == rows
    assert rows_of(path, "contexts") == rows_of(path, "context_state") == []


def rows_of(path, table):
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608


async def test_contexts_take_revisions_and_leave_the_audit_s_chain_alone(hub):
    await hub.put(gate("g"))
    asked = select(counter.c.revision, counter.c.audit_hash)
    described = await hub.store.read(lambda db: db.execute(asked).one())
    await hub.build()
    after = await hub.store.read(lambda db: db.execute(asked).one())
    assert after.revision > described.revision
    assert after.audit_hash == described.audit_hash is not None


async def test_the_present_is_found_through_indexes(hub):
    """With a million rows, going through all of them for one change would be the end."""
    queries = (
        "SELECT * FROM resources WHERE described_revision > 5 ORDER BY described_revision LIMIT 5",
        "SELECT * FROM contexts WHERE lane = 'fast' AND revision > 5 ORDER BY revision LIMIT 5",
        "SELECT * FROM contexts WHERE revision > 5 ORDER BY revision LIMIT 5",
        "SELECT max(revision) FROM contexts WHERE lane = 'bulk'",
        "SELECT * FROM contexts WHERE subject IN ('a', 'b')",
        "SELECT * FROM contexts WHERE leaving != '' AND revision > 5 ORDER BY revision LIMIT 5",
        "SELECT 1 FROM contexts WHERE kind = 'a' AND tenant = 'b' AND NOT deleted",
        "SELECT * FROM resources WHERE kind = 'a' AND namespace >= 'b' AND (namespace > 'b' OR name > 'c') \
         ORDER BY namespace, name LIMIT 5",
    )
    for query in queries:
        plan = await hub.store.read(functools.partial(plan_of, query))
        assert "index" in plan, query
        assert "temp b-tree" not in plan, query
        assert "sort" not in plan, query


def plan_of(query, db):
    """How the database would go about a query on tables so large that it must choose well."""
    if db.dialect.name == "sqlite":
        return " ".join(row[3] for row in db.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}")).lower()
    for setting in ("enable_seqscan", "enable_bitmapscan"):
        db.exec_driver_sql(f"SET LOCAL {setting} = off")
    plan = " ".join(row[0] for row in db.exec_driver_sql(f"EXPLAIN {query}")).lower()
    assert "seq scan" not in plan, query
    return plan


# --- writing -------------------------------------------------------------------------------------------


async def test_rows_and_progress_are_one_transaction(hub, monkeypatch):
    await hub.put(gate("g"))
    before = hub.store.changed.value

    def broken(_name):
        raise OSError("killed")

    monkeypatch.setattr("transom.hub.contexts.builder.step", broken)
    with pytest.raises(OSError, match="killed"):
        await hub.build()
    assert await hub.rows() == {}
    monkeypatch.undo()
    again = await hub.again()
    await again.build()
    assert (await again.rows())["gate/acme/g"].revision == before + 1

    await hub.put(gate("h"))
    monkeypatch.setattr("transom.hub.contexts.store.step", broken)
    with pytest.raises(OSError, match="killed"):  # once it is written
        await again.build()
    monkeypatch.undo()
    third = await hub.again()
    rows = await third.rows()
    await third.build()
    assert await third.rows() == rows
    assert third.builder.known == third.store.changed.value


async def test_what_was_described_meanwhile_is_not_claimed(hub):
    await hub.put(gate("g"))
    page = await hub.contexts.described(hub.builder.progress, {"Gate"}, 10)
    await hub.put(gate("h"))
    seen = await hub.contexts.write([], upto=page.upto, unseen={"Gate", "Tenant"})
    assert seen.progress == page.upto < hub.store.changed.value
    nothing = await hub.contexts.write([], upto=page.upto, unseen={"Tenant"})
    assert nothing.progress == hub.store.changed.value


async def test_resources_after_a_page_are_read_in_order_gone_ones_too(hub):
    await hub.put(*gates(3))
    await hub.remove(gate("g0001").key)
    first = await hub.contexts.subjects("Gate", "acme", None, 2)
    assert [(each.key.name, each.resource is None) for each in first] == [("g0000", False), ("g0001", True)]
    assert [each.key.name for each in await hub.contexts.subjects("Gate", "", first[-1].key, 2)] == ["g0002"]


def test_a_job_that_is_begun_again_forgets_nothing_that_was_decided():
    cause = Cause("schema", "gate/2")
    state = Builder().with_job(Job(Scope("gate"), cause, revision=1, writing=True, bulk=True))
    (job,) = state.with_job(Job(Scope("gate"), cause)).jobs
    assert (job.revision, job.writing, job.bulk) == (1, False, True)


def test_what_is_remembered_is_read_as_it_was_written():
    state = Builder(schemas={"gate": 2}).with_job(Job(Scope("gate", "acme"), Cause("again", "share.gate")))
    assert Builder.read(state.written()) == state
    assert Builder.read(None) == Builder()


# --- what publishers read ------------------------------------------------------------------------------


async def test_a_lane_has_its_own_rows_and_a_fill_has_all(hub):
    await hub.put(*gates(8), gate("shut", shut=True))
    await hub.build()
    await hub.put(tenant(title="Acme"))
    await hub.build()
    await hub.put(gate("g0001", value="w"), gate("elsewhere", regions=["us"]))
    await hub.build()
    fast = await source(hub).changes(0, 100)
    bulk = await source(hub, lane=BULK).changes(0, 100)
    assert {record.key for record in fast.records} == {"gate/acme/g0001", "gate/acme/shut"}
    assert len(bulk.records) == 7
    fill = await source(hub, lane=BULK).changes(0, 100, every_lane=True)
    assert sorted(fill.records, key=lambda record: record.key) == sorted(
        [*fast.records, *bulk.records], key=lambda record: record.key
    )
    assert {record.version.epoch for record in fill.records} == {hub.store.epoch}
    assert fast.upto == bulk.upto == fill.upto == hub.store.changed.value
    rows = [record async for page in source(hub).rows() for record in page]
    assert sorted(rows, key=lambda record: record.version) == fill.records


async def test_all_rows_are_those_that_the_region_has(hub, monkeypatch):
    monkeypatch.setattr("transom.hub.contexts.rows._PAGE", 2)
    await hub.put(*gates(3), gate("h", regions=["eu"]), gate("i", regions=["us"]), gate("j", regions=["ap"]))
    await hub.build()
    await hub.put(gate("i", regions=["ap"]))
    await hub.build()
    found = [record async for page in source(hub, "us").rows() for record in page]
    everything = (await source(hub, "us").changes(0, 100)).records
    assert found == sorted(everything, key=lambda record: record.key)
    assert [record.key.rpartition("/")[2] for record in found] == ["g0000", "g0001", "g0002", "i"]


async def test_rows_come_in_parts_and_none_is_left_out(hub):
    await hub.put(*gates(8))
    await hub.build()
    after, found = 0, []
    while True:
        changes = await source(hub).changes(after, 3)
        found += changes.records
        assert changes.upto > after
        after = changes.upto
        if not changes.more:
            break
        assert changes.known == 0
    assert len(found) == 8
    assert changes.known == hub.builder.known


async def test_a_deleted_context_is_a_marker_for_whoever_had_it(hub):
    await hub.put(gate("g", regions=["eu"]))
    await hub.build()
    await hub.remove(gate("g").key)
    await hub.build()
    (marker,) = (await source(hub).changes(0, 10)).records
    assert (marker.deleted, marker.value) == (True, DELETED)
    assert marker.version == Version(hub.store.epoch, hub.store.changed.value, "hub")
    assert (await source(hub, "us").changes(0, 10)).records == []
    assert [record async for page in source(hub).rows() for record in page] == []


async def test_nothing_goes_beyond_the_gate_and_nobody_is_woken_for_it(hub):
    await hub.put(*gates(8))
    await hub.build()
    await hub.put(tenant(title="Acme"))
    await hub.build()
    bulk = source(hub, lane=BULK)
    newest = hub.contexts.changed[BULK].value
    bulk.open_to(newest - 3)
    assert bulk.changed.value == newest - 3
    changes = await bulk.changes(0, 100)
    assert (len(changes.records), changes.upto, changes.more) == (5, newest - 3, False)
    # Where it is already, and what a fill brought beyond the gate, is not taken back.
    assert (await bulk.changes(newest + 5, 100)).upto == newest + 5
    assert len((await bulk.changes(0, 100, every_lane=True)).records) == 8
    bulk.open_to(newest)
    assert bulk.changed.value == newest
    await hub.put(gate("fast"))
    await hub.build()
    changes = await bulk.changes(newest - 3, 100)
    # With nothing held back it is as far as the store, or no sweep would ever find it settled.
    assert len(changes.records) == 3
    assert changes.upto == hub.store.changed.value > newest


async def test_a_claim_never_runs_ahead_of_the_rows(hub):
    await hub.put(gate("g"))
    await hub.build()
    known = hub.builder.known
    await hub.put(gate("g", shut=True))
    changes = await source(hub).changes(0, 10)
    assert changes.upto == hub.store.changed.value > known
    assert changes.known == known
    await hub.build()
    changes = await source(hub).changes(changes.upto, 10)
    assert changes.known == hub.store.changed.value
    assert len(changes.records) == 1


async def test_what_changed_since_is_found_in_every_lane(hub):
    await hub.put(*gates(3))
    await hub.build()
    before = hub.store.changed.value
    await hub.put(gate("g0001", value="w"))
    await hub.remove(gate("g0002").key)
    await hub.build()
    keys = [f"gate/acme/g000{number}" for number in range(3)]
    assert await source(hub, lane=BULK).changed_since(keys, before) == set(keys[1:])
