"""A gateway's table: disk first, then the caches, then the position; and how old what it knows is."""

import asyncio

import msgspec
import pytest
from tests.context_parts import ROWS_MAX, a_key, a_world, canaries, key_name, key_record, route_record

from transom.catalog.contexts import shipped_contexts
from transom.logs.protocol import TopicPartition
from transom.model.contexts import DELETED
from transom.model.records import Record
from transom.model.resources import to_json
from transom.model.roads import CANARY_BULK, CANARY_FAST, CONTEXTS, Canary
from transom.model.version import Version
from transom.region.contexts.door import Door
from transom.region.contexts.table import ContextTable, Knowledge
from transom.runtime.clock import ManualClock
from transom.tables.memory import MemoryTable
from transom.tables.sqlite import SqliteTable


async def a_table(inner=None, clock=None, rows_max: int = ROWS_MAX) -> tuple[ContextTable, Door]:
    door = Door(None, shipped_contexts())
    return await ContextTable.open(inner or MemoryTable(), door, clock or ManualClock(), rows_max), door


async def test_disk_then_listeners_then_the_position() -> None:
    order: list[str] = []

    class Told(MemoryTable):
        async def apply(self, records, positions):
            changed = await super().apply(records, positions)
            order.append("disk")
            return changed

    table, _ = await a_table(Told())
    table.listen(lambda _: order.append(f"told at {table.knows.revision}"))
    await table.apply([key_record(a_key(), 4), *canaries(4, 1.0)], {})
    order.append(f"moved to {table.knows.revision}")
    assert order == ["disk", "told at 0", "moved to 4"]
    assert table.moved.value == 1


async def test_complete_needs_both_lanes_of_one_epoch_and_a_verified_fill() -> None:
    table, _ = await a_table()
    fast, bulk = canaries(4, 1.0)
    (_, unverified), (newer_fast, newer_bulk) = canaries(3, 1.0, verified=False), canaries(1, 2.0, epoch=2)
    steps = [(fast, False), (unverified, False), (bulk, True), (newer_fast, False), (newer_bulk, True)]
    for record, complete in steps:
        await table.apply([record], {})
        assert table.knows.complete is complete, record
    assert table.knows[:3] == (2, 1, 1)


async def test_a_lane_of_an_earlier_epoch_counts_from_nothing() -> None:
    table, _ = await a_table()
    await table.apply(canaries(40, 1.0), {})
    await table.apply(canaries(7, 2.0, epoch=2)[:1], {})
    assert (table.knows.epoch, table.knows.revision, table.knows.bulk_revision) == (2, 7, 0)


async def test_a_lane_that_began_anew_counts_once_the_other_has_brought_what_was_before() -> None:
    """The log was lost, with a revocation at 5 in it; the fill brings it again."""

    def canary(key: str, revision: int, since: int = 0) -> Record:
        value = to_json(Canary(revision, 1.0, verified=True, since=since))
        return Record(key, Version(1, revision, "hub"), value)

    table, _ = await a_table()
    await table.apply(canaries(3, 1.0, count=-(3 << 32) + 3), {})
    await table.apply([canary(CANARY_FAST, 8, since=6)], {})
    assert (table.knows.revision, table.knows.complete) == (3, False)
    await table.apply([canary(CANARY_BULK, 7)], {})
    assert (table.knows.revision, table.knows.complete) == (8, True)


async def test_an_older_canary_that_is_read_again_moves_nothing() -> None:
    clock = ManualClock()
    table, _ = await a_table(clock=clock)
    await table.apply(canaries(9, clock.wall()), {})
    known = table.knows
    clock.advance(5)
    await table.apply(canaries(2, clock.wall() - 100), {})
    assert table.knows == known


async def test_what_it_knows_survives_a_restart(tmp_path) -> None:
    clock = ManualClock()
    first, _ = await a_table(await SqliteTable.open(tmp_path / "contexts.db"), clock)
    at = TopicPartition(CONTEXTS, 0)
    await first.apply([key_record(a_key(), 4), *canaries(4, clock.wall())], {at: 3})
    await first.close()
    clock.advance(86_400 * 30)
    second, _ = await a_table(await SqliteTable.open(tmp_path / "contexts.db"), clock)
    assert second.knows[:4] == (1, 4, 4, True)
    assert second.knows.age_seconds(clock) == 86_400 * 30
    assert await second.positions() == {at: 3}
    assert await second.count() == 1, "canaries are no rows"
    await second.close()


async def test_the_age_grows_by_either_clock_and_is_unknown_without_a_canary() -> None:
    clock = ManualClock()
    assert Knowledge().age_seconds(clock) is None
    table, _ = await a_table(clock=clock)
    await table.apply(canaries(1, clock.wall() - 3), {})
    assert table.knows.age_seconds(clock) == 3
    clock.advance(4)
    assert table.knows.age_seconds(clock) == 7
    await table.apply(canaries(2, clock.wall() + 1000), {})  # the hub's clock is ahead
    assert table.knows.age_seconds(clock) == 0
    clock.advance(4)
    assert table.knows.age_seconds(clock) == 4


async def test_a_table_that_is_full_refuses_new_keys_and_changes_the_old() -> None:
    table, door = await a_table(rows_max=3)
    keys = [a_key() for _ in range(5)]
    await table.apply([key_record(key, 1) for key in keys[:2]], {})
    batch = [key_record(keys[0], 2, name="changed"), *(key_record(key, 2) for key in keys[2:])]
    await table.apply([*batch, *canaries(2, 1.0)], {TopicPartition(CONTEXTS, 0): 9})
    held = [await table.get(key_name(key)) for key in keys]
    assert [row is not None for row in held] == [True, True, True, False, False]
    assert held[0] == batch[0]
    assert set(door.refused) == {key_name(key) for key in keys[3:]}
    assert door.doubts(key_name(keys[3]))
    assert table.knows.revision == 2
    await table.apply([key_record(keys[0], 3, deleted=True)], {})
    await table.apply([key_record(keys[3], 3)], {})
    assert await table.get(key_name(keys[3])) is not None, "there is room again"


async def test_two_values_at_one_version_are_refused_alone() -> None:
    key, other = a_key(), a_key()
    async with a_world(key_record(key, 2), complete=False) as world:
        assert await world.status(key) == 200
        clash = key_record(key, 2, revoked=True)
        twice = [key_record(other, 3), key_record(other, 3, tenant="globex")]
        await world.put(clash, *twice, *canaries(3, 1.0))
        assert world.table.knows.revision == 3
        assert await world.status(key) == 200, "the one that was there stays"
        assert set(world.door.refused) == {key_name(key), key_name(other)}
        held = await world.table.get(key_name(other))
        assert held == twice[0]


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("at_once", [False, True])
async def test_a_revoked_key_stays_so_whatever_a_restored_store_says(
    restarted: bool,  # noqa: FBT001
    at_once: bool,  # noqa: FBT001
) -> None:
    key, other, inner = a_key(), a_key(), MemoryTable()
    table, door = await a_table(inner)
    await table.apply([key_record(key, 1), key_record(other, 2), *canaries(2, 1.0)], {})
    revoked, forgotten = key_record(key, 3, revoked=True), key_record(key, 1, epoch=2)
    others = [key_record(other, 2, epoch=2), *canaries(2, 1.0, epoch=2, verified=False)]
    if at_once:
        await table.apply([revoked, forgotten, *others], {})
    else:
        await table.apply([revoked], {})
        await table.apply(others, {})
        if restarted:
            table, door = await a_table(inner)
        await table.apply([forgotten], {})
    assert await inner.get(key_name(key)) == revoked
    assert await inner.get(key_name(other)) == others[0]
    assert "forgot it" in door.refused[key_name(key)]
    # Once it is revoked there again, all is well; and what follows is not looked at any more.
    again = key_record(key, 4, epoch=2, revoked=True)
    await table.apply([again, *canaries(4, 1.0, epoch=2)], {})
    assert await inner.get(key_name(key)) == again
    assert table.knows.complete


def _deleted(key: bytes, revision: int, epoch: int = 1, value: bytes = DELETED) -> Record:
    return Record(key_name(key), Version(epoch, revision, "hub"), value, deleted=True)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"revoked": True}, {}),
        ({"revoked": True}, {"suspended": True}),
        ({"suspended": True}, {}),
        (None, {}),
        (None, {"suspended": True}),
    ],
)
async def test_what_was_taken_away_stays_away_however_often_a_restored_store_sends_it(before, now) -> None:
    key, inner = a_key(), MemoryTable()
    table, door = await a_table(inner)
    taken = _deleted(key, 3) if before is None else key_record(key, 3, **before)
    await table.apply([taken, *canaries(3, 1.0)], {})

    async def send(*records: Record) -> None:
        """As a reader of the log does: what passes the door is no longer in doubt when it is applied."""
        for record in records:
            door.refused.pop(record.key, None)
            door.doubted.settle(record.key)
        await table.apply(records, {})

    given = key_record(key, 1, epoch=2, **now)
    await send(given, *canaries(1, 1.0, epoch=2, verified=False))
    await send(given)  # a sweep finds that it is missing
    await send(*canaries(2, 2.0, epoch=2))  # and says in the end that all the rest is there
    assert table.knows.complete
    await send(given)  # the next sweep, or a change of the key: of the epoch that is known by now
    await send(key_record(key, 7, epoch=2, requests_per_second=5.0, **now))
    assert await inner.get(key_name(key)) == taken
    assert "forgot it" in door.refused[key_name(key)]
    table, door = await a_table(inner)
    await send(key_record(key, 8, epoch=2, **now))
    assert await inner.get(key_name(key)) == taken
    # Taken away there again it is no news, and from then on that store has the say.
    again = _deleted(key, 9, 2) if before is None else key_record(key, 9, epoch=2, **before)
    door.doubted.add("api_key/other")  # so that all that comes is looked at
    await send(again)
    assert (await inner.get(key_name(key)), door.refused) == (again, {})
    back = key_record(key, 10, epoch=2)
    await send(back)
    assert await inner.get(key_name(key)) == back


@pytest.mark.parametrize(
    ("held", "given"),
    [
        ({}, {"suspended": True}),
        (b"{}", {}),  # it had left this region, and comes back
        (DELETED, {"revoked": True}),
        ({"suspended": True}, {"revoked": True}),
        ({"revoked": True}, None),
    ],
)
async def test_a_new_epoch_may_take_away_and_move(held, given) -> None:
    key, inner = a_key(), MemoryTable()
    table, door = await a_table(inner)
    first = _deleted(key, 3, value=held) if isinstance(held, bytes) else key_record(key, 3, **held)
    await table.apply([first, *canaries(3, 1.0)], {})
    newer = _deleted(key, 1, 2) if given is None else key_record(key, 1, epoch=2, **given)
    await table.apply([newer], {})
    assert (await inner.get(key_name(key)), door.refused) == (newer, {})


async def test_a_route_that_was_deleted_takes_no_rights_away() -> None:
    inner = MemoryTable()
    table, _ = await a_table(inner)
    gone = route_record("acme", "shop", 3, deleted=True)
    await table.apply([msgspec.structs.replace(gone, value=DELETED), *canaries(3, 1.0)], {})
    back = msgspec.structs.replace(route_record("acme", "shop", 1), version=Version(2, 1, "hub"))
    await table.apply([back], {})
    assert await inner.get(back.key) == back


async def test_a_canary_on_disk_that_cannot_be_read_is_none() -> None:
    inner = MemoryTable()
    await inner.apply([Record(CANARY_FAST, Version(1, 1, "hub"), b"rot")], {})
    table, _ = await a_table(inner)
    assert table.knows == Knowledge()


@pytest.mark.parametrize("key", [CANARY_FAST, CANARY_BULK])
async def test_waiting_for_the_position_wakes_once_it_moved(key: str) -> None:
    table, _ = await a_table()
    waiting = asyncio.create_task(table.moved.above(0, 20))
    await asyncio.sleep(0)
    await table.apply([Record(key, Version(1, 1, "hub"), to_json(Canary(5, 1.0)))], {})
    assert await waiting == 1
