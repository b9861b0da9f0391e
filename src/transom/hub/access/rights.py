"""Who may do what: every binding there is, and the decision about one caller and one wish; no I/O.

1. What no binding allows is not allowed.
2. Whoever has nothing to do with a tenant is not told whether it exists (`HIDDEN`); whoever has learns that
   a right is missing (`FORBIDDEN`). Both are decided without a look at what is asked about.
3. Nobody gives more than they have.

`table` keeps it up to date. Next on the data's way: `hub.api.gate` turns decisions into answers.
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import NamedTuple

from transom.hub.access.callers import AUTHENTICATED, KEY_PREFIX, OPERATORS, Caller
from transom.hub.access.roles import ANYONE, is_tenant, roles_of
from transom.hub.access.rules import ALL, EVERYTHING, Asked, Rule, allowed, rule_of, uncovered
from transom.model.kinds import Catalog
from transom.model.names import Key
from transom.model.resources import JsonObject, Resource

HUB = ""
"""In the place of a tenant: what holds for the whole hub."""

_USER, _GROUP = "User", "Group"
_BUILT_IN = Key("HubRoleBinding", HUB, "")


class Decision(Enum):
    """What is to be done about a wish."""

    ALLOWED = "allowed"
    FORBIDDEN = "forbidden"
    HIDDEN = "hidden"


class Subject(NamedTuple):
    """A user or a group, by the name that callers have."""

    kind: str
    name: str


class Rights:
    """Bindings by who they are for. To be used by one thread."""

    def __init__(self, catalog: Catalog) -> None:
        self._roles = roles_of(catalog)
        self._tenants = [(kind.group, kind.plural) for kind in catalog.faces if is_tenant(kind)]
        self._subjects: dict[Key, frozenset[Subject]] = {}
        self._bound: dict[Subject, dict[str, dict[Key, tuple[Rule, ...]]]] = {}
        self._bind(_BUILT_IN, [Subject(_GROUP, OPERATORS)], EVERYTHING)
        self._bind(_BUILT_IN._replace(name="anyone"), [Subject(_GROUP, AUTHENTICATED)], ANYONE)

    def put(self, binding: Resource) -> None:
        """A binding is there, in the place of what it was."""
        self.drop(binding.key)
        self._bind(binding.key, subjects_of(binding.spec), self.rules_of(binding.spec))

    def drop(self, key: Key) -> None:
        """A binding is gone."""
        for subject in self._subjects.pop(key, ()):
            scopes = self._bound[subject]
            del scopes[key.namespace][key]
            if not scopes[key.namespace]:
                del scopes[key.namespace]
            if not scopes:
                del self._bound[subject]

    def rules_of(self, spec: JsonObject) -> tuple[Rule, ...]:
        """What a binding of this spec gives; of a role that is not known, nothing."""
        if "role" in spec:
            return self._roles.get(spec["role"], ())
        return tuple(rule_of(rule) for rule in spec.get("rules", []))

    def decide(self, caller: Caller, asked: Asked) -> Decision:
        """Whether `caller` may do what is asked."""
        if allowed(self.held(caller, asked.tenant), asked):
            return Decision.ALLOWED
        return Decision.FORBIDDEN if self._knows(caller, asked.tenant) else Decision.HIDDEN

    def is_operator(self, caller: Caller) -> bool:
        """Whether `caller` may do everything with all resources."""
        return OPERATORS in caller.groups or allowed(self.held(caller, HUB), Asked(ALL, ALL, ALL))

    def held(self, caller: Caller, tenant: str) -> Iterator[Rule]:
        """The rules that hold for `caller` in a tenant, those for the whole hub among them."""
        for scopes in self._scopes(caller):
            for scope in {HUB, tenant}:
                for rules in scopes.get(scope, {}).values():
                    yield from rules

    def bound_to_key(self, name: str) -> Iterator[tuple[str, tuple[Rule, ...]]]:
        """What is given to the HubKey of this name: (tenant, rules)."""
        for scope, bindings in self._bound.get(Subject(_USER, KEY_PREFIX + name), {}).items():
            for rules in bindings.values():
                yield scope, rules

    def lacking(self, caller: Caller, tenant: str, wanted: Iterable[Rule]) -> list[Asked]:
        """What of `wanted` the caller cannot give, for want of it."""
        return uncovered(self.held(caller, tenant), wanted)

    def _bind(self, key: Key, subjects: Iterable[Subject], rules: tuple[Rule, ...]) -> None:
        self._subjects[key] = frozenset(subjects)
        for subject in self._subjects[key]:
            self._bound.setdefault(subject, {}).setdefault(key.namespace, {})[key] = rules

    def _scopes(self, caller: Caller) -> Iterator[Mapping[str, Mapping[Key, tuple[Rule, ...]]]]:
        for subject in (
            Subject(_USER, caller.name),
            *(Subject(_GROUP, group) for group in dict.fromkeys(caller.groups)),
        ):
            scopes = self._bound.get(subject)
            if scopes is not None:
                yield scopes

    def _knows(self, caller: Caller, tenant: str) -> bool:
        """Whether the caller may learn that this tenant exists. The hub is no secret."""
        if tenant == HUB or any(tenant in scopes for scopes in self._scopes(caller)):
            return True
        rules = tuple(self.held(caller, tenant))
        return any(
            allowed(rules, Asked("get", group, plural, tenant=tenant, name=tenant))
            for group, plural in self._tenants
        )


def subjects_of(spec: JsonObject) -> list[Subject]:
    """Who a binding of this spec is for."""
    return [
        Subject(_USER, KEY_PREFIX + subject["name"])
        if subject["kind"] == "Key"
        else Subject(subject["kind"], subject["name"])
        for subject in spec.get("subjects", [])
    ]
