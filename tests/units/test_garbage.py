"""Garbage collection: what people made for something goes when that goes, is let go, or is waited for."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from store_world import OWNER, PEOPLE, by, deployment, make, open_store, people, region, regional, tenant

from hub_parts import merge_patching
from transom.hub import garbage
from transom.hub.changes import Change, deleting, dropping_finalizer
from transom.hub.garbage import GarbageCollector
from transom.hub.ownership import FOREGROUND, ORPHAN, PROTECTED
from transom.hub.store import Store
from transom.hub.undeletion import restore
from transom.model.errors import ConflictError, ProtectedError
from transom.model.names import Key
from transom.model.resources import Metadata, OwnerReference, Resource
from transom.runtime.clock import ManualClock
from transom.runtime.randomness import Randomness

pytestmark = pytest.mark.usefixtures("each_engine")

WEB = Key("Deployment", "acme", "web")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(tmp_path / "hub.db")
    await make(opened, tenant(), region())
    yield opened
    await opened.close()


def refers_to(owner: Resource, *, blocks: bool = False) -> OwnerReference:
    meta = owner.metadata
    return OwnerReference("transom.dev/v1", owner.kind, meta.name, meta.uid, block_owner_deletion=blocks)


def cluster(name: str, *references: OwnerReference, **metadata: object) -> Resource:
    meta = Metadata(name, "acme", owner_references=list(references), **metadata)  # type: ignore[arg-type]
    return Resource("KafkaCluster", meta, spec={"bootstrapServers": ["kafka.example:9092"]})


def collector(store: Store) -> GarbageCollector:
    return GarbageCollector(store, ManualClock(), Randomness(1))


async def delete(store: Store, resource: Resource, propagation: str = "") -> None:
    await store.write(Change(resource.key, deleting(resource.key), PEOPLE, propagation=propagation))


async def names(store: Store) -> set[str]:
    return {each.metadata.name for each in await store.all_of("KafkaCluster")}


async def test_dependents_go_after_their_owner_and_theirs_after_them(store: Store) -> None:
    (owner,) = await make(store, cluster("owner"))
    (one, _) = await make(store, cluster("one", refers_to(owner)), cluster("other"))
    await make(store, cluster("two", refers_to(one)))
    after = await collector(store).collect(0)
    assert await names(store) == {"owner", "one", "two", "other"}
    await delete(store, owner)
    await collector(store).collect(after)
    assert await names(store) == {"other"}
    (newest, *_) = await store.history_of(one.key)
    assert (newest.who, newest.why) == (
        "garbage-collector",
        "KafkaCluster 'owner', for which it was made, is gone",
    )


async def test_one_with_another_owner_stays_and_is_of_that_one_alone(store: Store) -> None:
    first, second = await make(store, cluster("first"), cluster("second"))
    (its,) = await make(store, cluster("its", refers_to(first), refers_to(second)))
    await delete(store, first)
    await collector(store).collect(0)
    assert (await store.get(its.key)).metadata.owner_references == [refers_to(second)]


async def test_who_is_made_for_nobody_is_collected_and_for_an_unknown_kind_left_alone(store: Store) -> None:
    (owner,) = await make(store, cluster("owner"))
    never = OwnerReference("transom.dev/v1", "KafkaCluster", "owner", "another-uid")
    unknown = OwnerReference("example.com/v1", "Widget", "w", "some-uid")
    await make(store, cluster("its", never), cluster("theirs", unknown))
    await collector(store).collect(0)
    assert await names(store) == {"owner", "theirs"}
    del owner


async def test_in_the_foreground_an_owner_waits_for_those_that_block_it(store: Store) -> None:
    (owner,) = await make(store, cluster("owner"))
    slow = cluster("slow", refers_to(owner, blocks=True), finalizers=["x/y"])
    slow, _ = await make(store, slow, cluster("quick", refers_to(owner)))
    await delete(store, owner, FOREGROUND)
    after = await collector(store).collect(0)
    assert await names(store) == {"owner", "slow"}
    assert (await store.get(slow.key)).deleting
    await store.write(people(slow, merge_patching(slow.key, {"metadata": {"finalizers": None}})))
    await collector(store).collect(after)
    assert await names(store) == set()


async def test_foreground_goes_down_to_what_blocks_in_turn(store: Store) -> None:
    (owner,) = await make(store, cluster("owner"))
    (middle,) = await make(store, cluster("middle", refers_to(owner, blocks=True)))
    await make(store, cluster("last", refers_to(middle, blocks=True), finalizers=["x/y"]))
    await delete(store, owner, FOREGROUND)
    await collector(store).collect(0)
    assert await names(store) == {"owner", "middle", "last"}
    assert "foregroundDeletion" in (await store.get(middle.key)).metadata.finalizers


async def test_orphans_are_let_go(store: Store) -> None:
    (owner,) = await make(store, cluster("owner"))
    (its,) = await make(store, cluster("its", refers_to(owner, blocks=True)))
    await delete(store, owner, ORPHAN)
    await collector(store).collect(0)
    assert await names(store) == {"its"}
    assert (await store.get(its.key)).metadata.owner_references == []
    assert [each.key for each in (await restore(store, owner.key, PEOPLE, "")).back] == [owner.key]


async def test_what_a_controller_owns_is_its_own_to_delete(store: Store) -> None:
    (made,) = await make(store, deployment())
    (child,) = await make(store, regional(made))
    await delete(store, made, FOREGROUND)
    await store.write(by(OWNER, WEB, dropping_finalizer(WEB, made.metadata.uid, OWNER.role)))
    await collector(store).collect(0)
    assert not (await store.get(child.key)).deleting
    assert [each.key for each in await store.all_of("Deployment")] == [], "nothing that people own blocks it"


async def test_an_owner_that_was_brought_back_keeps_what_was_made_for_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (owner,) = await make(store, cluster("owner"))
    await make(store, cluster("its", refers_to(owner)))
    await delete(store, owner)
    found = await store.read(lambda db: garbage.owned(db, 0, 100, store.catalog))
    stale = garbage.planned(found, store.catalog)
    await restore(store, owner.key, PEOPLE, "")
    outcomes = await store.write_all(stale)
    assert [type(each) for each in outcomes] == [ConflictError]
    await collector(store).collect(0)
    assert await names(store) == {"owner", "its"}


async def test_an_owner_of_what_is_protected_is_not_deleted_but_may_let_it_go(store: Store) -> None:
    (owner,) = await make(store, cluster("owner"))
    (middle,) = await make(store, cluster("middle", refers_to(owner)))
    (kept,) = await make(store, cluster("kept", refers_to(middle), labels={PROTECTED: "true"}))
    with pytest.raises(ProtectedError, match=r"KafkaCluster/acme/kept, which was made for it, is protected"):
        await delete(store, owner)
    await delete(store, middle, ORPHAN)
    await collector(store).collect(0)
    await delete(store, owner)
    await collector(store).collect(0)
    assert await names(store) == {kept.metadata.name}


async def test_what_was_protected_too_late_for_its_owner_stays_all_the_same(store: Store) -> None:
    (owner,) = await make(store, cluster("owner"))
    kept, _ = await make(store, cluster("kept", refers_to(owner)), cluster("its", refers_to(owner)))
    await delete(store, owner)
    guarded = merge_patching(kept.key, {"metadata": {"labels": {PROTECTED: "true"}}})
    await store.write(people(kept, guarded))
    after = await collector(store).collect(0)
    assert await names(store) == {"kept"}
    bare = merge_patching(kept.key, {"metadata": {"labels": {PROTECTED: None}}})
    await store.write(people(kept, bare))
    await collector(store).collect(after)
    assert await names(store) == set()


async def test_what_was_begun_is_finished_by_the_next(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time it dies behind its first commit; whoever comes after sees only what is stored."""
    (owner,) = await make(store, cluster("owner"))
    blocking = [cluster(f"its-{number}", refers_to(owner, blocks=True)) for number in range(3)]
    below = [cluster(f"below-{n}", refers_to(each)) for n, each in enumerate(await make(store, *blocking))]
    await make(store, *below)
    await delete(store, owner, FOREGROUND)
    monkeypatch.setattr(garbage, "_AT_ONCE", 2)

    class DiedError(Exception):
        pass

    class Dying(Store):
        async def write_all(self, changes, **more):  # type: ignore[no-untyped-def]
            await Store.write_all(self, changes[:1], **more)
            raise DiedError

    lives = 0
    while await names(store):
        dying = store.under()
        dying.__class__ = Dying
        with pytest.raises(DiedError):
            await collector(dying).collect(0)
        lives += 1
    assert lives == len(blocking) + len(below) + 1
    assert await collector(store).collect(0) == store.changed.value
