"""From resources to rows of contexts: what is built, when, in which lane, and what is held back."""

import msgspec
import pytest

from hub_contexts_parts import (
    AllShut,
    GateContextTwo,
    gate,
    gates,
    override,
    tenant,
    works,
)
from transom.hub.contexts.guards import Limits
from transom.hub.contexts.moves import left
from transom.hub.contexts.row import BULK, FAST
from transom.hub.contexts.rows import ContextRows
from transom.model.contexts import DELETED
from transom.model.names import Key
from transom.model.resources import Metadata, Resource
from transom.model.roads import GatewayBeat

pytestmark = pytest.mark.usefixtures("each_engine")

NO_GUARD = Limits(share=None)


@pytest.fixture
async def hub(tmp_path):
    async with works(tmp_path) as made:
        yield made


async def test_a_subject_becomes_a_row_changes_it_and_takes_it_away(hub):
    await hub.put(gate("g"))
    await hub.build()
    made = (await hub.rows())["gate/acme/g"]
    assert (made.value, made.lane, made.regions, made.deleted) == (b'{"value":"v"}', FAST, "*", False)
    assert made.revision == made.added == hub.store.changed.value
    assert hub.builder.known == made.revision

    await hub.put(gate("g", value="w"))
    await hub.build()
    changed = (await hub.rows())["gate/acme/g"]
    assert (changed.value, changed.added) == (b'{"value":"w"}', made.added)
    assert changed.revision > made.revision

    await hub.remove(gate("g").key)
    await hub.build()
    gone = (await hub.rows())["gate/acme/g"]
    assert gone.deleted
    assert gone.revision > changed.revision
    assert hub.builder.known == hub.store.changed.value


async def test_what_changes_no_context_writes_no_row_but_is_known(hub):
    await hub.put(gate("g"))
    await hub.build()
    before = await hub.rows()
    await hub.put(gate("g").with_metadata(labels={"a": "b"}))
    await hub.build()
    assert await hub.rows() == before
    assert hub.builder.known == hub.store.changed.value


async def test_a_region_is_told_whether_a_context_left_it_or_was_deleted(hub):
    await hub.put(gate("left", regions=["eu"]), gate("deleted", regions=["eu"]))
    await hub.build()
    await hub.put(gate("left", regions=["us"]))
    await hub.remove(gate("deleted").key)
    await hub.build()
    rows = (await hub.rows()).values()
    await hub.contexts.write([left(row) for row in rows if row.leaving], upto=0, unseen=())
    source = ContextRows(hub.contexts, "eu", FAST, lambda: 0)
    told = {record.key: record for record in (await source.changes(0, 100)).records}
    assert all(record.deleted for record in told.values())
    assert told["gate/acme/left"].value != DELETED
    assert told["gate/acme/deleted"].value == DELETED


async def test_a_tenant_s_change_reaches_all_its_subjects_and_nobody_else_s(tmp_path):
    async with works(tmp_path, tenants=("acme", "other")) as hub:
        await hub.put(gate("a"), gate("b"), gate("c", "other"))
        await hub.put(tenant(title="Acme"))
        await hub.build()
        assert await hub.values() == {
            "gate/acme/a": b'{"value":"v","title":"Acme"}',
            "gate/acme/b": b'{"value":"v","title":"Acme"}',
            "gate/other/c": b'{"value":"v"}',
        }


async def test_a_bad_subject_keeps_its_last_good_context_and_is_told(hub):
    await hub.put(gate("g"), gate("h"))
    await hub.build()
    await hub.put(gate("g", value="broken"), gate("h", value="stumble"), gate("i"))
    await hub.build()
    assert sorted((await hub.values()).items()) == [
        ("gate/acme/g", b'{"value":"v"}'),
        ("gate/acme/h", b'{"value":"v"}'),
        ("gate/acme/i", b'{"value":"v"}'),
    ]
    told = {each.subject: each.why for each in hub.builder.state.refused}
    assert "is broken" in told["Gate/acme/g"]
    assert "ZeroDivisionError" in told["Gate/acme/h"]
    again = await hub.again()
    assert again.builder.state.refused == hub.builder.state.refused
    await hub.put(gate("g", value="good"), gate("h", value="good"))
    await hub.build()
    assert not hub.builder.state.refused


async def test_an_empty_list_of_regions_takes_nothing_away(hub):
    await hub.put(gate("g", regions=["eu"]))
    await hub.build()
    await hub.put(gate("g", regions=[]))
    await hub.build()
    assert (await hub.rows())["gate/acme/g"].regions == ",eu,"
    assert len(hub.builder.state.refused) == 1


async def test_of_two_that_make_one_key_the_older_has_it(hub):
    await hub.put(gate("old", key="k", value="old"))
    hub.clock.advance(1)
    await hub.put(gate("new", key="k", value="new"))
    await hub.build()
    assert await hub.values() == {"gate/k": b'{"value":"old"}'}
    assert hub.holds == ["duplicate.gate.acme"]
    # Once the older is gone, the key is free.
    await hub.remove(gate("old").key)
    await hub.build()
    assert await hub.values() == {"gate/k": b'{"value":"new"}'}
    assert hub.holds == []


async def test_a_key_passes_to_another_subject_when_somebody_allows_it(hub):
    await hub.put(gate("old", key="k", value="old"))
    await hub.build()
    await hub.put(gate("new", key="k", value="new"))
    await hub.build()
    hub.clock.advance(1)
    await hub.put(override("duplicate.gate.acme"))
    await hub.build()
    assert await hub.values() == {"gate/k": b'{"value":"new"}'}
    assert hub.holds == []
    # It was allowed for what was known then: the older does not take the key back with the same word.
    hub.clock.advance(1)
    await hub.put(gate("old", key="k", value="older"))
    await hub.build()
    assert await hub.values() == {"gate/k": b'{"value":"new"}'}
    assert hub.holds == ["duplicate.gate.acme"]


async def test_a_subject_with_another_key_takes_its_old_context_along(hub):
    await hub.put(gate("g", key="a"))
    await hub.build()
    await hub.put(gate("g", key="b"))
    await hub.build()
    assert set(await hub.values()) == {"gate/b"}


# --- guards --------------------------------------------------------------------------------------------


async def test_deleting_too_much_of_a_tenant_is_held_until_it_is_allowed(tmp_path):
    async with works(tmp_path, tenants=("acme", "other")) as hub:
        many = gates(40)
        await hub.put(*many, *gates(200, "other"))
        await hub.build()
        hub.clock.advance(60)
        await hub.remove(*(each.key for each in many[:30]))
        await hub.put(gate("g0000", "other", value="w"), gate("fresh"))
        await hub.build()
        left = await hub.values()
        assert hub.holds == ["share.gate.acme"]
        assert len(left) == 241  # nothing went; what is new, and what is another tenant's, is there
        assert left["gate/other/g0000"] == b'{"value":"w"}'
        (hold,) = hub.builder.state.holds
        assert (hold.deletes, hold.changes) == (30, 0)
        # Too small an allowance lets nothing go; it survives a restart, too.
        await hub.put(override("share.gate.acme", 29))
        await hub.build()
        again = await hub.again()
        await again.build()
        assert again.holds == ["share.gate.acme"]
        assert len(await again.values()) == 241
        await again.put(override("share.gate.acme", 30))
        await again.build()
        assert again.holds == []
        assert len(await again.values()) == 211


async def test_many_small_passes_are_held_like_one_large(hub):
    many = gates(50)
    await hub.put(*many)
    await hub.build()
    for each in many:
        await hub.remove(each.key)
        await hub.build()
    left = await hub.values()
    assert len(left) == 40  # ten went, then it was more than ten, and more than a fifth
    assert hub.holds


async def test_what_was_held_and_is_as_before_again_is_held_no_more(hub):
    many = gates(50)
    await hub.put(*many)
    await hub.build()
    hub.clock.advance(60)
    await hub.put(*gates(50, value="w"))
    await hub.build()
    assert hub.holds == ["share.gate.acme"]
    assert set((await hub.values()).values()) == {b'{"value":"v"}'}
    await hub.put(*gates(50, value="v"))
    await hub.put(override("share.gate.acme", 1))  # any override is a reason to look again
    await hub.build()
    assert hub.holds == []


async def test_restricting_is_never_held(hub):
    await hub.put(*gates(50))
    await hub.build()
    await hub.put(*gates(50, shut=True))
    await hub.build()
    assert hub.holds == []
    assert all(row.restricts and row.lane == FAST for row in (await hub.rows()).values())


async def test_a_tenant_s_own_change_is_held_only_together_with_others(tmp_path):
    async with works(tmp_path, tenants=("acme", "other")) as hub:
        await hub.put(*gates(30), *gates(300, "other"))
        await hub.build()
        hub.clock.advance(60)
        await hub.put(tenant("other", title="Other"))
        await hub.build()
        assert hub.holds == []  # most of the kind, but what was asked for
        assert b"".join((await hub.values()).values()).count(b"Other") == 300
        await hub.put(tenant(title="Acme"))
        await hub.build()
        assert hub.holds == ["share.gate.acme"]  # two of them within seconds
        hub.clock.advance(60)
        await hub.put(tenant("other", title="Plain"))  # nobody else waits for it
        await hub.build()
        assert b"".join((await hub.values()).values()).count(b"Plain") == 300
        assert b'"title":"Acme"' not in b"".join((await hub.values()).values())


async def test_a_tenant_that_has_most_of_a_kind_is_suspended_and_resumed(tmp_path):
    async with works(tmp_path, tenants=("acme", "other")) as hub:
        await hub.put(*gates(37), *gates(10, "other"))
        await hub.build()
        for title in ("suspended", "plain"):
            hub.clock.advance(60)
            await hub.put(tenant(title=title))
            await hub.build()
            assert hub.holds == []
            assert b"".join((await hub.values()).values()).count(title.encode()) == 37


async def test_a_tenant_s_change_does_not_carry_along_what_is_held(tmp_path):
    async with works(tmp_path, tenants=("acme", "other")) as hub:
        await hub.put(*gates(40), *gates(400, "other"))
        await hub.build()
        hub.clock.advance(60)
        await hub.put(*gates(40, value="w"))
        await hub.build()
        assert hub.holds == ["share.gate.acme"]
        hub.clock.advance(60)
        await hub.put(tenant(title="suspended"))
        await hub.build()
        rows = [row for row in (await hub.rows()).values() if row.tenant == "acme"]
        assert all(row.restricts for row in rows)  # a suspension passes
        await hub.put(tenant(title="plain"))
        await hub.build()
        assert all(row.restricts for row in (await hub.rows()).values() if row.tenant == "acme")


async def test_without_the_guard_everything_goes(tmp_path):
    async with works(tmp_path, limits=NO_GUARD) as hub:
        many = gates(50)
        await hub.put(*many)
        await hub.build()
        await hub.remove(*(each.key for each in many))
        await hub.build()
        assert await hub.values() == {}


# --- lanes and jobs ------------------------------------------------------------------------------------


async def test_one_cause_that_changes_much_goes_in_bulk(tmp_path):
    async with works(tmp_path, limits=NO_GUARD, bulk_rows=20) as hub:
        await hub.put(*gates(30), gate("shut", shut=True))
        await hub.build()
        assert {row.lane for row in (await hub.rows()).values()} == {FAST}  # thirty causes, each its own
        await hub.put(tenant(title="Acme"))
        await hub.build()
        lanes = {key: row.lane for key, row in (await hub.rows()).items()}
        assert lanes.pop("gate/acme/shut") == FAST
        assert set(lanes.values()) == {BULK}
        await hub.put(gate("g0001", value="w"))
        await hub.build()
        assert (await hub.rows())["gate/acme/g0001"].lane == FAST


async def test_a_raised_schema_builds_everything_anew_in_bulk(tmp_path):
    async with works(tmp_path, bulk_rows=20) as hub:
        await hub.put(*gates(30))
        await hub.build()
        again = await hub.again(GateContextTwo(), bulk_rows=20)
        await again.build()
        rows = (await again.rows()).values()
        assert {(row.lane, row.schema, row.value) for row in rows} == {(BULK, 2, b'{"value":"v/2"}')}
        assert again.holds == []
        before = again.store.changed.value
        third = await again.again()
        await third.build()
        assert third.store.changed.value == before


async def test_a_raised_schema_goes_in_bulk_however_few_it_changes(hub):
    await hub.put(gate("g"), gate("shut", shut=True))
    await hub.build()
    assert {row.lane for row in (await hub.rows()).values()} == {FAST}
    again = await hub.again(GateContextTwo())
    await again.build()
    lanes = {key: row.lane for key, row in (await again.rows()).items()}
    assert lanes == {"gate/acme/g": BULK, "gate/acme/shut": FAST}


async def test_single_changes_of_a_raised_schema_wait_for_its_soak_and_revocations_do_not(hub):
    await hub.put(gate("g"))
    await hub.build()
    again = await hub.again(GateContextTwo())
    approved = 0
    again.builder.approved = lambda: approved
    await again.put(gate("early"))
    assert await again.builder.do_some()  # the rest is still being counted
    assert (await again.rows())["gate/acme/early"].lane == BULK
    await again.build()
    await again.put(gate("single"), gate("shut", shut=True))
    await again.build()
    rows = await again.rows()
    assert {key: row.lane for key, row in rows.items() if row.schema == 2} == {
        "gate/acme/g": BULK,
        "gate/acme/early": BULK,
        "gate/acme/single": BULK,
        "gate/acme/shut": FAST,
    }
    again = await again.again(GateContextTwo())  # a restart lets nothing out
    again.builder.approved = lambda: approved
    approved = rows["gate/acme/g"].revision - 1
    await again.put(gate("single", value="w"))
    await again.build()
    assert (await again.rows())["gate/acme/single"].lane == BULK
    await again.remove(gate("early").key)
    await again.build()
    assert (await again.rows())["gate/acme/early"].lane == FAST
    approved = rows["gate/acme/g"].revision
    await again.put(gate("single", value="x"))
    await again.build()
    assert (await again.rows())["gate/acme/single"].lane == FAST


async def test_a_raised_schema_that_changes_no_row_soaks_with_the_first_that_it_makes(hub):
    await hub.put(gate("shut", shut=True))
    await hub.build()
    again = await hub.again(GateContextTwo())
    await again.build()
    approved = again.contexts.changed[BULK].value
    again.builder.approved = lambda: approved
    await again.put(gate("first"))
    await again.build()
    first = (await again.rows())["gate/acme/first"]
    assert first.lane == BULK
    approved = first.revision
    await again.put(gate("second"))
    await again.build()
    assert (await again.rows())["gate/acme/second"].lane == FAST


async def test_a_schema_that_takes_rights_away_is_held(hub):
    await hub.put(*gates(30))
    await hub.build()
    again = await hub.again(AllShut())
    await again.build()
    assert again.holds == ["share.gate"]
    assert not any(row.restricts for row in (await again.rows()).values())


async def test_the_very_first_build_goes_in_bulk_and_is_not_claimed_before_it_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr("transom.hub.contexts.builder._PAGE", 10)
    async with works(tmp_path) as empty:
        await empty.put(*gates(35))
        for clear in ("DELETE FROM contexts", "DELETE FROM context_state"):
            await empty.store.within(lambda db, clear=clear: db.exec_driver_sql(clear) and None)
        hub = await empty.again(bulk_rows=20)
        assert hub.builder.known == 0
        claims = []
        while await hub.builder.do_some():
            claims.append((hub.builder.known, len(await hub.rows())))
            if len(claims) == 3:  # killed half-way: what was to be built is not forgotten
                hub = await hub.again(bulk_rows=20)
        assert all(claim == 0 or count == 35 for claim, count in claims)
        assert hub.contexts.news.value  # publishers that wait to claim more are woken
        assert hub.builder.known == hub.store.changed.value
        assert {row.lane for row in (await hub.rows()).values()} == {BULK}


async def test_killed_at_the_very_beginning_it_does_not_claim_what_was_there_before(tmp_path, monkeypatch):
    monkeypatch.setattr("transom.hub.contexts.builder._PAGE", 10)
    async with works(tmp_path) as empty:
        await empty.put(*gates(35))
        for clear in ("DELETE FROM contexts", "DELETE FROM context_state"):
            await empty.store.within(lambda db, clear=clear: db.exec_driver_sql(clear) and None)
        killed = await empty.again()
        await killed.put(gate("new"))
        await killed.builder.do_some()  # what is new is written, and how far it looked; the rest is not
        assert len(await killed.rows()) == 1
        again = await killed.again()
        assert again.builder.known == 0
        await again.build()
        assert len(await again.rows()) == 36
        assert again.builder.known == again.store.changed.value


@pytest.fixture
def small_pages(monkeypatch):
    monkeypatch.setattr("transom.hub.contexts.builder._PAGE", 10)
    monkeypatch.setattr("transom.hub.contexts.builder._INLINE", 10)


@pytest.mark.usefixtures("small_pages")
async def test_a_large_tenant_is_done_between_looks_and_claimed_when_it_is_done(tmp_path):
    async with works(tmp_path, bulk_rows=20) as hub:
        await hub.put(*gates(35))
        await hub.build()
        await hub.put(tenant(title="suspended"))
        suspended = hub.store.changed.value
        while await hub.builder.do_some():
            shut = [row for row in (await hub.rows()).values() if row.restricts]
            assert hub.builder.known < suspended or len(shut) == 35
        assert len(shut) == 35
        assert hub.builder.known == hub.store.changed.value


@pytest.mark.usefixtures("small_pages")
async def test_a_revocation_does_not_wait_for_a_large_tenant(tmp_path):
    async with works(tmp_path, tenants=("acme", "other"), limits=NO_GUARD) as hub:
        await hub.put(*gates(100), gate("key", "other"))
        await hub.build()
        await hub.put(tenant(title="Acme"))
        await hub.builder.do_some()
        await hub.builder.do_some()
        await hub.put(gate("key", "other", shut=True))
        await hub.builder.do_some()
        rows = await hub.rows()
        assert rows["gate/other/key"].restricts
        assert not rows["gate/acme/g0099"].value.endswith(b'"Acme"}')


@pytest.mark.usefixtures("small_pages")
async def test_a_storm_of_changes_does_not_starve_a_large_tenant(tmp_path):
    async with works(tmp_path, tenants=("acme", "other"), limits=NO_GUARD) as hub:
        await hub.put(*gates(40), gate("key", "other"))
        await hub.build()
        await hub.put(tenant(title="Acme"))
        for number in range(20):
            await hub.put(gate("key", "other", value=str(number)))
            await hub.builder.do_some()
        assert b"".join((await hub.values()).values()).count(b"Acme") == 40


@pytest.mark.usefixtures("small_pages")
async def test_too_much_of_a_kind_in_a_large_tenant_is_held_as_that_tenant_s(tmp_path):
    async with works(tmp_path, tenants=("acme", "other")) as hub:
        await hub.put(*gates(40), *gates(40, "other"))
        await hub.build()
        hub.clock.advance(60)
        await hub.put(tenant("other", title="Other"))
        await hub.build()
        assert hub.holds == []
        assert b"".join((await hub.values()).values()).count(b"Other") == 40
        await hub.put(tenant(title="Acme"))
        await hub.build()
        assert hub.holds == ["share.gate.acme"]
        await hub.put(override("share.gate.acme", 40))
        await hub.build()
        assert hub.holds == []
        assert b"".join((await hub.values()).values()).count(b"Acme") == 40


@pytest.mark.usefixtures("small_pages")
async def test_a_bulk_change_that_was_interrupted_stays_in_bulk(tmp_path):
    async with works(tmp_path, limits=NO_GUARD, bulk_rows=20) as hub:
        await hub.put(*gates(35))
        await hub.build()
        killed = await hub.again(GateContextTwo(), bulk_rows=20, limits=NO_GUARD)
        while len(await killed.rows(BULK)) < 20:
            await killed.builder.do_some()
        again = await killed.again(bulk_rows=20, limits=NO_GUARD)
        await again.build()
        assert len(await again.rows(BULK)) == 35


# --- moves ---------------------------------------------------------------------------------------------


def beat(region, revision, epoch, **more):
    return GatewayBeat(
        region,
        f"{region}-1",
        "now",
        ready=True,
        epoch=epoch,
        revision=revision,
        bulk_revision=revision,
        **more,
    )


async def test_a_move_adds_verifies_and_then_removes(hub):
    await hub.put(gate("g", regions=["eu"]))
    await hub.build()
    eu, us = (ContextRows(hub.contexts, name, FAST, lambda: hub.builder.known) for name in ("eu", "us"))
    await hub.put(gate("g", regions=["us"]))
    await hub.build()
    row = (await hub.rows())["gate/acme/g"]
    assert (row.regions, row.leaving) == (",us,", ",eu,")
    for source in (eu, us):  # both have it
        assert [record.deleted for record in (await source.changes(0, 10)).records] == [False]

    epoch = hub.store.epoch
    heard = {"us": [beat("us", row.revision - 1, epoch)], "eu": [beat("eu", 999, epoch)]}
    hub.builder.heard = lambda: heard
    hub.builder.poked.rise()
    await hub.build()
    assert (await hub.rows())["gate/acme/g"] == row
    for wrong in (
        [],
        [beat("us", row.revision, epoch - 1)],
        [beat("us", row.revision, epoch, refused={row.key: "too large"})],
        [beat("us", row.revision, epoch), another(beat("us", 1, epoch))],
    ):
        heard["us"] = wrong
        hub.builder.poked.rise()
        await hub.build()
        assert (await hub.rows())["gate/acme/g"] == row
    heard["us"] = [beat("us", row.revision, epoch)]
    hub.builder.poked.rise()
    await hub.build()
    moved = (await hub.rows())["gate/acme/g"]
    assert (moved.regions, moved.leaving, moved.former) == (",us,", "", ",eu,")
    assert [record.deleted for record in (await eu.changes(row.revision, 10)).records] == [True]
    assert [record.deleted for record in (await us.changes(row.revision, 10)).records] == [False]


def another(other):
    """Another gateway of the region."""
    return msgspec.structs.replace(other, gateway="us-2")


async def test_a_move_that_has_begun_ends_after_a_restart(hub):
    await hub.put(gate("g", regions=["eu"]))
    await hub.build()
    await hub.put(gate("g", regions=["us"]))
    await hub.build()
    row = (await hub.rows())["gate/acme/g"]
    again = await hub.again()
    again.builder.heard = lambda: {"us": [beat("us", row.revision, hub.store.epoch)]}
    await again.build()
    assert (await again.rows())["gate/acme/g"].leaving == ""


async def test_freezes_and_regions_are_seen(hub):
    assert hub.builder.declared == {"eu", "us"}
    seen = hub.builder.controls.value
    await hub.put(Resource("ContextFreeze", Metadata("eu"), spec={"reason": "trouble"}))
    await hub.build()
    assert hub.builder.frozen == {"eu"}
    assert hub.builder.controls.value > seen
    await hub.remove(Key("ContextFreeze", "", "eu"))
    await hub.build()
    assert hub.builder.frozen == frozenset()
