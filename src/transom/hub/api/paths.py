"""What a request is about: the kind, tenant and name in its path.

Paths are those of the Kubernetes API, for any kind of the catalog:
`/apis/{group}/{version}/namespaces/{tenant}/{plural}/{name}` (`/api/{version}/…` for the core group), and
without `namespaces/{tenant}` for kinds that belong to no tenant (and to list a kind over all tenants).
Next: `options` reads the query, `bodies` what was sent.
"""

from dataclasses import dataclass

from starlette.requests import Request

from transom.hub.api.errors import Subject, remember_subject
from transom.model.errors import NotFoundError
from transom.model.kinds import Catalog, Kind
from transom.model.names import Key

STATUS = "status"


@dataclass(frozen=True)
class Target:
    """What a path names. `namespace` and `name` are empty where the path has none, and so is `subresource`
    ("status") for the resource itself.
    """

    kind: Kind
    namespace: str
    name: str
    subresource: str = ""

    @property
    def key(self) -> Key:
        """What is stored of the resource; only for a path with a name."""
        return Key(self.kind.stored, self.namespace, self.name)

    @property
    def shown(self) -> Key:
        """The resource as clients name it."""
        return Key(self.kind.name, self.namespace, self.name)


def target_of(request: Request, catalog: Catalog, subresource: str = "") -> Target:
    """What the path of `request` names, `subresource` being its last part, if it is one.

    Raises `NotFoundError` for a kind, or a subresource of it, that is not there.
    """
    found = request.path_params
    group, version = found.get("group", ""), found["version"]
    namespace, name = found.get("tenant", ""), found.get("name", "")
    plural = found["plural"]
    kind = catalog.served(group, version, plural)
    if kind is None:
        known = ", ".join(sorted(kind.plural for kind in catalog.faces if kind.group == group))
        raise NotFoundError(f"unknown kind {plural!r}; there are {known}")
    root = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
    if namespace and not kind.namespaced:
        raise NotFoundError(f"a {kind.name} belongs to no tenant; its path is {root}/{plural}")
    if name and kind.namespaced and not namespace:
        raise NotFoundError(f"a {kind.name} belongs to a tenant: {root}/namespaces/TENANT/{plural}/{name}")
    if subresource == STATUS and not kind.status_owner:
        raise NotFoundError(f"a {kind.name} has no {subresource}")
    remember_subject(request.scope, Subject(kind, name))
    return Target(kind, namespace, name, subresource)
