"""Roles: what a viewer, an editor, an owner and an operator may do, made of what each kind says; pure.

Kinds name the least role that may read them and the least that may write them. What people do not write
(`Kind.owner`), no role of a tenant does. A tenant itself can be read by whoever has a role in it, and is the
operators' to write: it says what the tenant may use.
Next on the data's way: `rights` gives roles to subjects.
"""

from collections.abc import Mapping

from transom.hub.access.rules import EVERYTHING, Rule
from transom.model.kinds import PEOPLE, ROLES, Catalog, Kind

READING = ("get", "list", "watch")
WRITING = ("create", "update", "patch", "delete", "deletecollection")
REVIEWS = "authorization.k8s.io"

SUBRESOURCES = ("diff", "history", "restore", "status")
"""What a resource has beside itself. A role that may read it may read them, and one that may write it may
restore it; `status` is written by the rules of the kind (`Kind.status_owner`). To purge is the operators'."""

ANYONE = (
    Rule(("create",), (REVIEWS,), ("selfsubjectaccessreviews", "selfsubjectrulesreviews")),
    Rule(("create",), ("authentication.k8s.io",), ("selfsubjectreviews",)),
    Rule(
        ("get", "head"),
        non_resource_urls=(
            "/healthz",
            "/livez",
            "/readyz",
            "/version",
            "/version/",
            "/api",
            "/api/*",
            "/apis",
            "/apis/*",
            "/openapi",
            "/openapi/*",
        ),
    ),
)
"""What everyone may who was let in: ask what they are and may do, and which kinds there are."""


def is_tenant(kind: Kind) -> bool:
    """Whether resources of this kind are tenants: rights in the tenant of that name hold for it."""
    return kind.guards == "namespace" or kind.stored == "Tenant"


def roles_of(catalog: Catalog) -> Mapping[str, tuple[Rule, ...]]:
    """The rules of each role, by its name."""
    kinds = sorted(catalog.faces, key=lambda kind: (kind.group, kind.plural))
    roles = {role: tuple(_role(role, kinds)) for role in ROLES[:-1]}
    return {**roles, ROLES[-1]: EVERYTHING}


def _role(role: str, kinds: list[Kind]) -> list[Rule]:
    rules: list[Rule] = []
    for kind in kinds:
        if not (kind.namespaced or is_tenant(kind)):
            continue
        verbs = READING if _reaches(role, kind.read_by) else ()
        if kind.owner == PEOPLE and _reaches(role, kind.write_by):
            verbs += WRITING
        if verbs:
            beside = (f"{kind.plural}/{subresource}" for subresource in SUBRESOURCES)
            rules.append(Rule(verbs, (kind.group,), (kind.plural, *beside)))
    if role == "owner":
        rules.append(Rule(("create",), (REVIEWS,), ("localsubjectaccessreviews",)))
    return rules


def _reaches(role: str, least: str) -> bool:
    return ROLES.index(role) >= ROLES.index(least)
