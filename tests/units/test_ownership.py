"""How deletions spread along owner references, and what forbids one: finalizers, protection, fencing."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from store_world import PEOPLE, deployment, make, open_store, people, region, tenant

from hub_parts import merge_patching
from transom.hub.changes import Change, deleting, replacing
from transom.hub.ownership import BACKGROUND, FOREGROUND, ORPHAN, PROTECTED, finalizers_for
from transom.hub.store import Store
from transom.model.errors import ConflictError, InvalidError, ProtectedError
from transom.model.names import Key
from transom.model.resources import Metadata, OwnerReference, Resource

pytestmark = pytest.mark.usefixtures("each_engine")

CONTROLLERS = "transom.dev/deployment-controller"
WEB = Key("Deployment", "acme", "web")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(tmp_path / "hub.db")
    await make(opened, tenant(), region())
    yield opened
    await opened.close()


def removing(key: Key, propagation: str = "", gone: tuple[tuple[Key, str], ...] = ()) -> Change:
    return Change(key, deleting(key), PEOPLE, propagation=propagation, gone=gone)


def cluster(name: str, *owners: Resource, **metadata: object) -> Resource:
    """A kind that people own and nobody has a finalizer on."""
    references = [OwnerReference("transom.dev/v1", o.kind, o.metadata.name, o.metadata.uid) for o in owners]
    meta = Metadata(name, "acme", owner_references=references, **metadata)  # type: ignore[arg-type]
    return Resource("KafkaCluster", meta, spec={"bootstrapServers": ["kafka.example:9092"]})


@pytest.mark.parametrize(
    ("propagation", "before", "after"),
    [
        ("", ["x", "orphan"], ["x", "orphan"]),
        (BACKGROUND, ["x", "orphan", "foregroundDeletion"], ["x"]),
        (FOREGROUND, ["x", "orphan"], ["x", "foregroundDeletion"]),
        (ORPHAN, ["foregroundDeletion", "x"], ["x", "orphan"]),
    ],
)
def test_finalizers_of_a_deletion(propagation: str, before: list[str], after: list[str]) -> None:
    assert finalizers_for(propagation, before) == after


def test_a_way_that_there_is_not_is_refused() -> None:
    with pytest.raises(InvalidError, match="'Sideways' is none of"):
        finalizers_for("Sideways", [])


async def test_a_foreground_deletion_waits_and_can_be_had_in_the_background_after_all(store: Store) -> None:
    await make(store, deployment())
    held = await store.write(removing(WEB, FOREGROUND))
    assert held is not None
    assert held.metadata.finalizers == [CONTROLLERS, "foregroundDeletion"]
    assert held.deleting
    again = await store.write(removing(WEB, BACKGROUND))
    assert again is not None
    assert again.metadata.finalizers == [CONTROLLERS]
    assert again.metadata.generation == held.metadata.generation
    assert again.metadata.deletion_timestamp == held.metadata.deletion_timestamp


async def test_a_label_forbids_deletion_until_it_is_taken_away(store: Store) -> None:
    (made,) = await make(store, deployment())
    guarded = made.with_metadata(labels={PROTECTED: "true"})
    await store.write(people(guarded, replacing(guarded)))
    with pytest.raises(ProtectedError, match="take the label away first"):
        await store.write(removing(WEB))
    assert not (await store.get(WEB)).deleting
    bare: dict[str, object] = {"metadata": {"labels": {PROTECTED: None}}}
    await store.write(people(guarded, merge_patching(WEB, bare)))
    held = await store.write(removing(WEB))
    assert held is not None
    assert held.deleting


async def test_what_follows_from_an_end_is_refused_while_that_lives(store: Store) -> None:
    (owner,) = await make(store, cluster("mine"))
    (made,) = await make(store, cluster("its", owner))
    ended = (owner.key, owner.metadata.uid)
    with pytest.raises(ConflictError, match="for which it was made, is there"):
        await store.write(removing(made.key, gone=(ended,)))
    await store.write(removing(owner.key))
    assert await store.write(removing(made.key, gone=(ended,))) is None


async def test_people_change_for_whom_something_was_made(store: Store) -> None:
    owner, other = await make(store, cluster("mine"), cluster("its"))
    mine = cluster("its", owner)
    held = await store.write(people(mine, replacing(mine)))
    assert held is not None
    assert held.metadata.owner_references == mine.metadata.owner_references
    assert held.metadata.generation == other.metadata.generation
