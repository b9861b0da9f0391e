"""Rules: what may be done to what, in the words of Kubernetes' RBAC; pure.

1. Nothing is allowed that no rule allows: there are no rules that forbid.
2. A rule covers another only if it allows whatever that one could ever allow.

`roles` makes rules of roles, bindings bring others. Next on the data's way: `rights` holds whose they are.
https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from collections.abc import Iterable, Iterator
from itertools import product
from typing import NamedTuple

import msgspec

from transom.model.resources import JsonObject

ALL = "*"


class Asked(NamedTuple):
    """What somebody wants to do: `verb` to the `resource` (a plural) of a tenant, or of the hub ("").

    With a `path` it is about that, not about a resource.
    """

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    tenant: str = ""
    name: str = ""
    path: str = ""


class Rule(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """As a binding's spec has it, and as `SelfSubjectRulesReview` tells it."""

    verbs: tuple[str, ...]
    api_groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    resource_names: tuple[str, ...] = ()
    non_resource_urls: tuple[str, ...] = msgspec.field(default=(), name="nonResourceURLs")

    def allows(self, asked: Asked) -> bool:
        """Whether it allows what is asked, wherever that is."""
        if not (asked.verb in self.verbs or ALL in self.verbs):
            return False
        if asked.path:
            return any(_is_below(asked.path, url) for url in self.non_resource_urls)
        return (
            (asked.group in self.api_groups or ALL in self.api_groups)
            and _names(self.resources, asked.resource, asked.subresource)
            and (not self.resource_names or asked.name in self.resource_names)
        )

    def parts(self) -> Iterator[Asked]:
        """Whatever it allows, one combination at a time; "*" stands for itself."""
        for verb, url in product(self.verbs, self.non_resource_urls):
            yield Asked(verb, path=url)
        names = self.resource_names or ("",)
        for verb, group, resource, name in product(self.verbs, self.api_groups, self.resources, names):
            kind, _, subresource = resource.partition("/")
            yield Asked(verb, group, kind, subresource, name=name)


EVERYTHING = (Rule((ALL,), (ALL,), (ALL,)), Rule((ALL,), non_resource_urls=(ALL,)))
"""What operators may."""


def rule_of(spec: JsonObject) -> Rule:
    """A rule of a binding's spec. Raises `msgspec.ValidationError`."""
    return msgspec.convert(spec, Rule)


def allowed(rules: Iterable[Rule], asked: Asked) -> bool:
    """Whether one of `rules` allows it."""
    return any(rule.allows(asked) for rule in rules)


def uncovered(held: Iterable[Rule], wanted: Iterable[Rule]) -> list[Asked]:
    """What `wanted` allows that `held` does not: empty when whoever holds the one may give the other.

    https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping
    """
    rules = tuple(held)
    return [part for rule in wanted for part in rule.parts() if not allowed(rules, part)]


def _names(resources: tuple[str, ...], resource: str, subresource: str) -> bool:
    if ALL in resources:
        return True
    if not subresource:
        return resource in resources
    return f"{resource}/{subresource}" in resources or f"{ALL}/{subresource}" in resources


def _is_below(path: str, url: str) -> bool:
    return path == url or (url.endswith(ALL) and path.startswith(url[:-1]))
