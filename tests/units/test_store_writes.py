"""Writing to the hub's store: one transaction, one order, and the rules that need more than one resource."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
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
from transom.catalog.deployment.kind import CONTROLLER
from transom.hub.changes import (
    Actor,
    Change,
    Held,
    applying,
    creating,
    deleting,
    dropping_finalizer,
    replacing,
    setting_status,
)
from transom.hub.store import Store
from transom.logs.protocol import TopicPartition
from transom.model.errors import (
    ConflictError,
    ExistsError,
    ExpiredError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    TransomError,
)
from transom.model.names import Key
from transom.model.resources import Metadata, Resource
from transom.runtime.clock import ManualClock
from transom.runtime.randomness import Randomness

pytestmark = pytest.mark.usefixtures("each_engine")

WEB = Key("Deployment", "acme", "web")
ALL = 10_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Store]:
    opened = await open_store(tmp_path / "hub.db", clock)
    await make(opened, tenant(), region())
    yield opened
    await opened.close()


async def revisions(store: Store) -> tuple[list[int], list[int]]:
    """The revisions in the history, and those in the outbox."""
    history = [event.revision for event in await store.events(0, ALL)]
    return history, [row.revision for row in await store.outbox(0, ALL)]


async def picture(store: Store) -> Any:
    """Everything a write could have changed."""
    pages = [await store.page(kind.name) for kind in store.catalog]
    return (
        pages,
        await store.events(0, ALL),
        await store.outbox(0, ALL),
        await store.region_rows("eu", 0, ALL),
    )


async def test_a_write_is_a_resource_a_history_entry_and_an_outbox_row(store: Store) -> None:
    (made,) = await make(store, deployment())
    assert await store.get(WEB) == made
    assert made.metadata.resource_version == "3"
    (event,) = await store.events(2, ALL)
    assert (event.revision, event.event, event.role, event.who, event.why) == (
        3,
        "ADDED",
        "api",
        "lina",
        "because",
    )
    assert event.at == made.metadata.creation_timestamp
    assert event.resource == made
    (row,) = await store.outbox(2, ALL)
    assert (row.revision, row.aggregatetype, row.aggregateid, row.type) == (
        3,
        "Deployment",
        "Deployment/acme/web",
        "ADDED",
    )
    assert msgspec.json.decode(row.payload) == {"revision": 3, "uid": made.metadata.uid, "generation": 1}
    assert store.changed.value == 3


async def test_a_write_that_says_nothing_new_changes_nothing(store: Store) -> None:
    (made,) = await make(store, deployment())
    before = await picture(store)
    assert await store.write(people(made, replacing(made))) == made
    assert await store.write(people(made, merge_patching(WEB, {"spec": {"version": "1"}}))) == made
    assert await store.write(by(OWNER, WEB, setting_status(WEB, made.metadata.uid, {}))) == made
    await store.write(people(made, deleting(WEB)))
    going = await picture(store)
    await store.write(people(made, deleting(WEB)))
    assert await picture(store) == going
    assert len(going[1]) == len(before[1]) + 1


async def test_a_refused_write_changes_nothing(store: Store) -> None:
    (made,) = await make(store, deployment())
    before = await picture(store)
    refused: list[tuple[Change, type[TransomError]]] = [
        (people(deployment()), ExistsError),
        (people(deployment("x", colour="red")), InvalidError),
        (people(made, replacing(made.with_metadata(resource_version="1"))), ConflictError),
        (people(made, deleting(WEB, uid="other")), ConflictError),
        (by(REGION, WEB, deleting(WEB)), ForbiddenError),
        (people(deployment("y"), deleting(deployment("y").key)), NotFoundError),
        (by(PEOPLE, Key("Nothing", "acme", "x"), lambda held: held), NotFoundError),
    ]
    for change, error in refused:
        with pytest.raises(error):
            await store.write(change)
    assert await picture(store) == before


async def test_a_refused_change_leaves_the_others_of_its_batch_alone(store: Store) -> None:
    outcomes = await store.write_all(
        [
            people(deployment("a")),
            people(deployment("b", version="")),
            people(deployment("c")),
            people(deployment("a")),
        ]
    )
    assert [type(outcome) for outcome in outcomes] == [Resource, InvalidError, Resource, ExistsError]
    assert [item.metadata.name for item in (await store.page("Deployment")).items] == ["a", "c"]
    assert await revisions(store) == ([1, 2, 3, 4], [1, 2, 3, 4])


async def test_several_changes_of_one_key_in_one_batch(store: Store) -> None:
    def respec(held: Held) -> Held:
        return held and msgspec.structs.replace(held, spec={**held.spec, "version": "2"})

    def restate(held: Held) -> Held:
        return held and held.with_status({"ready": 1})

    outcomes = await store.write_all(
        [
            people(deployment()),
            people(deployment(), respec),
            by(OWNER, WEB, restate),
            people(deployment(), respec),
        ]
    )
    resources = [outcome for outcome in outcomes if isinstance(outcome, Resource)]
    assert [resource.metadata.resource_version for resource in resources] == ["3", "4", "5", "5"]
    assert [resource.metadata.generation for resource in resources] == [1, 2, 2, 2]
    assert await store.get(WEB) == resources[-1]
    assert [event.resource for event in await store.events(2, ALL)] == resources[:3]
    assert [event.event for event in await store.events(2, ALL)] == ["ADDED", "MODIFIED", "MODIFIED"]


async def test_made_and_deleted_and_made_again_in_one_batch(store: Store) -> None:
    seen = Resource("Instance", msgspec.structs.replace(deployment("i").metadata))
    outcomes = await store.write_all(
        [
            by(REGION, seen.key, creating(seen)),
            by(REGION, seen.key, deleting(seen.key)),
            by(REGION, seen.key, creating(seen)),
        ]
    )
    first, gone, second = outcomes
    assert isinstance(first, Resource)
    assert gone is None
    assert isinstance(second, Resource)
    assert first.metadata.uid != second.metadata.uid
    assert await store.get(seen.key) == second
    assert [event.event for event in await store.events(2, ALL)] == ["ADDED", "DELETED", "ADDED"]


async def test_of_many_who_read_the_same_only_one_may_write(store: Store) -> None:
    # All of them wait together, so they share one transaction.
    (made,) = await make(store, deployment())

    async def attempt(number: int) -> bool:
        wanted = msgspec.structs.replace(made, spec={**made.spec, "version": f"by-{number}"})
        try:
            await store.write(people(made, replacing(wanted)))
        except ConflictError:
            return False
        return True

    assert sum(await asyncio.gather(*(attempt(number) for number in range(20)))) == 1
    assert len(await store.events(3, ALL)) == 1


def some_change(dice: Randomness, mark: str) -> Change:
    """Any of the changes that people and the controller make, of one of a dozen deployments."""
    name = f"app-{int(dice.below(12))}"
    key = deployment(name).key
    changes = [
        people(deployment(name), deleting(key)),
        by(OWNER, key, lambda held: held and held.with_status({"mark": mark})),
        by(OWNER, key, dropping_finalizer(key, "", CONTROLLER)),
        people(deployment(name), applying(deployment(name, version=mark))),
    ]
    return changes[int(dice.below(len(changes)))]


async def follow(store: Store, upto: int) -> list[int]:
    """The revisions that a watcher sees until it has come to `upto`."""
    seen = [0]
    while seen[-1] < upto:
        await store.changed.above(seen[-1])
        seen.extend(event.revision for event in await store.events(seen[-1], ALL))
    return seen[1:]


async def test_revision_history_and_outbox_have_one_order_whoever_writes(store: Store) -> None:
    dice = Randomness(11)
    acknowledged: list[int] = []

    async def writer(number: int) -> None:
        for turn in range(6):
            (outcome,) = await store.write_all([some_change(dice, f"{number}-{turn}")])
            if isinstance(outcome, Resource):
                acknowledged.append(int(outcome.metadata.resource_version))

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(follow(store, upto=60))
        for number in range(50):
            group.create_task(writer(number))

    last = store.changed.value
    dense = list(range(1, last + 1))
    assert await revisions(store) == (dense, dense)
    # Who follows never finds a revision that came late below one already seen.
    seen = watching.result()
    assert seen == dense[: len(seen)]
    assert set(acknowledged) <= set(dense)
    newest: dict[Key, Resource] = {}
    for event in await store.events(0, ALL):
        assert event.resource.metadata.resource_version == str(event.revision)
        newest[event.resource.key] = event.resource
        if event.event == "DELETED":
            del newest[event.resource.key]
    assert {item.key: item for kind in store.catalog for item in await store.all_of(kind.name)} == newest


async def test_what_no_database_holds_is_refused_and_harms_nobody(store: Store) -> None:
    nul = deployment("b\0")
    outcomes = await store.write_all(
        [
            people(deployment("a")),
            replace(people(deployment("b")), why="a\0b"),
            replace(people(deployment("b")), actor=Actor("api", "\ud800")),
            Change(nul.key, creating(nul), PEOPLE),
            people(deployment("c")),
        ]
    )
    refused = InvalidError
    assert [type(outcome) for outcome in outcomes] == [Resource, refused, refused, refused, Resource]
    assert await revisions(store) == ([1, 2, 3, 4], [1, 2, 3, 4])
    with pytest.raises(NotFoundError):
        await store.get(nul.key)


# --- references, owners, guards ------------------------------------------------------------------------


async def test_a_reference_must_be_there(store: Store) -> None:
    with pytest.raises(InvalidError, match="Region 'us' does not exist"):
        await store.write(people(deployment(regions=["eu", "us"])))
    with pytest.raises(InvalidError, match="Tenant 'other' does not exist"):
        await store.write(people(deployment(tenant="other")))
    await make(store, deployment())
    with pytest.raises(InvalidError, match="Region 'us' does not exist"):
        await store.write(people(deployment(), replacing(deployment(regions=["us"]))))
    outcomes = await store.write_all(
        [people(region("us")), people(deployment(), replacing(deployment(regions=["us"])))]
    )
    assert [type(outcome) for outcome in outcomes] == [Resource, Resource]


async def test_nothing_is_made_in_a_tenant_that_is_going(store: Store) -> None:
    held = tenant("old").with_metadata(finalizers=["example.com/hold"])
    await make(store, held)
    await store.write(people(held, deleting(held.key)))
    with pytest.raises(InvalidError, match="Tenant 'old' is being deleted"):
        await store.write(people(deployment(tenant="old")))


async def test_an_owner_must_be_there_be_the_same_and_stay(store: Store) -> None:
    (made,) = await make(store, deployment())
    other = regional(made.with_metadata(uid="another"))
    with pytest.raises(ConflictError, match="which is gone or going"):
        await make(store, other)
    with pytest.raises(ConflictError, match="which is gone or going"):
        await make(store, regional(deployment("never-made")))
    (child,) = await make(store, regional(made))
    assert (await store.families([WEB], [])).children == [child]
    await store.write(people(made, deleting(WEB)))
    with pytest.raises(ConflictError, match="which is gone or going"):
        await make(store, regional(made).with_metadata(name="web.later"))


@pytest.mark.parametrize(
    "naming",
    [
        Resource("Tenant", Metadata("mover"), spec={"regions": ["us"]}),
        Resource(
            "KafkaCluster",
            Metadata("events", "acme"),
            spec={"bootstrapServers": ["kafka.example:9092"], "regions": ["us"]},
        ),
        Resource("ContextFreeze", Metadata("us"), spec={"reason": "a test"}),
    ],
    ids=lambda resource: resource.kind,
)
async def test_a_region_that_is_named_anywhere_is_not_deleted(store: Store, naming: Resource) -> None:
    bystander = Resource("Tenant", Metadata("bystander"), spec={"title": "us", "regions": ["eu"]})
    await make(store, region("us"), bystander, naming)
    with pytest.raises(ConflictError, match=f"'us' is still used by {naming.key}; delete"):
        await store.write(people(region("us"), deleting(region("us").key)))
    # In one batch: what has ceased to name it holds no more, what begins to does.
    gone = people(region("us"), deleting(region("us").key))
    outcomes = await store.write_all([people(naming, deleting(naming.key)), gone])
    assert outcomes == [None, None]
    outcomes = await store.write_all([people(region("us")), people(naming), gone])
    assert isinstance(outcomes[2], ConflictError)


async def test_of_many_that_name_a_region_some_are_told(store: Store) -> None:
    many = [Resource("Tenant", Metadata(f"t{number}"), spec={"regions": ["us"]}) for number in range(9)]
    await make(store, region("us"), *many)
    with pytest.raises(ConflictError, match=r"Tenant//t\d, .+, .+ and others; delete"):
        await store.write(people(region("us"), deleting(region("us").key)))


async def test_what_others_stand_on_is_not_deleted(store: Store) -> None:
    (made,) = await make(store, deployment())
    with pytest.raises(ConflictError, match="still used by Deployment/acme/web"):
        await store.write(people(tenant(), deleting(tenant().key)))
    (child,) = await make(store, regional(made))
    with pytest.raises(
        ConflictError, match=r"still used by Deployment/acme/web, RegionalDeployment/acme/web\.eu"
    ):
        await store.write(people(region(), deleting(region().key)))
    # In one batch, too: what was made just before holds, what has gone just before does not.
    outcomes = await store.write_all(
        [
            people(made, deleting(WEB)),
            by(OWNER, WEB, dropping_finalizer(WEB, made.metadata.uid, CONTROLLER)),
            people(tenant(), deleting(tenant().key)),
            by(OWNER, child.key, deleting(child.key)),
            by(REGION, child.key, dropping_finalizer(child.key, child.metadata.uid, "region")),
            people(tenant(), deleting(tenant().key)),
            people(region(), deleting(region().key)),
        ]
    )
    assert [type(outcome) for outcome in outcomes[2:]] == [
        ConflictError,
        Resource,
        type(None),
        type(None),
        type(None),
    ]
    outcomes = await store.write_all(
        [people(tenant("t")), people(region("us")), people(tenant("t"), deleting(tenant("t").key))]
    )
    assert outcomes[2] is None
    outcomes = await store.write_all(
        [
            people(tenant("t")),
            people(deployment("d", "t", regions=["us"])),
            people(tenant("t"), deleting(tenant("t").key)),
        ]
    )
    assert isinstance(outcomes[2], ConflictError)


async def test_a_late_change_does_not_bring_back_what_was_deleted(store: Store) -> None:
    seen = Resource("Instance", deployment("i").metadata)
    late = Change(seen.key, applying(seen), REGION, outdated=lambda buried: buried.metadata.uid != "")
    assert isinstance(await store.write(late), Resource)
    await store.write(by(REGION, seen.key, deleting(seen.key)))
    before = await picture(store)
    assert await store.write(late) is None
    assert await picture(store) == before
    assert isinstance(await store.write(replace(late, outdated=lambda _buried: False)), Resource)
    outcomes = await store.write_all([by(REGION, seen.key, deleting(seen.key)), late])
    assert outcomes == [None, None]


# --- what a region is told -----------------------------------------------------------------------------


async def test_a_region_is_told_of_descriptions_and_deletions_never_of_status(store: Store) -> None:
    (made,) = await make(store, deployment())
    (child,) = await make(store, regional(made))
    rows, upto, _ = await store.region_rows("eu", 0, ALL)
    assert [(row.resource, row.revision, row.deleted) for row in rows] == [(child, 4, False)]
    assert upto == 4

    await store.write(by(REGION, child.key, setting_status(child.key, child.metadata.uid, {"ready": 1})))
    assert await store.region_rows("eu", upto, ALL) == ([], 5, False)
    (row,), _, _ = await store.region_rows("eu", 0, ALL)
    assert (row.revision, row.resource.desired()) == (4, child.desired())

    outcomes = await store.write_all(
        [
            by(OWNER, child.key, lambda held: held and held.with_metadata(labels={"a": "b"})),
            by(REGION, child.key, setting_status(child.key, child.metadata.uid, {"ready": 2})),
        ]
    )
    assert all(isinstance(outcome, Resource) for outcome in outcomes)
    (row,), upto, _ = await store.region_rows("eu", 5, ALL)
    assert (row.revision, row.resource.metadata.labels, upto) == (6, {"a": "b"}, 7)

    await store.write(by(OWNER, child.key, deleting(child.key)))
    await store.write(by(REGION, child.key, dropping_finalizer(child.key, child.metadata.uid, "region")))
    (row,), upto, _ = await store.region_rows("eu", 8, ALL)
    assert (row.revision, row.deleted, upto) == (9, True, 9)
    assert await store.region_rows("us", 0, ALL) == ([], 9, False)


async def test_a_region_is_told_in_parts_without_a_gap(store: Store) -> None:
    made = await make(store, *(deployment(f"app-{number}") for number in range(7)))
    await make(store, *(regional(one) for one in made))
    told: list[str] = []
    after = 0
    while True:
        rows, upto, _ = await store.region_rows("eu", after, 3)
        told.extend(row.resource.metadata.name for row in rows)
        if len(rows) < 3:
            break
        after = upto
    assert told == [f"app-{number}.eu" for number in range(7)]
    assert upto == store.changed.value


# --- reading -------------------------------------------------------------------------------------------


async def test_pages_go_on_where_they_ended(store: Store) -> None:
    await make(
        store, tenant("zeta"), *(deployment(name, place) for place in ("zeta", "acme") for name in "cab")
    )
    names: list[str] = []
    after = None
    while True:
        page = await store.page("Deployment", most=2, after=after)
        assert page.revision == store.changed.value
        names += [f"{item.metadata.namespace}/{item.metadata.name}" for item in page.items]
        after = page.more_after
        if after is None:
            break
    assert names == ["acme/a", "acme/b", "acme/c", "zeta/a", "zeta/b", "zeta/c"]
    only = await store.page("Deployment", "zeta", most=3)
    assert (len(only.items), only.more_after) == (3, None)
    assert len(await store.all_of("Deployment")) == 6


async def test_reading_many_keys_at_once(store: Store) -> None:
    made = await make(store, *(deployment(f"d{number}") for number in range(5)))
    asked = [one.key for one in made] + [Key("Deployment", "acme", "none")]
    found = await store.families(asked, ["Tenant"])
    assert found.primaries == {one.key: one for one in made}
    assert [tenant.key.name for tenant in found.others["Tenant"]] == ["acme"]
    with pytest.raises(NotFoundError, match="Deployment/acme/none does not exist"):
        await store.get(Key("Deployment", "acme", "none"))


async def test_a_copy_that_lags_behind_is_not_acted_on(store: Store) -> None:
    (made,) = await make(store, deployment())
    now = store.changed.value
    assert (await store.families([WEB], [], at_least=now)).primaries == {WEB: made}
    with pytest.raises(ConflictError, match=f"not at revision {now + 1}"):
        await store.families([WEB], [], at_least=now + 1)


async def test_history_of_one_resource_newest_first(store: Store) -> None:
    (made,) = await make(store, deployment())
    await make(store, deployment("other"))
    await store.write(by(OWNER, WEB, setting_status(WEB, made.metadata.uid, {"ready": 1})))
    await store.write(people(made, deleting(WEB)))
    await store.write(by(OWNER, WEB, dropping_finalizer(WEB, made.metadata.uid, CONTROLLER)))
    events = await store.history_of(WEB)
    # Revision 5 was a status: what came of it, not what was declared.
    assert [event.revision for event in events] == [7, 6, 3]
    assert [event.event for event in events] == ["DELETED", "MODIFIED", "ADDED"]
    assert events[0].resource.status == {"ready": 1}
    assert await store.history_of(WEB, most=2) == events[:2]


async def test_events_by_kind_and_namespace(store: Store) -> None:
    await make(store, tenant("zeta"), deployment(), deployment(tenant="zeta"))
    assert [event.revision for event in await store.events(0, ALL, kind="Deployment")] == [4, 5]
    assert [event.revision for event in await store.events(0, ALL, "Deployment", "zeta")] == [5]
    assert [event.revision for event in await store.events(1, 2)] == [2, 3]


async def test_forgotten_events_are_expired_never_left_out(store: Store, clock: ManualClock) -> None:
    (made,) = await make(store, deployment())
    for ready in range(3):
        await store.write(by(OWNER, WEB, setting_status(WEB, made.metadata.uid, {"ready": ready})))
    clock.advance(3600)
    await store.write(people(made, merge_patching(WEB, {"spec": {"version": "2"}})))
    (last,) = await store.events(6, ALL)
    # The statuses (revisions 4 to 6) go, what was wanted stays.
    await store.prune_history(status_before=last.at, all_before="2000-01-01T00:00:00.000000Z")
    with pytest.raises(ExpiredError, match="revision 7"):
        await store.events(5, ALL)
    assert [event.revision for event in await store.events(6, ALL)] == [7]
    assert [event.revision for event in await store.history_of(WEB)] == [7, 3]
    # Pruning what is older must not make a watcher believe it has missed nothing.
    created = made.metadata.creation_timestamp or ""
    await store.prune_history(status_before=created, all_before=last.at)
    with pytest.raises(ExpiredError):
        await store.events(5, ALL)
    assert [event.revision for event in await store.events(6, ALL)] == [7]
    await store.prune_history(status_before=last.at, all_before=last.at)
    assert [event.revision for event in await store.events(6, ALL)] == [7]


async def test_the_outbox_is_read_in_order_and_forgotten_from_below(store: Store) -> None:
    await make(store, *(deployment(f"d{number}") for number in range(4)))
    assert [row.revision for row in await store.outbox(1, 3)] == [2, 3, 4]
    await store.forget_outbox(4)
    assert [row.revision for row in await store.outbox(0, ALL)] == [5, 6]
    assert len(await store.events(0, ALL)) == 6


async def test_a_readers_position_moves_with_what_it_wrote(store: Store) -> None:
    at = TopicPartition("status", 0)
    assert await store.positions_of("archive") == {}
    await store.write_all([people(deployment())], reader="archive", offsets={at: 5})
    assert await store.positions_of("archive") == {at: 5}
    await store.write_all([people(deployment())], reader="archive", offsets={at: 9})
    assert await store.positions_of("archive") == {at: 9}
    assert await store.positions_of("someone") == {}
    assert await store.write_all([], reader="archive", offsets={at: 10}) == []
    assert await store.positions_of("archive") == {at: 10}
    assert store.changed.value == 3
