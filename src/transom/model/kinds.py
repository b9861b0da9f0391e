"""A kind says what resources of one type hold, who may write them, and what their owner reads.

Layers follow from `owner` and `reads` alone: what people write is the ground floor (0); a kind whose owner
reads others stands one floor above the highest of them. Calls go one way: an owner reads lower floors and
writes its own; status flows back (invariant 7).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from transom.model.errors import InvalidError, NotFoundError, Problem
from transom.model.names import LABEL_RULE, SUBDOMAIN_RULE, Key, is_label, is_subdomain
from transom.model.resources import API_GROUP, JsonObject, Metadata, Resource

PEOPLE = "api"
"""The owner of kinds whose spec people write, through the hub's API."""
REGION = "region"
"""The owner of what regions originate: instances, and the status of what they were asked for."""

ROLES = ("viewer", "editor", "owner", "operator")
"""What people and programs can be, each more than the one before: the first three in a tenant, the last for
the whole hub (`hub.access.roles`)."""


class Spec(BaseModel):
    """Base of every kind's spec: frozen, camelCase in JSON, unknown fields are mistakes, no type coercion.

    The docstring of a class, and those under its fields, are what `kubectl explain` says of them.
    """

    model_config = ConfigDict(
        use_attribute_docstrings=True,
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=to_camel,
        populate_by_name=True,
    )


@dataclass(frozen=True)
class Column:
    """A printed column of `transom get`: a title and what to show of a resource."""

    title: str
    show: Callable[[Resource], str]


@dataclass(frozen=True)
class View:
    """Another face of a stored kind, for clients that know the same things by other words.

    What is stored as `of` is shown as `show` says, and what is shown stays as it is. `read` makes what
    is stored of what a client wants to see, and of what is held (None: nothing yet); `read(show(held), held)`
    is `held`. Both are pure.
    """

    of: str
    show: Callable[[Resource], Resource]
    read: Callable[[Resource, Resource | None], Resource]

    def through(self, wanted: Callable[[Resource | None], Resource | None]) -> Any:
        """A change of what clients see, as one of what is stored (`hub.changes.Wanted`)."""

        def stored(held: Resource | None) -> Resource | None:
            after = wanted(None if held is None else self.show(held))
            return None if after is None else self.read(after, held)

        return stored


@dataclass(frozen=True)
class Fleeting:
    """Of a kind that says how things are just now: its changes wake nobody and are soon forgotten.

    A tenant has at most `most` of them, the oldest go (0: any number); one that was not written for
    `keep_seconds` goes by itself (0: never). They go with their tenant, and keep nobody from deleting it.
    """

    most: int = 0
    keep_seconds: float = 0.0


@dataclass(frozen=True)
class Kind:
    """A resource type, served at `group` ("" for the core group) and `version`.

    `spec` and `status` are their schemas; a `status` of None may hold anything. Of a `flat` kind the fields
    of the spec stand beside `metadata` for clients, as in kinds that Kubernetes made before there were specs.
    A kind with a `view` is not stored: it shows another one.

    `owner` writes its spec and `status_owner` its status (`PEOPLE`, `REGION`, or a controller's name; nobody
    else may: invariant 6). `reads` are the kinds the owner looks at. `region_of` names the region a resource
    is published to. `references` names what must exist when a spec is written. `finalizers` are put on every
    new resource; the role named after the slash removes its own. `guards` is the column ("namespace" or
    "region") by which others depend on a resource of this kind: it cannot be deleted while they exist, nor a
    region while the `references` of anything name it.
    `check` names what is wrong with a resource whose spec is fit by itself.
    `limits` makes a resource a quota: the most that its tenant may have, by name of a `model.quotas.Measure`.
    `check_update` names what is wrong with changing a spec from one value to another, each fit on its own.
    `expand` makes the spec for a region, but for `region` and `zone`, of a resource of the first kind it
    reads: then the hub's own controller owns it (`hub.regional`).
    `read_by` and `write_by` are the least of `ROLES` that may. `fold_zones` makes one status of the statuses
    that a region's zones report.
    """

    name: str
    plural: str
    spec: type[Spec] | None
    group: str = API_GROUP
    version: str = "v1"
    status: type[BaseModel] | None = None
    flat: bool = False
    view: View | None = None
    fleeting: Fleeting | None = None
    owner: str = PEOPLE
    status_owner: str = ""
    reads: tuple[str, ...] = ()
    namespaced: bool = True
    dotted_names: bool = False
    short_names: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    finalizers: tuple[str, ...] = ()
    region_of: Callable[[Resource], str] | None = None
    references: Callable[[Resource], Iterable[Key]] | None = None
    guards: str = ""
    check: Callable[[Resource], Iterable[Problem]] | None = None
    read_by: str = "viewer"
    write_by: str = "editor"
    limits: Callable[[Resource], Mapping[str, int]] | None = None
    check_update: Callable[[Resource, Resource], Iterable[Problem]] | None = None
    expand: Callable[[Resource, str], JsonObject] | None = None
    fold_zones: Callable[[Resource, Mapping[str, JsonObject]], JsonObject] | None = None

    @property
    def api_version(self) -> str:
        """Its group and version as resources name them: "transom.dev/v1", "v1" in the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """How errors of the Kubernetes API name it: "deployments.transom.dev", "events" in the core group."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def is_of_kubernetes(self) -> bool:
        """Whether it is one of the kinds that Kubernetes itself has, for which clients have types."""
        return not self.group or self.group.endswith(".k8s.io")

    @property
    def stored(self) -> str:
        """The name of the kind that its resources are stored as."""
        return self.view.of if self.view else self.name

    @property
    def root(self) -> str:
        """Where the fields of its spec stand for clients: "spec", or "" for a flat kind."""
        return "" if self.flat else "spec"

    def shown(self, resource: Resource) -> Resource:
        """A stored resource as clients of this kind see it."""
        return self.view.show(resource) if self.view else resource

    def parse(self, resource: Resource) -> Any:
        """The spec as this kind's typed class. Raises `InvalidError` with every mistake."""
        if self.spec is None:
            return None
        try:
            return self.spec.model_validate(resource.spec)
        except ValidationError as error:
            raise InvalidError(str(resource.key), problems_of(error, self.root)) from None

    def validate(self, resource: Resource) -> Resource:
        """The resource with its spec's defaults written out. Raises `InvalidError` with every mistake."""
        problems = list(_metadata_problems(self, resource))
        spec: JsonObject = {}
        if self.spec is not None:
            try:
                spec = self.spec.model_validate(resource.spec).model_dump(by_alias=True, exclude_none=True)
            except ValidationError as error:
                problems.extend(problems_of(error, self.root))
        elif resource.spec:
            problems.append(Problem("spec", f"a {self.name} has no spec"))
        valid = msgspec.structs.replace(resource, api_version=self.api_version, spec=spec)
        if not problems and self.check is not None:
            problems.extend(self.check(valid))
        if problems:
            raise InvalidError(f"{self.name} {resource.metadata.name!r}", problems)
        return valid


def _metadata_problems(kind: Kind, resource: Resource) -> Iterator[Problem]:
    meta: Metadata = resource.metadata
    if resource.api_version not in ("", kind.api_version):
        yield Problem("apiVersion", f"expected {kind.api_version!r}, not {resource.api_version!r}")
    fits, rule = (is_subdomain, SUBDOMAIN_RULE) if kind.dotted_names else (is_label, LABEL_RULE)
    if not fits(meta.name):
        yield Problem("metadata.name", f"{meta.name!r} {rule}")
    if kind.namespaced and not is_label(meta.namespace):
        yield Problem("metadata.namespace", f"{meta.namespace!r} (the tenant) {LABEL_RULE}")
    if not kind.namespaced and meta.namespace:
        yield Problem("metadata.namespace", f"a {kind.name} belongs to no tenant; remove the namespace")


def problems_of(error: ValidationError, root: str = "") -> list[Problem]:
    """Every mistake pydantic found, with dotted paths below `root`."""
    problems: list[Problem] = []
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        path = root
        for part in item["loc"]:
            path += _step(part, first=not path)
        message = "unknown field" if item["type"] == "extra_forbidden" else item["msg"]
        # Files and manifests know lists; that they are kept as tuples concerns nobody.
        message = message.replace("a valid tuple", "a list").replace("Tuple should", "List should")
        problems.append(Problem(path, message.removeprefix("Value error, "), _sort_of(item["type"])))
    return problems


def _step(part: int | str, *, first: bool) -> str:
    """How a path goes on; a name that is empty would not be seen."""
    if part == "":
        return '[""]'
    if isinstance(part, int):
        return f"[{part}]"
    return part if first else f".{part}"


def _sort_of(error: str) -> str:
    """The sort of problem that pydantic calls `error`."""
    known = {
        "missing": "Required",
        "literal_error": "NotSupported",
        "enum": "NotSupported",
        "string_too_long": "TooLong",
        "too_long": "TooMany",
    }
    return known.get(error) or ("TypeInvalid" if error.endswith("_type") else "Invalid")


class Catalog:
    """The kinds of one system, found by any name people use; cycles and second owners are refused here.

    To go through it is to go through what is stored; `faces` has the kinds that show others, too.
    Raises `InvalidError` at construction when two kinds share a name, a kind reads (or shows) one that is not
    there, or reading goes in a circle.
    """

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self._kinds: dict[str, Kind] = {}
        self._aliases: dict[str, Kind] = {}
        self._served: dict[tuple[str, str, str], Kind] = {}
        problems: list[Problem] = []
        for kind in (kinds := tuple(kinds)):
            self._served.setdefault((kind.group, kind.version, kind.plural), kind)
            if kind.view is not None:
                continue
            if kind.name in self._kinds:
                first = self._kinds[kind.name]
                problems.append(Problem(kind.name, f"owned twice, by {first.owner!r} and by {kind.owner!r}"))
                continue
            self._kinds[kind.name] = kind
            for alias in dict.fromkeys(_names(kind)):
                taken = self._aliases.setdefault(alias, kind)
                if taken is not kind:
                    problems.append(Problem(kind.name, f"the name {alias!r} already means {taken.name}"))
        for kind in kinds:
            problems.extend(_strangers(kind, self._kinds))
            # A face goes by its names wherever they do not mean something that is stored.
            for alias in _names(kind) if kind.view else ():
                self._aliases.setdefault(alias, kind)
        if problems:
            raise InvalidError("the catalog", problems)
        self.layers: dict[str, int] = {}
        for kind in self:
            self._layer(kind, ())

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._kinds.values())

    @property
    def faces(self) -> Iterable[Kind]:
        """Every kind that is served: those that are stored, and those that show them in other words."""
        return self._served.values()

    def __getitem__(self, name: str) -> Kind:
        """The kind called exactly `name`. Raises `NotFoundError`."""
        kind = self._kinds.get(name)
        if kind is None:
            raise NotFoundError(f"unknown kind {name!r}; there are {', '.join(sorted(self._kinds))}")
        return kind

    def named(self, name: str) -> Kind:
        """The kind that people call `name`, short names included, in any case. Raises `NotFoundError`."""
        return self._aliases.get(name.lower()) or self[name]

    def served(self, group: str, version: str, plural: str) -> Kind | None:
        """The kind at this part of a path of the API, if there is one."""
        return self._served.get((group, version, plural))

    def _layer(self, kind: Kind, path: tuple[str, ...]) -> int:
        if kind.name in path:
            circle = " -> ".join((*path[path.index(kind.name) :], kind.name))
            raise InvalidError("the catalog", [Problem(kind.name, f"reads itself through {circle}")])
        if kind.name not in self.layers:
            below = [self._layer(self._kinds[read], (*path, kind.name)) for read in kind.reads]
            self.layers[kind.name] = 1 + max(below) if below else 0
        return self.layers[kind.name]


def _names(kind: Kind) -> tuple[str, ...]:
    return kind.name.lower(), kind.plural, kind.qualified, *kind.short_names


def _strangers(kind: Kind, kinds: Mapping[str, Kind]) -> Iterator[Problem]:
    for read in kind.reads:
        if read not in kinds:
            yield Problem(kind.name, f"reads {read!r}, which is not a kind")
        elif kinds[read].fleeting:
            yield Problem(kind.name, f"reads {read!r}, whose changes wake nobody")
    if kind.stored not in kinds:
        yield Problem(kind.name, f"shows {kind.stored!r}, which is not a kind")
