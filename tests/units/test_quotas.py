"""Quotas: what is used is counted where it is written, and never gets beyond what they leave."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete
from store_world import OWNER, PEOPLE, by, deployment, make, open_store, people, region, regional, tenant

from hub_parts import merge_patching
from store_places import store_at
from transom.catalog.kinds import shipped
from transom.hub.changes import Change, applying, creating, deleting, dropping_finalizer
from transom.hub.store import Store
from transom.hub.store_schema import resources
from transom.model.errors import ConflictError, ForbiddenError, InvalidError, NotFoundError, QuotaError
from transom.model.names import Key
from transom.model.quotas import LIMIT_MAX, Measure, problems_with, require_within
from transom.model.resources import Metadata, Resource
from transom.runtime.clock import ManualClock
from transom.runtime.randomness import Randomness

COUNT = "count/deployments.transom.dev"
INSTANCES = "sum/deployments.transom.dev/spec.instances"
REGIONS = "sum/deployments.transom.dev/spec.regions"
KEYS = "count/apikeys.transom.dev"


def quota(name: str = "team", of: str = "acme", **hard: int) -> Resource:
    return Resource("Quota", Metadata(name, of), spec={"hard": hard})


def limit(name: str = "team", hard: dict[str, int] | None = None) -> Resource:
    return quota(name, **(hard or {COUNT: 2}))


# --- what a measure is ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [COUNT, INSTANCES, "sum/deployments.transom.dev/spec.healthCheck.unhealthyAfter", "count/events"]
)
def test_a_measure_is_what_its_name_says(name: str) -> None:
    assert str(Measure.parse(name)) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "deployments",
        "count/",
        "count/deployments.transom.dev/spec.instances",
        "sum/deployments.transom.dev",
        "sum/deployments.transom.dev/",
        "sum/deployments.transom.dev/spec",
        "sum/deployments.transom.dev/spec.",
        "sum/deployments.transom.dev/spec..a",
        "sum/deployments.transom.dev/metadata.name",
        "sum//spec.instances",
        "pods",
        "requests.cpu",
    ],
)
def test_what_is_no_measure_is_refused_with_the_rule(name: str) -> None:
    with pytest.raises(ValueError, match=r"must be count/PLURAL\.GROUP or sum/"):
        Measure.parse(name)


@pytest.mark.parametrize(
    ("value", "amount"),
    [
        (3, 3),
        (0, 0),
        (-7, 0),  # nobody pays for another one
        (2.0, 2),
        (2.1, 3),
        (1e300, LIMIT_MAX + 1),
        (10**30, LIMIT_MAX + 1),
        (["a", "b"], 2),
        ({"a": 9}, 1),
        ("12", 0),
        (True, 0),
        (None, 0),
    ],
)
def test_what_a_field_amounts_to(value: Any, amount: int) -> None:
    measure = Measure("deployments.transom.dev", ("of", "it"))
    assert measure.amount(Resource("Deployment", Metadata("a"), spec={"of": {"it": value}})) == amount
    assert measure.amount(Resource("Deployment", Metadata("a"), spec={"of": value})) == 0
    assert measure.amount(Resource("Deployment", Metadata("a"))) == 0
    assert measure.amount(None) == 0


def test_too_much_is_told_in_kubernetes_words() -> None:
    used, hard = {"b": 4, "a": 1, "c": 9}, {"b": 5, "a": 2, "c": 9}
    with pytest.raises(QuotaError) as refused:
        require_within("team-a", {"b": 2, "a": 3, "c": 0}, used, hard, 'deployments.transom.dev "shop"')
    assert str(refused.value) == (
        'deployments.transom.dev "shop" is forbidden: exceeded quota: team-a, '
        "requested: a=3,b=2, used: a=1,b=4, limited: a=2,b=5"
    )


@given(more=st.integers(-9, 9), used=st.integers(0, 20), hard=st.integers(0, 20))
def test_only_what_asks_for_more_is_ever_refused(more: int, used: int, hard: int) -> None:
    try:
        require_within("q", {"a": more}, {"a": used}, {"a": hard}, "x")
    except QuotaError:
        assert more > 0
        assert used + more > hard
    else:
        assert more <= 0 or used + more <= hard


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("count/deployment.transom.dev", "what can: apikeys.transom.dev, deployments.transom.dev"),
        ("count/regions.transom.dev", "cannot be limited"),
        ("count/regionaldeployments.transom.dev", "cannot be limited"),
        ("count/quotas.transom.dev", "cannot be limited"),
        ("sum/deployments.transom.dev/spec.instance", "is no number, list or map"),
        ("sum/deployments.transom.dev/spec.version", "is no number, list or map"),
        ("sum/deployments.transom.dev/spec.instances.more", "is no number, list or map"),
    ],
)
def test_what_cannot_be_limited_is_named_where_it_stands(name: str, wrong: str) -> None:
    (problem,) = problems_with([COUNT, name, REGIONS], shipped(), "spec.hard")
    assert problem.path == f"spec.hard[{name}]"
    assert wrong in problem.message


def test_numbers_lists_maps_and_what_is_inside_can_be_summed() -> None:
    fields = ("instances", "regions", "env", "healthCheck.unhealthyAfter", "healthCheck.timeoutSeconds")
    names = [f"sum/deployments.transom.dev/spec.{field}" for field in fields]
    assert list(problems_with([*names, KEYS], shipped(), "spec.hard")) == []


# --- what a quota holds --------------------------------------------------------------------------------


@pytest.fixture
async def store(tmp_path: Path, each_engine: str) -> AsyncIterator[Store]:
    opened = await open_store(tmp_path / "hub.db")
    await make(opened, tenant(), tenant("other"), region(), region("us"))
    yield opened
    assert await opened.quota_differences() == []
    await opened.close()


async def used(store: Store, name: str = "team", of: str = "acme") -> dict[str, int]:
    return (await store.get(Key("Quota", of, name))).status["used"]


async def gone(store: Store, name: str) -> None:
    """Delete a deployment, whose controller has nothing to clean up."""
    key = Key("Deployment", "acme", name)
    held = await store.write(by(PEOPLE, key, deleting(key)))
    if held is not None:
        await store.write(by(OWNER, key, dropping_finalizer(key, held.metadata.uid, OWNER.role)))


async def test_creates_beyond_the_limit_are_refused_and_leave_nothing(store: Store) -> None:
    await make(store, limit(), deployment("a"), deployment("b"))
    before = store.changed.value
    with pytest.raises(QuotaError, match=rf"team, requested: {COUNT}=1, used: {COUNT}=2, limited: {COUNT}=2"):
        await store.write(people(deployment("c")))
    assert store.changed.value == before
    assert await used(store) == {COUNT: 2}
    assert issubclass(QuotaError, ForbiddenError)


async def test_status_has_used_and_hard_from_the_first_answer_on(store: Store) -> None:
    await make(store, deployment("a", instances=3, regions=["eu", "us"]), deployment("b", instances=4))
    (made,) = await make(store, limit(hard={COUNT: 5, INSTANCES: 9, REGIONS: 7, KEYS: 1}))
    assert made.status == {
        "hard": {COUNT: 5, INSTANCES: 9, REGIONS: 7, KEYS: 1},
        "used": {COUNT: 2, INSTANCES: 7, REGIONS: 3, KEYS: 0},
    }
    key = Key("Deployment", "acme", "a")
    await store.write(by(PEOPLE, key, merge_patching(key, {"spec": {"instances": 5, "regions": ["us"]}})))
    assert await used(store) == {COUNT: 2, INSTANCES: 9, REGIONS: 2, KEYS: 0}
    (told,) = [
        event
        for event in await store.events(int(made.metadata.resource_version), 99)
        if event.resource.kind == "Quota"
    ]
    assert (told.event, told.role, told.resource.status["used"][INSTANCES]) == ("MODIFIED", "store", 9)


async def test_what_is_over_may_shrink_and_go_but_not_grow(store: Store) -> None:
    await make(store, deployment("a", instances=5), deployment("b", instances=5))
    await make(store, limit(hard={INSTANCES: 3, COUNT: 1}))
    key = Key("Deployment", "acme", "a")
    with pytest.raises(
        QuotaError, match=f"requested: {INSTANCES}=1, used: {INSTANCES}=10, limited: {INSTANCES}=3"
    ):
        await store.write(by(PEOPLE, key, merge_patching(key, {"spec": {"instances": 6}})))
    await store.write(by(PEOPLE, key, merge_patching(key, {"spec": {"version": "2"}})))
    await store.write(by(PEOPLE, key, merge_patching(key, {"spec": {"instances": 4}})))
    assert await used(store) == {INSTANCES: 9, COUNT: 2}
    await gone(store, "a")
    await gone(store, "b")
    assert await used(store) == {INSTANCES: 0, COUNT: 0}


async def test_what_waits_for_its_finalizers_still_counts_and_what_comes_back_counts_again(
    store: Store,
) -> None:
    await make(store, limit(hard={COUNT: 1}), deployment("a"))
    key = Key("Deployment", "acme", "a")
    await store.write(by(PEOPLE, key, deleting(key)))
    assert await used(store) == {COUNT: 1}
    await gone(store, "a")
    await make(store, deployment("b"))
    with pytest.raises(QuotaError):
        await store.write(people(deployment("a")))
    assert await used(store) == {COUNT: 1}


async def test_two_quotas_on_the_same_thing_both_hold(store: Store) -> None:
    await make(store, limit("wide", {COUNT: 9}), limit("narrow", {COUNT: 1}), deployment("a"))
    with pytest.raises(QuotaError, match="exceeded quota: narrow"):
        await store.write(people(deployment("b")))
    assert (await used(store, "wide"), await used(store, "narrow")) == ({COUNT: 1}, {COUNT: 1})
    key = Key("Quota", "acme", "narrow")
    assert await store.write(by(PEOPLE, key, deleting(key))) is None
    await make(store, deployment("b"))
    assert await used(store, "wide") == {COUNT: 2}


async def test_a_quota_is_of_its_tenant_alone(store: Store) -> None:
    await make(store, limit(hard={COUNT: 0}), deployment("a", tenant="other"))
    assert await used(store) == {COUNT: 0}


async def test_limits_may_be_raised_lowered_added_and_dropped(store: Store) -> None:
    await make(store, limit(hard={COUNT: 1}), deployment("a", instances=2))
    changed = limit(hard={COUNT: 2, INSTANCES: 1})
    held = await store.write(people(changed, applying(changed)))
    assert held is not None
    assert held.status == {"hard": {COUNT: 2, INSTANCES: 1}, "used": {COUNT: 1, INSTANCES: 2}}
    changed = limit(hard={INSTANCES: 3})
    await store.write(people(changed, applying(changed)))
    await make(store, deployment("b"), deployment("c", instances=0))
    assert await used(store) == {INSTANCES: 3}


async def test_only_what_can_be_limited_is_and_nobody_writes_what_is_used(store: Store) -> None:
    with pytest.raises(InvalidError, match="cannot be limited"):
        await store.write(people(limit(hard={"count/regionaldeployments.transom.dev": 1})))
    with pytest.raises(InvalidError, match=r"must be count/PLURAL\.GROUP"):
        await store.write(people(limit(hard={"pods": 1})))
    with pytest.raises(InvalidError, match="greater than or equal to 0"):
        await store.write(people(limit(hard={COUNT: -1})))
    (made,) = await make(store, limit())
    forged = Change(made.key, lambda held: held and held.with_status({"used": {COUNT: -9}}), OWNER)
    with pytest.raises(ForbiddenError):
        await store.write(forged)


async def test_a_controller_is_not_stopped_by_a_quota(store: Store) -> None:
    (web,) = await make(store, deployment("a"))
    await make(store, limit(hard={COUNT: 0}), regional(web))


async def test_within_one_transaction_each_change_sees_those_before_it(store: Store) -> None:
    names = [f"d{number}" for number in range(6)]
    changes = [people(deployment("first"), creating(deployment("first"))), people(limit(hard={COUNT: 3}))]
    outcomes = await store.write_all([*changes, *(people(deployment(name)) for name in names)])
    assert [isinstance(outcome, QuotaError) for outcome in outcomes] == [False] * 4 + [True] * 4
    assert await used(store) == {COUNT: 3}
    kinds = [event.resource.kind for event in await store.events(0, 99)]
    assert kinds.count("Quota") == 2, "made, and told once what was used when the transaction ended"


async def test_what_is_rehearsed_meets_all_that_is_made_and_leaves_it_alone(store: Store) -> None:
    await make(store, limit(hard={COUNT: 3}), deployment("a"))
    since = store.changed.value
    wider = limit(hard={COUNT: 3, INSTANCES: 9})
    # All of them wait together, so they share a transaction.
    tried, made, beyond, widened, other = await asyncio.gather(
        store.write_all([people(deployment("b")), people(deployment("c"))], rehearsed=True),
        store.write_all([people(deployment("b")), people(deployment("d"))]),
        store.write_all([people(deployment(name)) for name in ("x", "y", "z")], rehearsed=True),
        store.write_all([people(wider, applying(wider))], rehearsed=True),
        store.write_all([people(deployment("e"))]),
    )
    assert [isinstance(outcome, Resource) for outcome in tried] == [True, True]
    assert [isinstance(outcome, QuotaError) for outcome in beyond] == [False, False, True]
    assert isinstance(widened[0], Resource)
    assert widened[0].status["used"] == {COUNT: 1, INSTANCES: 1}
    assert [isinstance(outcome, Resource) for outcome in made + other] == [True, True, False]
    assert {event.resource.metadata.name for event in await store.events(since, 9)} == {"b", "d", "team"}
    assert await used(store) == {COUNT: 3}
    assert await store.quota_differences() == []


async def test_a_quota_deleted_and_made_again_in_one_transaction_counts_anew(store: Store) -> None:
    await make(store, limit(hard={COUNT: 5}), deployment("a"))
    key = Key("Quota", "acme", "team")
    again = limit(hard={COUNT: 1, INSTANCES: 9})
    changes = [
        people(deployment("b")),
        by(PEOPLE, key, deleting(key)),
        people(again),
        people(deployment("c")),
    ]
    *_, made, refused = await store.write_all(changes)
    assert isinstance(made, Resource)
    assert isinstance(refused, QuotaError)
    assert await used(store) == {COUNT: 2, INSTANCES: 2}


async def test_a_quota_that_goes_in_the_same_transaction_stops_nobody_after_it(store: Store) -> None:
    await make(store, limit(hard={COUNT: 1}))
    key = Key("Quota", "acme", "team")
    changes = [people(deployment("a")), by(PEOPLE, key, deleting(key)), people(deployment("b"))]
    assert not any(isinstance(outcome, Exception) for outcome in await store.write_all(changes))
    assert len(await store.all_of("Deployment")) == 2
    assert await store.all_of("Quota") == []


async def test_a_quota_that_is_changed_with_what_it_counts_is_written_once(store: Store) -> None:
    await make(store, limit(hard={COUNT: 1, INSTANCES: 9}), deployment("a", instances=2))
    since, key = store.changed.value, Key("Deployment", "acme", "a")
    wider = limit(hard={COUNT: 1, INSTANCES: 9, REGIONS: 9})
    more = by(PEOPLE, key, merge_patching(key, {"spec": {"instances": 5, "regions": ["eu", "us"]}}))
    await store.write_all([more, people(deployment("b")), people(wider, applying(wider))])
    assert [event.resource.kind for event in await store.events(since, 9)] == ["Deployment", "Quota"]
    assert await used(store) == {COUNT: 1, INSTANCES: 5, REGIONS: 2}


async def test_a_tenant_that_cannot_be_takes_no_other_change_along(store: Store) -> None:
    nowhere = deployment("a", tenant="a\0b")
    refused, made = await store.write_all([people(nowhere), people(deployment("b"))])
    assert isinstance(refused, InvalidError)
    assert isinstance(made, Resource)


async def test_a_sum_that_is_not_what_is_there_is_found(store: Store) -> None:
    (made, _) = await make(store, limit(hard={COUNT: 5}), deployment("a"))
    await store.within(lambda db: db.execute(delete(resources).where(resources.c.kind == "Deployment")))
    (found,) = await store.quota_differences()
    assert (str(found.quota), found.measure, found.held, found.counted) == ("Quota/acme/team", COUNT, 1, 0)
    await store.write(by(PEOPLE, made.key, deleting(made.key)))
    await make(store, limit(hard={COUNT: 5}))
    assert await used(store) == {COUNT: 0}, "made again, it counts anew"


async def test_many_writers_never_get_beyond_it(tmp_path: Path, store: Store) -> None:
    """Two processes of a hub, each with its own store on the same database, where the engine can do that."""
    await make(store, limit(hard={COUNT: 12, INSTANCES: 20}))
    stores = [store]
    if store.database.is_shared:
        place = store_at(tmp_path / "hub.db")
        stores.append(await Store.open(place, shipped(), ManualClock(), Randomness(8)))
    dice = random.Random(11)

    async def writer(number: int) -> None:
        mine = stores[number % len(stores)]
        for _ in range(12):
            name = f"d{dice.randint(0, 19)}"
            wanted = deployment(name, instances=dice.randint(0, 6))
            with contextlib.suppress(QuotaError, ConflictError, NotFoundError):
                if dice.randint(0, 3):
                    await mine.write(people(wanted, applying(wanted)))
                else:
                    await gone(mine, name)
            status = (await mine.get(Key("Quota", "acme", "team"))).status
            assert status["used"][COUNT] <= 12
            assert status["used"][INSTANCES] <= 20

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(writer(number))
    held = await store.all_of("Deployment")
    assert await used(store) == {COUNT: len(held), INSTANCES: sum(each.spec["instances"] for each in held)}
    for other in stores[1:]:
        await other.close()
