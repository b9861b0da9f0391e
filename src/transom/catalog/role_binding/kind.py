"""What bindings are: a role, or rules of one's own, for some subjects.

Rules are those of Kubernetes' RBAC, so that people and tools know them:
https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from collections.abc import Iterable
from math import prod
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from transom.model.kinds import Column, Kind, Spec
from transom.model.names import is_label
from transom.model.resources import API_GROUP, Resource

_WORD = r"^[A-Za-z0-9*][-A-Za-z0-9.*/]{0,250}\z"
_COMBINATIONS_MAX = 2000

Word = Annotated[str, Field(pattern=_WORD)]
Words = Annotated[list[Word], Field(max_length=100)]


def _group(text: str) -> str:
    if text != "*" and len(text) > 253:  # noqa: PLR2004  # a DNS name
        raise ValueError("is no API group")
    return text


def _url(text: str) -> str:
    if text != "*" and (not text.startswith("/") or "*" in text[:-1]):
        raise ValueError("must be a path, '*' at its end alone")
    return text


class Rule(Spec):
    """What may be done to what, as in Kubernetes' RBAC."""

    verbs: Annotated[Words, Field(min_length=1)]
    """As get, list, watch, create, update, patch, delete, deletecollection; "*" is all."""
    api_groups: list[Annotated[str, AfterValidator(_group)]] = Field(
        default_factory=lambda: [API_GROUP], min_length=1, max_length=50
    )
    """The groups of the resources; "" is the core group, "*" is all."""
    resources: Annotated[Words, Field(min_length=1)]
    """Plurals, as deployments; `a/b` is the subresource b of a, "*" is all."""
    resource_names: list[Annotated[str, Field(min_length=1, max_length=253)]] = Field(
        default_factory=list, max_length=100
    )
    """The only names that are meant; left out, every name is. Lists and creates have none."""

    @model_validator(mode="after")
    def _is_small(self) -> "Rule":
        parts = (self.verbs, self.api_groups, self.resources, self.resource_names or [""])
        if prod(len(part) for part in parts) > _COMBINATIONS_MAX:
            raise ValueError(f"means over {_COMBINATIONS_MAX} combinations; divide it, or use '*'")
        return self


class HubRule(Rule):
    """A rule for the whole hub: for resources, or, with `nonResourceURLs`, for paths that are none."""

    resources: Words = Field(default_factory=list)
    """Plurals, as regions; `a/b` is the subresource b of a, "*" is all."""
    non_resource_urls: list[Annotated[str, AfterValidator(_url)]] = Field(
        default_factory=list, max_length=50, alias="nonResourceURLs"
    )
    """Paths that are no resources, as /metrics; "*" may stand at the end."""

    @model_validator(mode="after")
    def _is_one(self) -> "HubRule":
        if bool(self.resources) == bool(self.non_resource_urls):
            raise ValueError("is for resources or for nonResourceURLs, one of the two")
        return self


class Subject(Spec):
    """Who is meant."""

    kind: Literal["User", "Group", "Key"]
    """A user or a group by the full name, or a HubKey."""
    name: str = Field(min_length=1, max_length=512)
    """As oidc:ada@example.com; of a Key, as its HubKey is called."""

    @model_validator(mode="after")
    def _is_a_name(self) -> "Subject":
        if self.kind == "Key" and not is_label(self.name):
            raise ValueError("a Key is named as its HubKey is")
        return self


def _role_or_rules(spec: "RoleBindingSpec | HubRoleBindingSpec") -> None:
    if (spec.role is None) == (not spec.rules):
        raise ValueError("give a role or rules, one of the two")


class RoleBindingSpec(Spec):
    """Gives a role, or rules of its own, in this tenant."""

    role: Literal["viewer", "editor", "owner"] | None = None
    """The role they have; or give `rules`."""
    rules: list[Rule] = Field(default_factory=list, max_length=50)
    """What they may do, when no role says it."""
    subjects: list[Subject] = Field(min_length=1, max_length=200)
    """Who has it."""

    @model_validator(mode="after")
    def _is_one(self) -> "RoleBindingSpec":
        _role_or_rules(self)
        return self


class HubRoleBindingSpec(Spec):
    """Gives a role, or rules of its own, in the whole hub: the roles of tenants then hold in every tenant."""

    role: Literal["viewer", "editor", "owner", "operator"] | None = None
    """The role they have; or give `rules`."""
    rules: list[HubRule] = Field(default_factory=list, max_length=50)
    """What they may do, when no role says it."""
    subjects: list[Subject] = Field(min_length=1, max_length=200)
    """Who has it."""

    @model_validator(mode="after")
    def _is_one(self) -> "HubRoleBindingSpec":
        _role_or_rules(self)
        return self


def _told(subjects: Iterable[dict[str, str]]) -> str:
    return ",".join(f"{subject['kind'].lower()}/{subject['name']}" for subject in subjects)


_COLUMNS = (
    Column("ROLE", lambda binding: str(binding.spec.get("role", "custom"))),
    Column("SUBJECTS", lambda binding: _told(_subjects(binding))),
)


def _subjects(binding: Resource) -> list[dict[str, str]]:
    return binding.spec.get("subjects", [])


ROLE_BINDING = Kind(
    name="RoleBinding",
    plural="rolebindings",
    spec=RoleBindingSpec,
    dotted_names=True,
    read_by="owner",
    write_by="owner",
    columns=_COLUMNS,
)

HUB_ROLE_BINDING = Kind(
    name="HubRoleBinding",
    plural="hubrolebindings",
    spec=HubRoleBindingSpec,
    namespaced=False,
    dotted_names=True,
    read_by="operator",
    write_by="operator",
    columns=_COLUMNS,
)
