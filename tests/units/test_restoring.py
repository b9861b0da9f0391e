"""What was deleted comes back: the same, with all that went with it, or not at all; until it is purged."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from store_world import (
    OWNER,
    PEOPLE,
    REGION,
    by,
    deployment,
    make,
    open_store,
    people,
    region,
    regional,
    tenant,
)

from hub_parts import merge_patching
from transom.hub import store_deleted
from transom.hub.archive import change_for
from transom.hub.changes import deleting, dropping_finalizer, setting_status
from transom.hub.restoring import restoring
from transom.hub.rows import DesiredRows
from transom.hub.store import Store
from transom.hub.undeletion import purge, purge_expired, restore
from transom.model.errors import ConflictError, ExistsError, ExpiredError, ForbiddenError, InvalidError
from transom.model.names import Key
from transom.model.records import Record
from transom.model.resources import Metadata, OwnerReference, Resource, to_json
from transom.model.version import Version
from transom.runtime.clock import ManualClock, rfc3339

pytestmark = pytest.mark.usefixtures("each_engine")

WEB = Key("Deployment", "acme", "web")
WEB_EU = Key("RegionalDeployment", "acme", "web.eu")
DAY = 86_400.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Store]:
    opened = await open_store(tmp_path / "hub.db", clock)
    await make(opened, tenant(), region())
    yield opened
    await opened.close()


def cluster(name: str, *owners: Resource) -> Resource:
    references = [OwnerReference("transom.dev/v1", o.kind, o.metadata.name, o.metadata.uid) for o in owners]
    meta = Metadata(name, "acme", owner_references=references)
    return Resource("KafkaCluster", meta, spec={"bootstrapServers": ["kafka.example:9092"]})


async def remove(store: Store, *resources: Resource) -> None:
    for resource in resources:
        held = await store.write(people(resource, deleting(resource.key)))
        assert held is None


async def unwind(store: Store) -> tuple[Resource, Resource]:
    """A Deployment and what was made of it, deleted as people, controller and region do; as they were."""
    (made,) = await make(store, deployment(env={"A": "1"}))
    (child,) = await make(store, regional(made))
    labelled = merge_patching(
        WEB, {"metadata": {"labels": {"a": "b"}, "finalizers": [*made.metadata.finalizers, "x/y"]}}
    )
    asked = await store.write(people(made, labelled))
    status = {"zones": {"a": {"reportVersion": "5.3.eu/a", "ready": 1, "terminated": True}}}
    uid = child.metadata.uid
    await store.write(by(REGION, WEB_EU, setting_status(WEB_EU, uid, status)))
    await store.write(people(made, deleting(WEB)))
    await store.write(by(OWNER, WEB_EU, deleting(WEB_EU)))
    await store.write(by(REGION, WEB_EU, dropping_finalizer(WEB_EU, uid, "region")))
    await store.write(by(OWNER, WEB, dropping_finalizer(WEB, made.metadata.uid, OWNER.role)))
    await store.write(people(made, merge_patching(WEB, {"metadata": {"finalizers": None}})))
    assert asked is not None
    return asked, child


async def test_a_deployment_comes_back_with_what_was_made_of_it(store: Store) -> None:
    asked, child = await unwind(store)
    found = await restore(store, WEB, PEOPLE, "a mistake")
    back, regional_back = found.back
    assert (back, regional_back) == (await store.get(WEB), await store.get(WEB_EU))
    assert back.metadata.uid == asked.metadata.uid
    assert regional_back.metadata.uid == child.metadata.uid
    assert (back.spec, back.metadata.labels) == (asked.spec, {"a": "b"})
    assert sorted(back.metadata.finalizers) == sorted(asked.metadata.finalizers)
    assert not back.deleting
    assert back.metadata.creation_timestamp == asked.metadata.creation_timestamp
    assert back.metadata.generation == asked.metadata.generation + 2
    assert regional_back.metadata.owner_references == child.metadata.owner_references
    (newest, *_) = await store.history_of(WEB)
    assert (newest.event, newest.who, newest.why) == ("ADDED", PEOPLE.who, "a mistake")


async def test_no_status_of_before_is_taken_as_of_now(store: Store) -> None:
    await unwind(store)
    back, regional_back = (await restore(store, WEB, PEOPLE, "")).back
    assert back.status == {}
    assert regional_back.status == {"zones": {"a": {"reportVersion": "5.3.eu/a"}}}


async def test_what_a_zone_said_before_counts_no_more_when_it_is_heard_again(store: Store) -> None:
    _, child = await unwind(store)
    await restore(store, WEB, PEOPLE, "")
    back = await store.write(by(OWNER, WEB_EU, deleting(WEB_EU)))
    said = {"uid": child.metadata.uid, "terminated": True, "desired": 0}

    async def heard(counter: int) -> Resource | None:
        version = Version(5, counter, "eu/a")
        record = Record(f"{WEB_EU}@a", version, to_json(said))
        return await store.write(change_for(record, "eu", store.catalog))

    assert await heard(2) == back
    assert await heard(3) == back, "it is still there: this was said of its first end"
    assert await heard(4) is None


async def test_regions_are_told_under_a_newer_version_than_the_delete_marker(store: Store) -> None:
    await unwind(store)
    (marker,) = (await DesiredRows(store, "eu").changes(0, 10)).records
    assert marker.deleted
    await restore(store, WEB, PEOPLE, "")
    (record,) = (await DesiredRows(store, "eu").changes(0, 10)).records
    assert (record.key, record.deleted) == (marker.key, False)
    assert record.version > marker.version


async def test_what_people_made_for_it_comes_back_and_what_went_before_does_not(store: Store) -> None:
    (owner,) = await make(store, cluster("mine"))
    early, late = await make(store, cluster("early", owner), cluster("late", owner))
    (last,) = await make(store, cluster("last", late))
    await remove(store, early, owner, late, last)
    found = await restore(store, owner.key, PEOPLE, "")
    assert [each.key for each in found.back] == [owner.key, late.key, last.key]
    assert {each.key for each in await store.all_of("KafkaCluster")} == {owner.key, late.key, last.key}


async def test_what_took_a_dependents_name_does_not_stand_in_the_way(store: Store) -> None:
    (owner,) = await make(store, cluster("mine"))
    (its,) = await make(store, cluster("its", owner))
    await remove(store, owner, its)
    (other,) = await make(store, cluster("its"))
    assert [each.key for each in (await restore(store, owner.key, PEOPLE, "")).back] == [owner.key]
    assert await store.get(its.key) == other


async def test_when_one_of_several_is_refused_none_is_made(store: Store) -> None:
    (owner,) = await make(store, cluster("mine"))
    (its,) = await make(store, cluster("its", owner))
    new = cluster("new")
    outcomes = await store.write_all([people(new), people(its), people(cluster("other"))], together=True)
    assert [type(each) for each in outcomes] == [ExistsError] * 3
    assert {each.key for each in await store.all_of("KafkaCluster")} == {owner.key, its.key}
    assert all(isinstance(each, Resource) for each in await store.write_all([people(new)], together=True))


async def test_a_rehearsal_says_what_would_be_and_leaves_no_trace(store: Store) -> None:
    await unwind(store)
    before = await store.events(0, 1000)
    found = await restore(store, WEB, PEOPLE, "", rehearsed=True)
    assert [each.key for each in found.back] == [WEB, WEB_EU]
    assert await store.events(0, 1000) == before
    # The revision it would have had is another's.
    (made,) = await make(store, cluster("mine"))
    assert int(made.metadata.resource_version) == before[-1].revision + 1


async def test_what_cannot_be_brought_back_says_why(store: Store) -> None:
    (made,) = await make(store, deployment())
    with pytest.raises(ConflictError, match="is there"):
        await restore(store, WEB, PEOPLE, "")
    await store.write(people(made, deleting(WEB)))
    with pytest.raises(ConflictError, match="still being deleted and waits for transom"):
        await restore(store, WEB, PEOPLE, "")
    with pytest.raises(ForbiddenError, match="bring back what it was made for"):
        await restore(store, WEB_EU, PEOPLE, "")


async def test_what_was_made_for_it_and_still_goes_stands_in_the_way(store: Store) -> None:
    (owner,) = await make(store, cluster("mine"))
    (its,) = await make(store, cluster("its", owner))
    guarded = merge_patching(its.key, {"metadata": {"finalizers": ["x/y"]}})
    await store.write(people(its, guarded))
    await remove(store, owner)
    await store.write(people(its, deleting(its.key)))
    with pytest.raises(ConflictError, match="still being deleted and waits for x/y"):
        await restore(store, owner.key, PEOPLE, "")


async def test_what_it_refers_to_must_be_there(store: Store) -> None:
    owner, other = await make(store, cluster("mine"), tenant("other"))
    (its,) = await make(store, cluster("its", owner))
    await remove(store, its, owner)
    with pytest.raises(ConflictError, match="which is gone; bring that back"):
        await restore(store, its.key, PEOPLE, "")
    elsewhere = cluster("far").with_metadata(namespace="other")
    await make(store, elsewhere)
    await remove(store, elsewhere, other)
    with pytest.raises(InvalidError, match="Tenant 'other' does not exist"):
        await restore(store, elsewhere.key, PEOPLE, "")
    await restore(store, other.key, PEOPLE, "")
    await restore(store, elsewhere.key, PEOPLE, "")


async def test_what_changed_meanwhile_is_refused_where_it_is_written(
    store: Store, clock: ManualClock
) -> None:
    (mine,) = await make(store, cluster("mine"))
    await remove(store, mine)
    (found,) = await store.read(lambda db: store_deleted.family(db, mine.key))
    stale = restoring(found.asked, found.tombstone, PEOPLE, "")
    await make(store, cluster("mine"))
    with pytest.raises(ConflictError, match="exists again, as another object"):
        await store.write(stale)
    await remove(store, mine)
    with pytest.raises(ConflictError, match="look again"):
        await store.write(stale)
    await purge(store, mine.key, PEOPLE, "secret", clock)
    with pytest.raises(ConflictError, match="look again"):
        await store.write(stale)


async def test_an_api_key_stays_deleted(store: Store) -> None:
    meta = Metadata("ci", "acme")
    (made,) = await make(store, Resource("ApiKey", meta, spec={"hash": "ab" * 32}))
    await remove(store, made)
    with pytest.raises(ForbiddenError, match="stays away; make a new one"):
        await restore(store, made.key, PEOPLE, "")


# --- the end of it -------------------------------------------------------------------------------------


async def test_a_purge_is_a_record_and_leaves_nothing(store: Store, clock: ManualClock) -> None:
    asked, _ = await unwind(store)
    (marker,) = (await DesiredRows(store, "eu").changes(0, 10)).records
    assert await purge(store, WEB, PEOPLE, "it was secret", clock) == [WEB, WEB_EU]
    with pytest.raises(ExpiredError, match=r"was purged at .* by lina: it was secret"):
        await restore(store, WEB, PEOPLE, "")
    newest, *others = await store.history_of(WEB)
    assert (newest.event, newest.why) == ("PURGED", "it was secret")
    assert newest.resource.metadata.uid == asked.metadata.uid
    assert {event.resource.spec.get("env") for event in [newest, *others]} == {None}
    assert {event.who for event in others} == {PEOPLE.who, OWNER.who}, "who changed it stays"
    last = (await store.outbox(0, 1000))[-2]
    assert (last.aggregateid, last.type) == (str(WEB), "PURGED")
    (empty,) = (await DesiredRows(store, "eu").changes(0, 10)).records
    assert empty.deleted
    assert empty.version > marker.version
    assert b"command" in marker.value
    assert b"command" not in empty.value
    # Whoever watched from before lists again; whoever watches from now hears nothing of it.
    with pytest.raises(ExpiredError):
        await store.events(others[0].revision - 1, 10)
    assert await store.events(newest.revision - 1, 10) == []
    await make(store, deployment())


async def test_what_is_over_is_purged_once_and_what_is_not_can_be_brought_back(
    store: Store, clock: ManualClock
) -> None:
    old, new = await make(store, cluster("old"), cluster("new"))
    await remove(store, old)
    clock.advance(20 * DAY)
    await remove(store, new)
    clock.advance(15 * DAY)
    before = rfc3339(clock.wall() - 30 * DAY)
    for _ in range(2):
        await purge_expired(store, before, 30, clock)
        await store.prune_history(before, before)
    with pytest.raises(ExpiredError, match="by retention: its retention of 30 days is over"):
        await restore(store, old.key, PEOPLE, "")
    purged = [row for row in await store.outbox(0, 1000) if row.type == "PURGED"]
    assert [row.aggregateid for row in purged] == [str(old.key)]
    assert [each.key for each in (await restore(store, new.key, PEOPLE, "")).back] == [new.key]


async def test_what_is_needed_to_bring_it_back_outlives_the_history(store: Store, clock: ManualClock) -> None:
    (made,) = await make(store, cluster("mine"))
    guarded = merge_patching(made.key, {"metadata": {"finalizers": ["x/y", "x/z"]}})
    await store.write(people(made, guarded))
    await store.write(people(made, deleting(made.key)))
    one = merge_patching(made.key, {"metadata": {"finalizers": ["x/z"]}})
    await store.write(people(made, one))
    clock.advance(40 * DAY)
    await store.write(people(made, merge_patching(made.key, {"metadata": {"finalizers": None}})))
    clock.advance(DAY)
    before = rfc3339(clock.wall() - 30 * DAY)
    await purge_expired(store, before, 30, clock)
    await store.prune_history(before, before)
    (back,) = (await restore(store, made.key, PEOPLE, "")).back
    assert back.metadata.finalizers == ["x/y", "x/z"]
