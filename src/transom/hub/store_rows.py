"""What a transaction of the store writes: the newest state of each resource, its history, and the outbox.

Every change that was accepted becomes one row of the history and one of the outbox, under the same revision;
of a resource that changed several times only the last state stays. Next on the data's way: `relay`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, delete, insert, update

from transom.hub import store_audit
from transom.hub.changes import Actor, Held
from transom.hub.store_counter import Standing, move
from transom.hub.store_engine import put
from transom.hub.store_schema import dependents, outbox, resources
from transom.model.kinds import PEOPLE, REGION, Kind
from transom.model.names import Key
from transom.model.resources import Resource, to_json
from transom.runtime.randomness import Randomness
from transom.runtime.tracing import new_traceparent

_KEYS_A_QUERY = 300


@dataclass
class Accepted:
    """A change that will be written."""

    kind: Kind
    before: Held
    after: Held
    actor: Actor
    why: str
    trace: str

    @property
    def last(self) -> Resource:
        """What is there afterwards, or was there last."""
        resource = self.after or self.before
        assert resource is not None  # noqa: S101  # a change from nothing to nothing is not accepted
        return resource

    @property
    def event(self) -> str:
        """How watches call it."""
        if self.before is None:
            return "ADDED"
        return "DELETED" if self.after is None else "MODIFIED"

    @property
    def region(self) -> str:
        """The region that is to have it; empty when it stays at the hub."""
        return self.kind.region_of(self.last) if self.kind.region_of else ""

    @property
    def described(self) -> bool:
        """Whether anything but the status changed."""
        return self.before is None or self.after is None or self.before.desired() != self.after.desired()


def write_rows(
    db: Connection, accepted: Sequence[Accepted], before: Standing, now: str, randomness: Randomness
) -> None:
    """Write what was accepted at the time `now`, each at the next revision after `before`."""
    rows: dict[Key, dict[str, Any]] = {}
    events: list[dict[str, Any]] = []
    messages: list[dict[str, Any]] = []
    for revision, change in enumerate(accepted, before.revision + 1):
        last = change.last if change.after else change.last.with_metadata(resource_version=str(revision))
        body = to_json(last)
        described = rows.get(last.key, {}).get("described_revision", 0)
        gone = change.after is None
        rows[last.key] = {
            "key": str(last.key),
            "kind": last.key.kind,
            "namespace": last.key.namespace,
            "name": last.key.name,
            "uid": last.metadata.uid,
            "revision": revision,
            "described_revision": revision if change.described else described,
            "region": change.region or None,
            "owner_uid": last.owner.uid if last.owner else None,
            "deleted": gone,
            "body": body,
            # What a region brought forth is not brought back by anybody else.
            "deleted_at": now if gone and change.kind.owner != REGION else None,
        }
        events.append(history_row(change.actor, change.event, last, body, revision, now, change.why))
        events[-1]["before"] = to_json(change.before) if change.before else None
        events[-1]["described"] = change.described and not change.kind.fleeting
        if not change.kind.fleeting:
            messages.append(outbox_row(change.event, last, revision, change.trace, randomness))
    vanished = {a.last.key for a in accepted if a.kind.fleeting and rows[a.last.key]["deleted"]}
    _take_rows_away(db, [rows.pop(key)["key"] for key in vanished])
    fresh = [row for row in rows.values() if row["described_revision"]]
    restated = [
        {"k": row["key"], "at": row["revision"], "b": row["body"]}
        for row in rows.values()
        if not row["described_revision"]
    ]
    if fresh:
        put(db, resources, fresh)
    if restated:
        db.execute(_RESTATE, restated)
    _write_owners(db, accepted)
    newest = store_audit.append(db, events, before.audit_hash)
    if messages:
        db.execute(_TOLD, messages)
    move(db, Standing(before.revision + len(accepted), newest))


_RESTATE = (
    update(resources)
    .where(resources.c.key == bindparam("k"))
    .values(revision=bindparam("at"), body=bindparam("b"))
)
"""Writes a new status; `described_revision` stays, so nobody is told again what they know."""
_TOLD = insert(outbox)


def _take_rows_away(db: Connection, keys: Sequence[str]) -> None:
    """What does not last leaves nothing behind but its history."""
    for at in range(0, len(keys), _KEYS_A_QUERY):
        part = keys[at : at + _KEYS_A_QUERY]
        db.execute(delete(resources).where(resources.c.key.in_(part)))
        db.execute(delete(dependents).where(dependents.c.key.in_(part)))


def _write_owners(db: Connection, accepted: Iterable[Accepted]) -> None:
    """Whom what people own was made for. It is kept of what is deleted: it comes back together."""
    told: dict[Key, Resource] = {}
    for change in accepted:
        before = change.before.metadata.owner_references if change.before else None
        lasts = change.kind.owner == PEOPLE and not change.kind.fleeting
        if lasts and change.after and change.after.metadata.owner_references != before:
            told[change.after.key] = change.after
    keys = [str(key) for key in told]
    for at in range(0, len(keys), _KEYS_A_QUERY):
        db.execute(delete(dependents).where(dependents.c.key.in_(keys[at : at + _KEYS_A_QUERY])))
    rows = [
        {"key": str(key), "owner_uid": uid}
        for key, resource in told.items()
        for uid in sorted({reference.uid for reference in resource.metadata.owner_references})
    ]
    if rows:
        db.execute(insert(dependents), rows)


def history_row(
    actor: Actor, event: str, last: Resource, body: bytes, revision: int, now: str, why: str
) -> dict[str, Any]:
    """A row of the history for something that was described anew."""
    return {
        "revision": revision,
        "kind": last.key.kind,
        "namespace": last.key.namespace,
        "name": last.key.name,
        "event": event,
        "role": actor.role,
        "who": actor.who,
        "why": why,
        "at": now,
        "generation": last.metadata.generation,
        "described": True,
        "body": body,
        "source": actor.source,
    }


class ChangeEvent(msgspec.Struct, frozen=True, rename="camel"):
    """What an outbox event says. Readers wake up on it and read the store; they never act on it."""

    revision: int
    uid: str
    generation: int


def outbox_row(
    kind: str, last: Resource, revision: int, trace: str, randomness: Randomness
) -> dict[str, Any]:
    """A row of the outbox; `kind` is the event's. Without a `trace` it begins one."""
    event = ChangeEvent(revision, last.metadata.uid, last.metadata.generation)
    return {
        "revision": revision,
        "id": randomness.uid(),
        "aggregatetype": last.key.kind,
        "aggregateid": str(last.key),
        "type": kind,
        "payload": msgspec.json.encode(event),
        "traceparent": trace or new_traceparent(randomness),
    }
