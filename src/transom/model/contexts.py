"""A context: platform data that a region must know to serve requests alone (is this key good, whose is it).

A context kind is a class. It says what its value holds, of which resources it is made, and which regions
need it; `build` is pure. The hub builds contexts and publishes them, the regions check each value against the
same class, so both sides import it and nothing else: kinds that ship stand in `catalog/*/context.py`, others
in any module named in the configuration, as a list called `CONTEXTS`.

Next on the data's way: `hub.contexts` builds, `links.publish` carries, `region.contexts` keeps.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from transom.model.errors import UNREADABLE, InvalidError, NotFoundError, Problem
from transom.model.resources import Resource, to_json

V = TypeVar("V", bound=msgspec.Struct)

VALUE_BYTES_MAX = 16 * 1024
"""The largest value of one context. What is larger is not slowly changing platform data."""

DELETED = b'{"deleted":true}'
"""The value of a delete marker when the subject was deleted. One for a region that it left has another."""

_TAKES_RIGHTS = b'"~restricts":true}'
"""How every value that restricts ends, whatever its schema: who cannot read it must not go on as before."""

EVERYWHERE: frozenset[str] = frozenset("*")
"""Every region there is, and those still to come."""


class ContextKind(ABC, Generic[V]):
    """Base of every context kind.

    `name` stands first in the keys; `schema` is the version of the value's schema: raise it when `value` or
    `build` changes, and every context of the kind is built anew and rolled out region by region. `subject` is
    the kind of resource that one context is made of; beside it only the subject's tenant may be read, so that
    a change of either tells exactly which contexts to look at again. `deletes_for_good`: deleting the subject
    takes rights away, as revoking does.

    What took rights away is undone by nothing but a later word of the same store of the hub. A store that was
    restored may have forgotten it: a region takes no value of another epoch that gives back what a deletion,
    a final value (`is_final`) or a restricting one (`restricts`) has taken, and says so.
    """

    name: ClassVar[str]
    schema: ClassVar[int] = 1
    deletes_for_good: ClassVar[bool] = False
    value: ClassVar[type[msgspec.Struct]]
    subject: ClassVar[str]

    def key_of(self, subject: Resource) -> str:
        """The context's key: the kind's name, a slash, and what regions look it up by."""
        return f"{self.name}/{subject.metadata.namespace}/{subject.metadata.name}"

    @abstractmethod
    def build(self, subject: Resource, tenant: Resource | None) -> V:
        """The value. Pure. Raises `InvalidError` (or `msgspec.ValidationError`) when there is no good one:
        then the region keeps the last good one. Nothing that `build` does deletes a context; only deleting
        the subject does.
        """

    def regions(self, subject: Resource, tenant: Resource | None) -> frozenset[str]:  # noqa: ARG002
        """The regions that need it, or `EVERYWHERE`: by default those of the tenant."""
        return regions_of_tenant(tenant)

    def restricts(self, value: V) -> bool:  # noqa: ARG002
        """Whether the value takes rights away (revoked, suspended).

        Such a context always takes the fast lane, waits for no soak, and no return to earlier values undoes
        it.
        """
        return False

    def is_final(self, value: V) -> bool:  # noqa: ARG002
        """Whether the subject never has another kind of value again (a revoked key stays revoked)."""
        return False

    def decode(self, data: bytes) -> V:
        """The value in a record. Unknown fields are left out; raises `InvalidError` when one is missing or
        wrong.
        """
        try:
            return msgspec.json.decode(data, type=self.value)  # pyright: ignore[reportReturnType]
        except UNREADABLE as error:
            raise InvalidError(f"a value of {self.name}/{self.schema}", [Problem("", str(error))]) from None

    def encode(self, value: V) -> bytes:
        """The record's bytes, read back once: what regions would refuse is refused here already.

        Raises `InvalidError`.
        """
        data = to_json(value)
        if self.restricts(value):
            data = data[:-1] + (b"," if len(data) > len(b"{}") else b"") + _TAKES_RIGHTS
        if len(data) > VALUE_BYTES_MAX:
            wrong = f"{len(data)} bytes; at most {VALUE_BYTES_MAX}"
            raise InvalidError(f"a value of {self.name}", [Problem("", wrong)])
        self.decode(data)
        return data


def takes_rights(data: bytes) -> bool:
    """Whether a value, of whatever kind and schema, takes rights away (`ContextKind.restricts`)."""
    return data.endswith(_TAKES_RIGHTS)


def regions_of_tenant(tenant: Resource | None) -> frozenset[str]:
    """The regions that a tenant is in; every region when it names none."""
    named = tenant.spec.get("regions") if tenant is not None else None
    return frozenset(named) if named else EVERYWHERE


class ContextKinds:
    """The context kinds of one system, by name.

    Raises `InvalidError` when two share a name, or a value is none to which a field can be added.
    """

    def __init__(self, kinds: Iterable[ContextKind[Any]]) -> None:
        self._kinds: dict[str, ContextKind[Any]] = {}
        for kind in kinds:
            if kind.name in self._kinds or not kind.name.isidentifier():
                wrong = "stands twice" if kind.name in self._kinds else "is not an identifier"
                raise InvalidError("the context kinds", [Problem(kind.name, wrong)])
            layout = kind.value.__struct_config__
            if layout.array_like or layout.forbid_unknown_fields:
                wrong = "its value takes no further fields: leave out array_like and forbid_unknown_fields"
                raise InvalidError("the context kinds", [Problem(kind.name, wrong)])
            self._kinds[kind.name] = kind

    def __iter__(self) -> Iterator[ContextKind[Any]]:
        return iter(self._kinds.values())

    def __getitem__(self, name: str) -> ContextKind[Any]:
        """The kind called `name`. Raises `NotFoundError`."""
        kind = self._kinds.get(name)
        if kind is None:
            raise NotFoundError(f"unknown context kind {name!r}; there are {', '.join(sorted(self._kinds))}")
        return kind

    def of_key(self, key: str) -> ContextKind[Any] | None:
        """The kind that a context's key belongs to; None for one that this release does not know."""
        return self._kinds.get(key.partition("/")[0])


def contexts_in(modules: Iterable[str]) -> list[ContextKind[Any]]:
    """The kinds that `modules` list under the name CONTEXTS. Raises `InvalidError` naming every mistake."""
    found: list[ContextKind[Any]] = []
    problems: list[Problem] = []
    for name in modules:
        try:
            listed = import_module(name).CONTEXTS
        except (ImportError, AttributeError) as error:
            problems.append(Problem(name, f"has no list CONTEXTS that can be imported: {error}"))
            continue
        for kind in listed:
            if isinstance(kind, ContextKind):
                found.append(kind)  # pyright: ignore[reportUnknownArgumentType]
            else:
                problems.append(Problem(name, f"CONTEXTS holds {kind!r}, which is no ContextKind instance"))
    if problems:
        raise InvalidError("context_modules", problems)
    return found
