"""One transaction of the store: evaluate waiting changes in order, then write what came out, all at once.

Evaluating reads; nothing is written before every change of the batch has been accepted or refused, so a
refused one needs no undoing. The counter's row is locked from the beginning to the commit, so revision order
is commit order (serial ids are given before the commit, and readers lose late committers). Each change gets
its revision when it is accepted: a later one of the same batch must see it, or two writers who read the same
state would both be let through. Next on the data's way: `store_rows`.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, select
from sqlalchemy.exc import DBAPIError

from transom.hub.changes import Actor, Change, Held, cause_of, evaluate
from transom.hub.naming import field_naming
from transom.hub.ownership import ORPHAN, PROTECTED, owner_key
from transom.hub.restoring import revived
from transom.hub.store_counter import locked
from transom.hub.store_duties import fenced, lost
from transom.hub.store_engine import Transactions, is_storable, put
from transom.hub.store_fleeting import Crowds, fleeting_of
from transom.hub.store_owned import protected_below
from transom.hub.store_quotas import Quotas
from transom.hub.store_rows import Accepted, write_rows
from transom.hub.store_schema import positions, resources
from transom.hub.store_users import check_unused
from transom.logs.protocol import TopicPartition
from transom.model.errors import (
    BrokenInvariantError,
    ConflictError,
    InvalidError,
    Problem,
    ProtectedError,
    TransomError,
)
from transom.model.kinds import PEOPLE, Catalog, Kind
from transom.model.names import Key
from transom.model.resources import Resource, from_json
from transom.runtime.clock import Clock, timestamp
from transom.runtime.duties import Lease
from transom.runtime.randomness import Randomness
from transom.runtime.steps import step
from transom.runtime.telemetry import get_logger

log_event = get_logger(__name__)

_KEYS_A_QUERY = 300
_NAMED = select(resources.c.body, resources.c.deleted).where(
    resources.c.key.in_(bindparam("keys", expanding=True))
)


class Job(NamedTuple):
    """What one caller of `Store.write_all` wants: changes, and how far `reader` has read; all of it only as
    long as the caller holds `leases`. `trace` is that of changes which have none of their own. `together`:
    when one is refused, none is made. `rehearsed`: evaluated with all that others are, and none is made; what
    comes of it has no new revision.
    """

    changes: tuple[Change, ...]
    reader: str
    offsets: dict[TopicPartition, int]
    leases: frozenset[Lease] = frozenset()
    trace: str = ""
    together: bool = False
    rehearsed: bool = False


class Committed(NamedTuple):
    """What came of a job: an outcome for each change; the revisions that the store was at, and is at now.

    `regions` are those for which the transaction described anything anew, `kinds` those of which it did.
    """

    outcomes: list[Held | TransomError]
    since: int
    revision: int
    regions: frozenset[str]
    kinds: frozenset[str]


class _Batch:
    """The resources a transaction has read, as they are after the changes accepted so far, behind `revision`.

    `rehearses`: nothing comes of it, so nothing has a new revision.
    """

    def __init__(
        self,
        db: Connection,
        catalog: Catalog,
        uids: Randomness,
        now: str,
        revision: int,
        *,
        rehearses: bool = False,
    ) -> None:
        self.first = revision + 1
        self._rehearses = rehearses
        self._db = db
        self._catalog = catalog
        self._uids = uids
        self.now = now
        self._held: dict[Key, Held] = {}
        self._buried: dict[Key, Resource] = {}
        self._crowds = Crowds(db)
        self.accepted: list[Accepted] = []
        self.quotas = Quotas(db, catalog, self._held)

    def begin(self, changes: Sequence[Change]) -> None:
        """Read at once what `changes` are about."""
        self.load(change.key for change in changes)
        self.quotas.load(change.key.namespace for change in changes)

    def load(self, keys: Iterable[Key]) -> None:
        """Read the resources of `keys` that were not read yet."""
        missing = list({key for key in keys if key not in self._held})
        for at in range(0, len(missing), _KEYS_A_QUERY):
            part = missing[at : at + _KEYS_A_QUERY]
            self._held.update(dict.fromkeys(part))
            # What no database takes is held by none; it is refused where it is evaluated.
            part = [key for key in part if is_storable(str(key))]
            for body, deleted in self._db.execute(_NAMED, {"keys": [str(key) for key in part]}):
                resource = from_json(body)
                if deleted:
                    self._buried[resource.key] = resource
                else:
                    self._held[resource.key] = resource

    @property
    def revision(self) -> int:
        """The revision of the last change accepted."""
        return self.first + len(self.accepted) - 1

    @property
    def regions(self) -> frozenset[str]:
        """The regions for which anything was described anew."""
        return frozenset(change.region for change in self.accepted if change.region and change.described)

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of which anything was described anew."""
        return frozenset(change.last.key.kind for change in self.accepted if change.described)

    def consider(self, change: Change, trace: str) -> Held:
        """Evaluate a change and accept it. Raises what it is refused for."""
        kind = self._catalog[change.key.kind]
        if not is_storable(f"{change.key}{change.actor.who}{change.why}"):
            raise InvalidError(str(change.key), [Problem("", "must be text without the character NUL")])
        self._check_gone(change)
        held = self._get(change.key)
        buried = self._buried.get(change.key)
        if held is None and buried is not None and change.outdated and change.outdated(buried):
            return None
        if change.revives is not None:
            after = revived(kind, held, buried, change)
            self._check_owners(after)
        else:
            after = evaluate(kind, held, change, self._uids.uid(), self.now)
        if after is held:
            return held
        if after is not None and (held is None or held.spec != after.spec):
            self._check_references(kind, after, held)
        if after is None or after.deleting:
            check_unused(self._db, self._catalog, change.key, self.accepted, self._get)
            self._check_cascade(change, held)
        after = self.quotas.admit(kind, held, after)
        if after is None and kind.guards == "namespace":
            self._take_away(fleeting_of(self._db, self._catalog, change.key.name), "gone with its tenant")
        if held is None:
            self._take_away(self._crowds.entered(kind, change.key), "gone for a newer one", most=1)
        why = cause_of(change, held, after)
        return self._accept(Accepted(kind, held, after, change.actor, why, change.trace or trace))

    def settle(self) -> None:
        """Give the quotas that count what was accepted their new status."""
        for key, status in self.quotas.moved():
            kind, held = self._catalog[key.kind], self._get(key)
            if held is not None and held.status != status:
                actor = Actor(kind.status_owner, kind.status_owner)
                self._accept(Accepted(kind, held, held.with_status(status), actor, "", ""))

    def _accept(self, change: Accepted) -> Held:
        self.accepted.append(change)
        key = change.last.key
        if change.after is None:
            self._buried[key] = change.last
            self._crowds.left(key)
        elif not self._rehearses:
            change.after = change.after.with_metadata(resource_version=str(self.revision))
        self._held[key] = change.after
        return change.after

    def _take_away(self, keys: Iterable[Key], why: str, most: int | None = None) -> None:
        """Have what does not last go, up to `most` of it that is still there."""
        there = ((key, held) for key in keys if (held := self._get(key)) is not None)
        for key, held in islice(there, most):
            kind = self._catalog[key.kind]
            self._accept(Accepted(kind, held, None, Actor(kind.owner, "hub"), why, ""))

    def undo(self, begun: int) -> None:
        """Have what was accepted after the first `begun` changes never been asked for."""
        while len(self.accepted) > begun:
            undone = self.accepted.pop()
            self._held[undone.last.key] = undone.before
            self.quotas.admit(undone.kind, undone.after, undone.before)
            if undone.before is None:
                self._crowds.left(undone.last.key)

    def _get(self, key: Key) -> Held:
        self.load([key])
        return self._held[key]

    def _check_references(self, kind: Kind, after: Resource, before: Held) -> None:
        needed = list(kind.references(after)) if kind.references else []
        if kind.references and before is not None:
            # What it named already is no news: a tenant must be suspended also when a region of its is gone.
            named = set(kind.references(before))
            needed = [key for key in needed if key not in named]
        if kind.namespaced and before is None:
            needed.append(Key("Tenant", "", after.metadata.namespace))
        self.load(needed)
        problems = [
            Problem(
                field_naming(kind, after, key),
                f"{key.kind} {key.name!r} {'is being deleted' if held else 'does not exist'}",
            )
            for key in needed
            if (held := self._held[key]) is None or (before is None and held.deleting)
        ]
        if problems:
            raise InvalidError(str(after.key), problems)
        owner = after.owner
        # What people make for nobody is collected, as in Kubernetes; a controller acted on an old state.
        if owner is not None and before is None and kind.owner != PEOPLE:
            found = self._get(Key(owner.kind, after.metadata.namespace, owner.name))
            if found is None or found.metadata.uid != owner.uid or found.deleting:
                raise ConflictError(f"{after.key} is for {owner.kind} {owner.name!r}, which is gone or going")

    def _check_gone(self, change: Change) -> None:
        """What follows from the end of something is refused while that lives."""
        for key, uid in change.gone:
            held = self._get(key)
            if held is not None and held.metadata.uid == uid and not held.deleting:
                raise ConflictError(f"{change.key} stays: {key}, for which it was made, is there")

    def _check_cascade(self, change: Change, held: Held) -> None:
        """What is protected is not deleted with what it was made for either."""
        if held is None or held.deleting or change.propagation == ORPHAN:
            return
        found = protected_below(self._db, held, self._get)
        if found is not None:
            raise ProtectedError(
                f"{change.key} cannot be deleted: {found}, which was made for it, is protected by its label "
                f"{PROTECTED}; take that label away first, or let it go (propagationPolicy {ORPHAN})"
            )

    def _check_owners(self, after: Resource) -> None:
        """What comes back for nobody would be collected at once."""
        owners = after.metadata.owner_references
        keys = [owner_key(self._catalog, owner, after.metadata.namespace) for owner in owners]
        self.load(key for key in keys if key is not None)
        lives = [
            key is None or ((held := self._held[key]) is not None and held.metadata.uid == owner.uid)
            for key, owner in zip(keys, owners, strict=True)
        ]
        if owners and not any(lives):
            gone = owners[0]
            raise ConflictError(
                f"{after.key} was made for {gone.kind} {gone.name!r} (uid {gone.uid}), which is gone; "
                f"bring that back, and this comes with it"
            )


def commit(
    writer: Transactions,
    jobs: Sequence[Job],
    catalog: Catalog,
    clock: Clock,
    randomness: Randomness,
    known: int,
) -> list[Committed | Exception]:
    """Carry out `jobs` in one transaction; `known` is the newest revision seen committed.

    Raises what `Transactions.run` raises, and then nothing is to be acknowledged; `RewoundError`.
    """

    def work(db: Connection) -> list[Committed | Exception]:
        standing, now = locked(db, known), timestamp(clock)

        def begun(jobs: Iterable[Job], *, rehearses: bool = False) -> _Batch:
            batch = _Batch(db, catalog, randomness, now, standing.revision, rehearses=rehearses)
            batch.begin([change for job in jobs for change in job.changes])
            return batch

        gone = lost(db, {lease for job in jobs for lease in job.leases})
        refused = {at: fenced(min(job.leases & gone)) for at, job in enumerate(jobs) if job.leases & gone}
        allowed = {at: job for at, job in enumerate(jobs) if at not in refused}
        batch = begun(job for job in allowed.values() if not job.rehearsed)
        outcomes = {
            at: _outcomes(begun([job], rehearses=True) if job.rehearsed else batch, job)
            for at, job in allowed.items()
        }
        batch.settle()
        if batch.accepted:
            write_rows(db, batch.accepted, standing, batch.now, randomness)
        _remember(db, allowed.values())
        step("store.committing")
        came_of = batch.first - 1, batch.revision, batch.regions, batch.kinds
        return [refused.get(at) or Committed(outcomes[at], *came_of) for at in range(len(jobs))]

    committed = writer.run(work)
    step("store.committed")
    return committed


def _outcomes(batch: _Batch, job: Job) -> list[Held | TransomError]:
    begun = len(batch.accepted)
    outcomes = [_outcome(batch, change, job.trace) for change in job.changes]
    refused = [each for each in outcomes if isinstance(each, TransomError)] if job.together else []
    if refused:
        batch.undo(begun)
    return [refused[0] for _ in outcomes] if refused else outcomes


def _outcome(batch: _Batch, change: Change, trace: str) -> Held | TransomError:
    try:
        return batch.consider(change, trace)
    except TransomError as error:
        return error
    except DBAPIError:
        raise  # the transaction is lost, and with it all of the batch
    except Exception as error:
        # A change that stumbles must not take along those that share its transaction.
        log_event.exception("a change cannot be evaluated", key=str(change.key))
        return BrokenInvariantError(f"{change.key}: {type(error).__name__} while evaluating the change")


def _remember(db: Connection, jobs: Iterable[Job]) -> None:
    newest = {(job.reader, at): offset for job in jobs for at, offset in job.offsets.items()}
    rows = [
        {"reader": reader, "topic": at.topic, "partition": at.partition, "next_offset": offset}
        for (reader, at), offset in newest.items()
    ]
    if rows:
        put(db, positions, rows)
