"""What resources were at an earlier revision, from the history. Next on the data's way: `restore`."""

from typing import NamedTuple

from sqlalchemy import Connection, select

from transom.hub.store import Store
from transom.hub.store_schema import PURGED, history, resources
from transom.model.names import Key
from transom.model.resources import Resource, from_json


class Past(NamedTuple):
    """A resource now and then, None where there was none. `forgotten`: what it was is not known any more."""

    key: Key
    now: Resource | None
    then: Resource | None
    forgotten: bool


async def past_of(
    store: Store, kind: str, tenant: str, name: str, revision: int, after: Key | None, most: int
) -> list[Past]:
    """Up to `most` resources of a kind (of one tenant, of one name, or "" for all) after the key `after`."""
    query = select(resources.c.body, resources.c.deleted).where(resources.c.kind == kind)
    if tenant:
        query = query.where(resources.c.namespace == tenant)
    if name:
        query = query.where(resources.c.name == name)
    if after is not None:
        later = (resources.c.namespace > after.namespace) | (resources.c.name > after.name)
        query = query.where((resources.c.namespace >= after.namespace) & later)
    query = query.order_by(resources.c.namespace, resources.c.name).limit(most)

    def work(db: Connection) -> list[Past]:
        return [_past(db, from_json(body), deleted, revision) for body, deleted in db.execute(query).all()]

    return await store.read(work)


def _past(db: Connection, last: Resource, deleted: bool, revision: int) -> Past:  # noqa: FBT001  # a column
    key = last.key
    mine = (
        (history.c.kind == key.kind)
        & (history.c.namespace == key.namespace)
        & (history.c.name == key.name)
        & history.c.described
    )
    changes = select(history.c.event, history.c.body).where(mine)
    newest = db.execute(
        changes.where(history.c.revision <= revision).order_by(history.c.revision.desc()).limit(1)
    ).first()
    now = None if deleted else last
    if newest is not None:
        gone = newest.event in ("DELETED", PURGED)
        return Past(key, now, None if gone else from_json(newest.body), forgotten=False)
    oldest = db.execute(changes.order_by(history.c.revision).limit(1)).first()
    if oldest is None:  # not changed for as long as is remembered
        return Past(key, now, now, forgotten=False)
    return Past(key, now, None, forgotten=oldest.event != "ADDED")
