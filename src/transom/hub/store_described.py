"""What was described anew of some kinds, for who keeps them in memory. Next: `access.table`."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, select

from transom.hub.store_schema import counter, resources
from transom.model.names import Key
from transom.model.resources import Resource, from_json


class Described(NamedTuple):
    """What is held, what is gone, and the revision up to which that is all."""

    held: list[Resource]
    gone: list[Key]
    upto: int


def described_after(db: Connection, kinds: Sequence[str], after: int) -> Described:
    """What of `kinds` was described after revision `after`; one small query when the store is still there."""
    described = Described([], [], db.execute(select(counter.c.revision)).scalar_one())
    if described.upto <= after:
        return described
    newer = select(resources.c.body, resources.c.deleted).where(
        resources.c.kind.in_(kinds), resources.c.described_revision > after
    )
    for body, gone in db.execute(newer):
        resource = from_json(body)
        if gone:
            described.gone.append(resource.key)
        else:
            described.held.append(resource)
    return described
