"""What the API serves, as discovery and the OpenAPI documents tell it: made of the catalog, once.

Pure. A kind is served under its group and version, with the verbs that the API may do to it: all of them for
what people write, the reading ones for what a controller or a region writes. What is no kind of the catalog
(a review that is answered and never stored) is told here too, by who serves it.
Next on the data's way: `discovery` and `openapi`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from transom.model.kinds import PEOPLE, Kind
from transom.model.resources import JsonObject
from transom.model.schemas import has_status, schema_of

READING = ("get", "list", "watch")
WRITING = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")

_VERSION = re.compile(r"v([0-9]+)(?:(alpha|beta)([0-9]+))?")
_STABILITY = {"": 2, "beta": 1, "alpha": 0}


@dataclass(frozen=True)
class Served:
    """One resource type: where it is, what clients may do with it, and what it holds.

    `status_verbs` are those of its subresource `status`; empty when it has none. `schema` is that of whole
    objects. `flat` and `columns` are the kind's.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    verbs: tuple[str, ...]
    schema: JsonObject
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    status_verbs: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """Group and version as resources name them."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        """Where its group and version are, without a slash at either end: "apis/transom.dev/v1"."""
        return f"apis/{self.api_version}" if self.group else f"api/{self.version}"


def served_of(kind: Kind) -> Served:
    """How the API serves a kind of the catalog. Raises what `schema_of` raises."""
    status_verbs: tuple[str, ...] = ()
    if has_status(kind):
        status_verbs = ("get", "patch", "update") if kind.status_owner == PEOPLE else ("get",)
    return Served(
        group=kind.group,
        version=kind.version,
        plural=kind.plural,
        kind=kind.name,
        namespaced=kind.namespaced,
        verbs=WRITING if kind.owner == PEOPLE else READING,
        schema=schema_of(kind),
        short_names=kind.short_names,
        # What `kubectl get all` shows: what belongs to one tenant and is there to last.
        categories=("all",) if kind.namespaced and not (kind.fleeting or kind.view) else (),
        status_verbs=status_verbs,
    )


def by_group(served: Iterable[Served]) -> dict[str, dict[str, list[Served]]]:
    """What is served, by group and by version, the preferred version of a group first."""
    groups: dict[str, dict[str, list[Served]]] = {}
    for one in sorted(served, key=lambda one: (one.group, _rank(one.version), one.plural)):
        groups.setdefault(one.group, {}).setdefault(one.version, []).append(one)
    return groups


def _rank(version: str) -> tuple[int, int, int, str]:
    """Places versions as Kubernetes does: stable before beta before alpha, then the greater first.

    https://kubernetes.io/docs/reference/using-api/#api-versioning
    """
    found = _VERSION.fullmatch(version)
    if found is None:
        return 1, 0, 0, version
    major, stability, minor = found.groups()
    return -_STABILITY[stability or ""], -int(major), -int(minor or 0), version
