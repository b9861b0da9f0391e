"""What a transaction's changes add to what tenants' quotas count, kept with the changes themselves.

A quota's own status holds the sums. They are read with what the transaction writes to, moved change by change
under the counter's lock, and written as one more change of the quota, so its status is true at every revision
that anybody can read, and watchers of it are told. Nothing is counted per write: resources are gone through
once, when a quota begins to limit something. Next: `store_write` asks before it accepts a change.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, select

from transom.hub.changes import Held
from transom.hub.store_engine import is_storable
from transom.hub.store_schema import resources
from transom.model.errors import InvalidError
from transom.model.kinds import Catalog, Kind
from transom.model.names import Key
from transom.model.quotas import Measure, problems_with, require_within
from transom.model.resources import JsonObject, Resource, from_json

_TENANTS_A_QUERY = 300
_ROWS_A_FETCH = 500


class _Quota(NamedTuple):
    """One quota as it is after the changes accepted so far: limits and sums by name of the measure."""

    hard: Mapping[str, int]
    used: dict[str, int]


class Quotas:
    """The quotas of the tenants that a transaction writes to.

    `held` are the resources it has read, as they are after the changes accepted so far; what is not among
    them is as the database has it.
    """

    def __init__(self, db: Connection, catalog: Catalog, held: Mapping[Key, Held]) -> None:
        self._db = db
        self._catalog = catalog
        self._held = held
        self._limiting = [kind.name for kind in catalog if kind.limits]
        self._of: dict[str, dict[Key, _Quota]] = {}
        self._moved: set[Key] = set()

    def load(self, tenants: Iterable[str]) -> None:
        """Read the quotas of `tenants` that were not read yet."""
        missing = sorted({tenant for tenant in tenants if tenant not in self._of and is_storable(tenant)})
        self._of.update((tenant, {}) for tenant in missing)
        for at in range(0, len(missing) if self._limiting else 0, _TENANTS_A_QUERY):
            named = {"kinds": self._limiting, "tenants": missing[at : at + _TENANTS_A_QUERY]}
            for body in self._db.execute(_OF_TENANTS, named).scalars():
                quota = from_json(body)
                used = dict(quota.status["used"])
                self._of[quota.metadata.namespace][quota.key] = _Quota(quota.status["hard"], used)

    def admit(self, kind: Kind, before: Held, after: Held) -> Held:
        """Count a change that is accepted otherwise. Returns `after`; a quota with its new status.

        Raises `QuotaError`; for a quota of what cannot be limited `InvalidError`. Nothing is counted then.
        """
        last = after or before
        if last is None or not kind.namespaced:
            return after
        self.load([last.metadata.namespace])
        if kind.limits is not None:
            return self._declared(kind.limits, before, after)
        wanted: list[tuple[Key, _Quota, dict[str, int]]] = []
        for key, quota in self._of[last.metadata.namespace].items():
            more = {
                name: more
                for name in quota.hard
                if (measure := Measure.parse(name)).kind == kind.qualified
                and (more := measure.amount(after) - measure.amount(before))
            }
            what = f'{kind.qualified} "{last.key.name}"'
            require_within(key.name, more, quota.used, quota.hard, what)
            if more:
                wanted.append((key, quota, more))
        for key, quota, more in wanted:
            self._moved.add(key)
            for name, number in more.items():
                quota.used[name] += number
        return after

    def moved(self) -> Iterator[tuple[Key, JsonObject]]:
        """The quotas of which other changes have moved the sums, each with its new status."""
        for key in sorted(self._moved):
            yield key, _status(self._of[key.namespace][key])

    def _declared(self, limits: Callable[[Resource], Mapping[str, int]], before: Held, after: Held) -> Held:
        """A quota was made, changed or deleted."""
        last = after or before
        assert last is not None  # noqa: S101  # a change from nothing to nothing is not accepted
        of_tenant = self._of[last.metadata.namespace]
        if after is None:
            del of_tenant[last.key]
            self._moved.discard(last.key)
            return None
        hard = limits(after)
        known = of_tenant[last.key].used if last.key in of_tenant else {}
        fresh = [name for name in hard if name not in known]
        problems = list(problems_with(fresh, self._catalog, "spec.hard"))
        if problems:
            raise InvalidError(str(after.key), problems)
        used = {name: known[name] if name in known else self._sum(name, after) for name in hard}
        quota = _Quota(hard, used)
        of_tenant[last.key] = quota
        self._moved.discard(last.key)
        return after.with_status(_status(quota))

    def _sum(self, name: str, quota: Resource) -> int:
        """What is used of a measure, from all there is."""
        measure, tenant = Measure.parse(name), quota.metadata.namespace
        kind = next(kind.name for kind in self._catalog if kind.qualified == measure.kind)
        written = {key: held for key, held in self._held.items() if key[:2] == (kind, tenant)}
        return sum(map(measure.amount, written.values())) + sum(
            measure.amount(resource)
            for resource in _stored(self._db, kind, tenant)
            if resource.key not in written
        )


_OF_TENANTS = select(resources.c.body).where(
    resources.c.kind.in_(bindparam("kinds", expanding=True)),
    resources.c.namespace.in_(bindparam("tenants", expanding=True)),
    resources.c.deleted.is_(False),
)


def _status(quota: _Quota) -> JsonObject:
    return {"hard": dict(quota.hard), "used": dict(quota.used)}


def _stored(db: Connection, kind: str, tenant: str) -> Iterator[Resource]:
    """The resources of a kind in a tenant, a bounded number of them in memory at once."""
    query = select(resources.c.body).where(
        resources.c.kind == kind, resources.c.namespace == tenant, resources.c.deleted.is_(False)
    )
    for body in db.execute(query.execution_options(yield_per=_ROWS_A_FETCH)).scalars():
        yield from_json(body)


class Difference(NamedTuple):
    """A sum that a quota has, and what it is when everything is counted again."""

    quota: Key
    measure: str
    held: int
    counted: int


def differences(db: Connection, catalog: Catalog) -> list[Difference]:
    """Where the sums of quotas are not what is there. It goes through all that is limited."""
    qualified = {kind.qualified: kind.name for kind in catalog}
    limiting = [kind.name for kind in catalog if kind.limits]
    query = select(resources.c.body).where(resources.c.kind.in_(limiting), resources.c.deleted.is_(False))
    found: list[Difference] = []
    for quota in [from_json(body) for body in db.execute(query).scalars()]:
        used: Mapping[str, int] = quota.status["used"]
        for name, held in used.items():
            measure = Measure.parse(name)
            if measure.kind not in qualified:
                continue  # a kind of an extension that is not installed: nobody can write it either
            stored = _stored(db, qualified[measure.kind], quota.metadata.namespace)
            counted = sum(map(measure.amount, stored))
            if counted != held:
                found.append(Difference(quota.key, name, held, counted))
    return found
