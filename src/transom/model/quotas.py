"""What a quota can limit: how many resources of a kind a tenant has, and the sum of one field over them.

A measure is named as Kubernetes names counts of objects, and sums alike: `count/deployments.transom.dev`,
`sum/deployments.transom.dev/spec.instances`. Everything here is pure: what one resource amounts to, which
measures a catalog can take, what to say of too much. Next: `hub.store_quotas` keeps the sums as resources
are written.
https://kubernetes.io/docs/concepts/policy/resource-quotas/#quota-on-object-count
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, Self, cast

from transom.model.errors import Problem, QuotaError
from transom.model.kinds import PEOPLE, Catalog, Kind
from transom.model.resources import JsonObject, Resource
from transom.model.schemas import schema_of

LIMIT_MAX: Final = 10**12
"""The highest limit. One resource counts for one more at most, so that sums stay whole numbers of 64 bits."""

RULE = "must be count/PLURAL.GROUP or sum/PLURAL.GROUP/spec.FIELD, as count/deployments.transom.dev"

_COUNT, _SUM = "count", "sum"
_ADDABLE = ("integer", "number", "array", "object")


class Measure(NamedTuple):
    """The number of resources of a kind, or, with a `path` below `spec`, the sum of that field over them.

    `kind` is named as `Kind.qualified` does.
    """

    kind: str
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Its name in a quota."""
        if not self.path:
            return f"{_COUNT}/{self.kind}"
        return f"{_SUM}/{self.kind}/spec.{'.'.join(self.path)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a name. Raises `ValueError`, which says how it must be."""
        what, _, rest = text.partition("/")
        kind, slash, field = rest.partition("/")
        root, *path = field.split(".")
        if what == _COUNT and kind and not slash:
            return cls(kind)
        if what == _SUM and kind and root == "spec" and path and all(path):
            return cls(kind, tuple(path))
        raise ValueError(f"{text!r} {RULE}")

    def amount(self, resource: Resource | None) -> int:
        """What `resource` adds: 1, or its field. None adds nothing.

        A number counts as itself, with a fraction as the next whole one, below zero as 0; a list or a map as
        its length; a field that is not there as 0.
        """
        if resource is None:
            return 0
        if not self.path:
            return 1
        value: Any = resource.spec
        for name in self.path:
            value = cast("JsonObject", value).get(name) if isinstance(value, dict) else None
        if isinstance(value, list | dict):
            return len(cast("list[Any] | JsonObject", value))
        if isinstance(value, bool) or not isinstance(value, int | float):
            return 0
        return math.ceil(min(max(value, 0), LIMIT_MAX + 1))


def problems_with(names: Iterable[str], catalog: Catalog, path: str) -> Iterator[Problem]:
    """What is wrong with limiting the measures of these names where there are the kinds of `catalog`.

    `path` is where they stand. Only what people write can be limited: a controller or a region, refused,
    could not do what it was asked for by somebody whom the quota let pass.
    """
    kinds = {kind.qualified: kind for kind in catalog}
    limitable = {each for each, kind in kinds.items() if _is_limitable(kind)}
    for name in names:
        measure = Measure.parse(name)
        if measure.kind not in limitable:
            wrong = f"{measure.kind!r} cannot be limited; what can: {', '.join(sorted(limitable))}"
        elif measure.path and _type_of(measure.path, kinds[measure.kind]) not in _ADDABLE:
            wrong = f"spec.{'.'.join(measure.path)} of {measure.kind} is no number, list or map"
        else:
            continue
        yield Problem(f"{path}[{name}]", wrong)


def require_within(
    quota: str, wanted: Mapping[str, int], used: Mapping[str, int], hard: Mapping[str, int], what: str
) -> None:
    """Raise `QuotaError`, in Kubernetes' words, when `wanted` more of anything is more than `quota` leaves.

    Who asks for nothing more passes, also where more is used than the limit by now. `what` is the resource as
    errors of the Kubernetes API name it: `deployments.transom.dev "shop"`.
    """
    over = sorted(name for name, more in wanted.items() if more > 0 and used[name] + more > hard[name])
    if over:
        asked, held, limits = (_told(numbers, over) for numbers in (wanted, used, hard))
        raise QuotaError(
            f"{what} is forbidden: exceeded quota: {quota}, "
            f"requested: {asked}, used: {held}, limited: {limits}"
        )


def _told(numbers: Mapping[str, int], names: Iterable[str]) -> str:
    return ",".join(f"{name}={numbers[name]}" for name in names)


def _is_limitable(kind: Kind) -> bool:
    """What people write in a tenant to stay; but for quotas: what limits is not limited."""
    return (
        kind.namespaced and kind.owner == PEOPLE and kind.limits is None and not (kind.view or kind.fleeting)
    )


def _type_of(path: tuple[str, ...], kind: Kind) -> str:
    """The JSON type of the field, as the kind's schema has it; empty when it has none of this name."""
    schema: JsonObject = schema_of(kind)["properties"].get("spec", {})
    for name in path:
        schema = schema.get("properties", {}).get(name, {})
    return str(schema.get("type", ""))
